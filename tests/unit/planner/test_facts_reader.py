"""The model-facts reader on directories and against a hub on loopback."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.planner.test_facts import LLAMA

from vllm_operator.planner.facts_reader import read_and_report
from vllm_operator_api.runtime import MAX_TERMINATION_MESSAGE_BYTES, ModelFactsConfig, ModelFactsResult


@dataclass
class Volume:
    """A mounted volume with one model directory."""

    root: Path
    report: Path
    path: str = "models/llama"

    @property
    def model(self) -> Path:
        return self.root / self.path

    def write(self, name: str, content: bytes | dict[str, Any]) -> None:
        file = self.model / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def read(self) -> tuple[int, ModelFactsResult]:
        code = read_and_report(ModelFactsConfig(path=str(self.model)), root=self.root, report=self.report)
        message = self.report.read_bytes()
        assert len(message) <= MAX_TERMINATION_MESSAGE_BYTES
        return code, ModelFactsResult.model_validate_json(message)

    def error(self) -> tuple[str, str]:
        code, result = self.read()
        assert code == 0
        assert result.error is not None
        return result.error.reason, result.error.message


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    (tmp_path / "volume").mkdir()
    return Volume(tmp_path / "volume", tmp_path / "termination-log")


def test_sums_what_the_index_names(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    volume.write("1.safetensors", b"x" * 100)
    volume.write("2.safetensors", b"x" * 50)
    volume.write("consolidated.safetensors", b"x" * 1000)
    volume.write("model.safetensors.index.json", {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    code, result = volume.read()
    assert code == 0
    assert result.facts is not None
    assert result.facts.weights_bytes == 150
    assert result.facts.source == "models/llama"


def test_single_file_in_the_layout_of_the_hubs_cache(volume: Volume) -> None:
    blob = volume.root / "blobs" / "abc"
    blob.parent.mkdir()
    blob.write_bytes(b"x" * 70)
    volume.write("config.json", LLAMA)
    (volume.model / "model.safetensors").symlink_to(os.path.relpath(blob, volume.model))
    _, result = volume.read()
    assert result.facts is not None
    assert result.facts.weights_bytes == 70


def test_directory_that_does_not_exist(volume: Volume) -> None:
    assert volume.error() == (
        "ModelNotFound",
        "the directory models/llama does not exist on the volume; correct spec.model.id",
    )


def test_directory_without_a_configuration(volume: Volume) -> None:
    volume.write("readme.md", b"")
    reason, message = volume.error()
    assert reason == "ModelNotFound"
    assert "models/llama has no config.json" in message


def test_unreadable_configuration(volume: Volume) -> None:
    volume.write("config.json", b"{'single': 'quotes'}")
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert "config.json is not JSON" in message


def test_missing_shard(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    volume.write("1.safetensors", b"x")
    volume.write("model.safetensors.index.json", {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert message == "the file models/llama/2.safetensors is missing; copy the model again, whole"


def test_pickles_only(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    volume.write("pytorch_model.bin", b"x")
    reason, message = volume.error()
    assert reason == "UnsafeWeights"
    assert "pytorch_model.bin" in message
    assert "convert them to safetensors" in message


def test_no_weights(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    assert volume.error()[0] == "ModelConfigInvalid"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_that_leave_the_volume(volume: Volume, name: str) -> None:
    outside = volume.root.parent / "outside"
    outside.write_bytes(json.dumps(LLAMA).encode())
    volume.write("config.json", LLAMA)
    (volume.model / name).unlink(missing_ok=True)
    (volume.model / name).symlink_to(outside)
    reason, message = volume.error()
    assert reason == "ModelConfigInvalid"
    assert "leads out of the volume" in message


def test_model_directory_that_is_a_link_out_of_the_volume(volume: Volume) -> None:
    outside = volume.root.parent / "outside"
    outside.mkdir()
    volume.model.parent.mkdir()
    volume.model.symlink_to(outside)
    assert "leads out of the volume" in volume.error()[1]


def test_pipe_instead_of_a_file(volume: Volume) -> None:
    volume.write("config.json", LLAMA)
    os.mkfifo(volume.model / "model.safetensors")
    assert "is not a regular file" in volume.error()[1]


# ---- hub


@dataclass
class Hub:
    """A hub with one repository; ``answers`` replaces the answer to a path."""

    files: dict[str, bytes]
    answers: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    url: str = ""
    with_sizes: bool = True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        for part, (status, kind, body) in self.answers.items():
            if part in path:
                return web.Response(status=status, body=body, content_type=kind)
        if path == "/api/models/org/llama/revision/main":
            siblings = [
                {"rfilename": name, **({"size": len(body)} if self.with_sizes else {})}
                for name, body in self.files.items()
            ]
            return web.json_response({"sha": "a" * 40, "siblings": siblings})
        prefix = f"/org/llama/resolve/{'a' * 40}/"
        if path.startswith(prefix) and path.removeprefix(prefix) in self.files:
            return web.Response(body=self.files[path.removeprefix(prefix)], content_type="text/plain")
        return web.Response(status=404, text="not found")


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
    hub = Hub(files)
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


Read = Callable[..., Awaitable[tuple[int, ModelFactsResult]]]


@pytest.fixture
def read(hub: Hub, tmp_path: Path) -> Read:
    async def read(repository: str = "org/llama", endpoint: str | None = None) -> tuple[int, ModelFactsResult]:
        config = ModelFactsConfig(hub_repository=repository, hub_endpoint=endpoint or hub.url)
        report = tmp_path / "termination-log"
        code = await asyncio.to_thread(read_and_report, config, root=tmp_path, report=report)
        return code, ModelFactsResult.model_validate_json(report.read_bytes())

    return read


async def test_hub_repository(read: Read) -> None:
    code, result = await read()
    assert code == 0
    assert result.facts is not None
    assert result.facts.weights_bytes == 42
    assert result.facts.source == f"org/llama@{'a' * 40}"
    assert result.facts.revision == "a" * 40


async def test_hub_without_sizes(hub: Hub, read: Read) -> None:
    hub.with_sizes = False
    _, result = await read()
    assert result.facts is not None
    assert result.facts.weights_bytes == 999


async def test_hub_repository_with_pickles_only(hub: Hub, read: Read) -> None:
    hub.files = {"config.json": hub.files["config.json"], "pytorch_model.bin": b"x"}
    code, result = await read()
    assert code == 0
    assert result.error is not None
    assert result.error.reason == "UnsafeWeights"


async def test_hub_lacks_a_shard(hub: Hub, read: Read) -> None:
    del hub.files["2.safetensors"]
    _, result = await read()
    assert result.error is not None
    assert "lacks 2.safetensors" in result.error.message


@pytest.mark.parametrize(
    ("answer", "code", "reason", "says"),
    [
        ((404, "text/plain", b""), 0, "ModelNotFound", "no repository org/llama with the revision main"),
        ((401, "text/plain", b""), 0, "ModelNotFound", "answers 401 for org/llama: it does not exist, is private"),
        ((403, "text/plain", b""), 0, "ModelNotFound", "or is gated; copy such a model to a volume"),
        ((429, "text/plain", b""), 1, "ModelFactsUnavailable", "too many requests"),
        ((503, "text/html", b"<html>"), 1, "ModelFactsUnavailable", "answers 503"),
        ((200, "text/html", b"<html>"), 1, "ModelFactsUnavailable", "a web page instead of"),
        ((200, "application/json", b"{"), 0, "ModelConfigInvalid", "is not JSON"),
        ((200, "application/json", b" " * (9 << 20)), 0, "ModelConfigInvalid", "has more than"),
    ],
)
async def test_answers_of_the_hub_are_told_apart(
    hub: Hub, read: Read, answer: tuple[int, str, bytes], code: int, reason: str, says: str
) -> None:
    hub.answers["/api/models/"] = answer
    found_code, result = await read()
    assert found_code == code
    assert result.error is not None
    assert result.error.reason == reason
    assert says in result.error.message


async def test_hub_that_is_not_there(read: Read, unused_tcp_port: int) -> None:
    code, result = await read(endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    assert code == 1
    assert result.error is not None
    assert result.error.reason == "ModelFactsUnavailable"
    assert "cannot be reached" in result.error.message
