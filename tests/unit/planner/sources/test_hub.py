"""The model-facts reader against a hub on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.model_configs import LLAMA, safetensors

from vllm_operator.planner.sources.reader import read_and_report
from vllm_operator_api.model import WeightsSource
from vllm_operator_api.runtime import ModelFactsConfig, ModelFactsResult

COMMIT = "a" * 40
TOKEN = "hf_canary_0123456789"


@dataclass
class Answer:
    """What the hub says instead of a file."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    """A hub with one repository; ``answers`` replaces the answer to a path that holds the key."""

    files: dict[str, bytes]
    answers: dict[str, Answer] = field(default_factory=dict)
    url: str = ""
    with_sizes: bool = True
    gated: bool | str = False
    ranges: bool = True
    seen: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, Authorization and Range of each request."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.seen.append((path, request.headers.get("Authorization"), request.headers.get("Range")))
        for part, answer in self.answers.items():
            if part in path:
                return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if path == "/api/models/org/llama/revision/main":
            siblings = [
                {"rfilename": name, **({"size": len(body)} if self.with_sizes else {})}
                for name, body in self.files.items()
            ]
            return web.json_response({"sha": COMMIT, "gated": self.gated, "siblings": siblings})
        name = path.rpartition(f"/resolve/{COMMIT}/")[2]
        if name not in self.files:
            return web.Response(status=404, text="not found")
        body, wanted = self.files[name], request.headers.get("Range")
        if wanted is not None and self.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            return web.Response(status=206, body=body[int(first) : int(last) + 1])
        return web.Response(body=body, content_type="text/plain")

    def authorizations(self) -> set[str | None]:
        return {authorization for _, authorization, _ in self.seen}


async def serve(hub: Hub) -> AsyncIterator[Hub]:
    app = web.Application()
    app.router.add_get("/{path:.*}", hub.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    hub.url = f"http://{host}:{port}"
    yield hub
    await runner.cleanup()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    index = {"metadata": {"total_size": 999}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    files = {
        "config.json": json.dumps(LLAMA).encode(),
        "model.safetensors.index.json": json.dumps(index).encode(),
        "1.safetensors": b"x" * 30,
        "2.safetensors": b"x" * 12,
        "original/consolidated.00.pth": b"x" * 500,
    }
    async for served in serve(Hub(files)):
        yield served


@pytest.fixture
async def other_host() -> AsyncIterator[Hub]:
    async for served in serve(Hub({"config.json": json.dumps(LLAMA).encode()})):
        yield served


Read = Callable[..., Awaitable[tuple[int, ModelFactsResult]]]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def read(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Read:
    async def read(
        repository: str = "org/llama", endpoint: str | None = None, token: Path | None = None
    ) -> tuple[int, ModelFactsResult]:
        config = ModelFactsConfig(
            hub_repository=repository,
            hub_endpoint=endpoint or hub.url,
            hub_token_file=None if token is None else str(token),
        )
        report = tmp_path / "termination-log"
        code = await asyncio.to_thread(read_and_report, config, root=tmp_path, report=report)
        message = report.read_bytes()
        assert TOKEN.encode() not in message
        assert TOKEN not in "".join(capsys.readouterr())
        return code, ModelFactsResult.model_validate_json(message)

    return read


async def test_repository_with_an_index(read: Read) -> None:
    code, result = await read()
    assert code == 0
    assert result.facts is not None
    assert (result.facts.weights.total_bytes, result.facts.weights.source) == (42, WeightsSource.FILES)
    assert result.facts.source == f"org/llama@{COMMIT}"
    assert result.facts.revision == COMMIT


async def test_everything_is_read_of_one_commit(hub: Hub, read: Read) -> None:
    await read()
    assert [path for path, _, _ in hub.seen] == [
        "/api/models/org/llama/revision/main",
        f"/org/llama/resolve/{COMMIT}/config.json",
        f"/org/llama/resolve/{COMMIT}/model.safetensors.index.json",
    ]


async def test_repository_without_sizes(hub: Hub, read: Read) -> None:
    hub.with_sizes = False
    _, result = await read()
    assert result.facts is not None
    assert (result.facts.weights.total_bytes, result.facts.weights.source) == (999, WeightsSource.INDEX)


async def test_header_of_a_single_file(hub: Hub, read: Read) -> None:
    content = safetensors({"model.embed_tokens.weight": 70_000, "model.layers.0.x": 30_000, "model.layers.32.x": 5})
    hub.files = {"config.json": hub.files["config.json"], "model.safetensors": content}
    _, result = await read()
    assert result.facts is not None
    assert (result.facts.weights.total_bytes, result.facts.weights.source) == (100_000, WeightsSource.HEADERS)
    length = int.from_bytes(content[:8], "little")
    assert [wanted for _, _, wanted in hub.seen[2:]] == ["bytes=0-7", f"bytes=8-{8 + length - 1}"]


async def test_hub_that_gives_no_parts_of_files(hub: Hub, read: Read) -> None:
    content = safetensors({"a": 100})
    hub.files = {"config.json": hub.files["config.json"], "model.safetensors": content}
    hub.ranges = False
    _, result = await read()
    assert result.facts is not None
    assert (result.facts.weights.total_bytes, result.facts.weights.source) == (len(content), WeightsSource.FILES)


async def test_hostile_header_of_a_single_file(hub: Hub, read: Read) -> None:
    hub.files = {"config.json": hub.files["config.json"], "model.safetensors": (2**62).to_bytes(8, "little")}
    _, result = await read()
    assert result.error is not None
    assert "says that its header has 4611686018427387904 bytes" in result.error.message


async def test_repository_with_pickles_only(hub: Hub, read: Read) -> None:
    hub.files = {"config.json": hub.files["config.json"], "pytorch_model.bin": b"x"}
    code, result = await read()
    assert code == 0
    assert result.error is not None
    assert result.error.reason == "UnsafeWeights"


async def test_repository_that_lacks_a_shard(hub: Hub, read: Read) -> None:
    del hub.files["2.safetensors"]
    _, result = await read()
    assert result.error is not None
    assert "lacks 2.safetensors" in result.error.message


@pytest.mark.parametrize(
    ("answer", "code", "reason", "says"),
    [
        (Answer(404), 0, "ModelNotFound", "no repository org/llama with the revision main"),
        (Answer(401, headers={"X-Error-Code": "RepoNotFound"}), 0, "ModelNotFound", "does not exist or is private"),
        (Answer(403), 0, "ModelNotFound", "answers 403 for org/llama"),
        (Answer(401, headers={"X-Error-Code": "GatedRepo"}), 0, "GatedModel", "name a Secret with a token"),
        (Answer(403, headers={"X-Error-Code": "GatedRepo"}), 0, "GatedModel", "accept its licence at http://127.0.0.1"),
        (Answer(429), 0, "HubRateLimited", "tries again later"),
        (Answer(503, b"<html>", {"Content-Type": "text/html"}), 1, "ModelFactsUnavailable", "answers 503"),
        (Answer(200, b"<html>", {"Content-Type": "text/html"}), 1, "ModelFactsUnavailable", "a web page instead of"),
        (Answer(200, b"x", {"Content-Encoding": "gzip"}), 1, "ModelFactsUnavailable", "compressed"),
        (Answer(200, b"{"), 0, "ModelConfigInvalid", "is not JSON"),
        (Answer(200, b" " * (9 << 20)), 0, "ModelConfigInvalid", "has more than"),
        (Answer(200, b"{}"), 0, "ModelFactsUnavailable", "does not list the files"),
        (Answer(302, headers={"Location": "/api/models/again"}), 1, "ModelFactsUnavailable", "redirects without end"),
        (Answer(302, headers={"Location": "file:///etc/passwd"}), 1, "ModelFactsUnavailable", "not safe to follow"),
    ],
)
async def test_answers_of_the_hub_are_told_apart(
    hub: Hub, read: Read, answer: Answer, code: int, reason: str, says: str
) -> None:
    hub.answers["/api/models/"] = answer
    found_code, result = await read()
    assert result.error is not None
    assert (found_code, result.error.reason) == (code, reason)
    assert says in result.error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"RateLimit": '"api";r=0;t=123'}, 123),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "7", "RateLimit": '"api";r=0;t=123'}, 7),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "RateLimit": '"api";r=0;t=5'}, 5),
        ({"Retry-After": "999999999"}, 86_400),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "9" * 5000}, None),
        ({"RateLimit": "nonsense"}, None),
    ],
)
async def test_the_wait_that_the_hub_asks_for(
    hub: Hub, read: Read, headers: dict[str, str], seconds: int | None
) -> None:
    hub.answers["/api/models/"] = Answer(429, headers=headers)
    _, result = await read()
    assert result.error is not None
    assert result.error.retry_after_seconds == seconds
    assert seconds is None or f"asks to wait {seconds} s" in result.error.message


async def test_gated_repository_whose_description_is_public(hub: Hub, read: Read) -> None:
    hub.gated = "manual"
    hub.answers["/resolve/"] = Answer(401)
    _, result = await read()
    assert result.error is not None
    assert result.error.reason == "GatedModel"


# ---- token


async def test_the_token_is_sent_to_the_hub(hub: Hub, read: Read, token_file: Path) -> None:
    code, _ = await read(token=token_file)
    assert code == 0
    assert hub.authorizations() == {f"Bearer {TOKEN}"}


async def test_without_a_token_none_is_sent(hub: Hub, read: Read) -> None:
    await read()
    assert hub.authorizations() == {None}


async def test_the_token_does_not_follow_to_another_host(
    hub: Hub, other_host: Hub, read: Read, token_file: Path
) -> None:
    target = f"{other_host.url}/org/llama/resolve/{COMMIT}/config.json"
    hub.answers["config.json"] = Answer(302, headers={"Location": target})
    code, _ = await read(token=token_file)
    assert code == 0
    assert [path for path, _, _ in other_host.seen] == [f"/org/llama/resolve/{COMMIT}/config.json"]
    assert other_host.authorizations() == {None}


@pytest.mark.parametrize(("status", "code"), [(401, ""), (403, "RepoNotFound")])
async def test_a_token_that_is_refused(hub: Hub, read: Read, token_file: Path, status: int, code: str) -> None:
    hub.answers["/api/models/"] = Answer(status, headers={"X-Error-Code": code})
    _, result = await read(token=token_file)
    assert result.error is not None
    assert result.error.reason == "ModelNotFound"
    assert "the token that was given is not valid or may not read it" in result.error.message


async def test_a_token_without_access_to_a_gated_repository(hub: Hub, read: Read, token_file: Path) -> None:
    hub.answers["/api/models/"] = Answer(403, headers={"X-Error-Code": "GatedRepo"})
    _, result = await read(token=token_file)
    assert result.error is not None
    assert result.error.reason == "GatedModel"
    assert "the token that was given has no access" in result.error.message


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"\xff\xfe", b"a\x00b"])
async def test_a_file_without_a_token(read: Read, token_file: Path, content: bytes) -> None:
    token_file.write_bytes(content)
    code, result = await read(token=token_file)
    assert code == 0
    assert result.error is not None
    assert f"the file {token_file} holds no token" in result.error.message


# ---- no hub


async def test_hub_that_is_not_there(read: Read, unused_tcp_port: int) -> None:
    code, result = await read(endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    assert code == 1
    assert result.error is not None
    assert result.error.reason == "ModelFactsUnavailable"
    assert "cannot be reached" in result.error.message


async def test_a_popular_model_is_estimated_where_there_is_no_hub(read: Read, unused_tcp_port: int) -> None:
    code, result = await read("meta-llama/Llama-3.1-8B-Instruct", endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    assert code == 0
    assert result.facts is not None
    assert result.facts.guesses[0].startswith("Estimated: numbers of llama-3.1-8b-instruct built into the operator")
    assert result.facts.weights.total_bytes == 16_060_522_496
    assert result.facts.weights.source is WeightsSource.COMPUTED


async def test_a_hub_that_answers_is_believed_about_popular_models(hub: Hub, read: Read) -> None:
    hub.answers["/api/models/"] = Answer(503)
    code, result = await read("meta-llama/Llama-3.1-8B-Instruct")
    assert code == 1
    assert result.facts is None


@pytest.mark.parametrize("endpoint", ["http://[::1", "nonsense", "ftp://example.com", ""])
async def test_addresses_that_are_none(read: Read, hub: Hub, endpoint: str) -> None:
    code, result = await read(endpoint=endpoint or "http://")
    assert code == 1
    assert result.error is not None
    assert result.error.reason == "ModelFactsUnavailable"
