"""The supervisor's ends: who is told what, in which order, and what the container leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.integration.runtime.conftest import Queue, RuntimeMaker, chat, eventually, expect_rows, ready

pytestmark = pytest.mark.integration


def user(content: str, **more: object) -> dict[str, object]:
    """Body of a chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **more}


async def wait(runtime: object, timeout_seconds: float = 20.0) -> int:
    """The exit code."""
    return await asyncio.to_thread(runtime.wait, timeout_seconds)  # type: ignore[attr-defined]


async def test_sigterm_drains_agent_and_engine(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=30)
    runtime = await ready(make_runtime(queue, agent={"lease_seconds": 30}))
    request = asyncio.create_task(asyncio.to_thread(runtime.post, "/v1/chat/completions", user("!sleep 2.5")))
    await queue.publish(job, 0, [chat(0, "!sleep 1.5"), chat(1, "quick")])

    def busy() -> bool:
        seen = queue.last_heartbeat("worker-0")
        return bool(seen and seen.leases and seen.engine and seen.engine.in_flight == 2)

    await eventually(busy, "a lease and a client's request in flight")
    await queue.publish(job, 1, [chat(2, "not any more")])
    runtime.terminate()

    def draining() -> bool:
        return any(seen.state == "draining" and seen.leases for seen in queue.heartbeats)

    await eventually(draining, "a heartbeat of the draining agent")
    status, body = await request
    assert await wait(runtime) == 0
    assert (status, json.loads(body)["choices"][0]["finish_reason"]) == (200, "stop")
    expect_rows(await queue.results(job, 1), {0: "!sleep 1.5", 1: "quick"})
    last = queue.last_heartbeat("worker-0")
    assert last is not None
    assert (last.state, last.leases) == ("stopping", [])
    assert runtime.termination() is None
    # The second shard was left to others, or leased before the signal and then answered.
    assert await queue.pending() in {0, 1}


async def test_new_requests_get_503_while_the_engine_drains(make_runtime: RuntimeMaker) -> None:
    runtime = await ready(make_runtime())
    request = asyncio.create_task(asyncio.to_thread(runtime.post, "/v1/chat/completions", user("!sleep 1.5")))
    await eventually(lambda: "num_requests_running" in runtime.get("/metrics")[1], "metrics")
    await eventually(lambda: runtime.get("/metrics")[1].strip().endswith(" 1"), "a request in flight")
    runtime.terminate()
    status, body = await eventually(
        lambda: (answer := runtime.post("/v1/chat/completions", user("x")))[0] != 200 and answer, "a refused request"
    )
    assert status == 503
    assert json.loads(body)["error"]["type"] == "service_unavailable"
    assert (await request)[0] == 200
    assert await wait(runtime) == 0


async def test_rows_that_outlast_the_grace_are_given_back(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=30)
    runtime = await ready(make_runtime(queue, agent={"lease_seconds": 30}, shutdown_grace_seconds=1))
    await queue.publish(job, 0, [chat(0, "!sleep 2")])
    await eventually(lambda: bool((seen := queue.last_heartbeat("worker-0")) and seen.leases), "a lease")
    make_runtime(queue, agent={"lease_seconds": 30})
    started = time.monotonic()
    runtime.terminate()
    assert await wait(runtime) == 0
    assert time.monotonic() - started < 1 + 15
    results = await queue.results(job, 1, timeout_seconds=10)
    assert results[0].worker == "worker-1"


async def test_second_sigterm_ends_at_once(queue: Queue, make_runtime: RuntimeMaker) -> None:
    job = await queue.add_job(lease_seconds=30)
    runtime = await ready(make_runtime(queue, agent={"lease_seconds": 30}, shutdown_grace_seconds=60))
    await queue.publish(job, 0, [chat(0, "!sleep 1.5")])
    await eventually(lambda: bool((seen := queue.last_heartbeat("worker-0")) and seen.leases), "a lease")
    runtime.terminate()
    await eventually(lambda: any(seen.state == "draining" for seen in queue.heartbeats), "the drain")
    started = time.monotonic()
    runtime.terminate()
    assert await wait(runtime) == 143
    assert time.monotonic() - started < 3
    make_runtime(queue, agent={"lease_seconds": 30})
    assert (await queue.results(job, 1, timeout_seconds=10))[0].worker == "worker-1"


async def test_sigterm_while_the_engine_loads(make_runtime: RuntimeMaker) -> None:
    runtime = make_runtime(engine_env={"VLLM_FAKE_LOAD_SECONDS": "60"})
    engine = await asyncio.to_thread(lambda: runtime.engine)
    await eventually(lambda: signals_are_caught(engine), "the engine's signal handlers")
    started = time.monotonic()
    runtime.terminate()
    assert await wait(runtime) == 0
    assert 1 <= time.monotonic() - started < 5
    assert not engine.is_running()


def signals_are_caught(process: psutil.Process) -> bool:
    """Whether the process has a handler for SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
    return bool(mask >> (signal.SIGTERM - 1) & 1)


async def test_dead_agent_is_started_again_while_the_engine_serves(queue: Queue, make_runtime: RuntimeMaker) -> None:
    runtime = await ready(make_runtime(queue))
    first = runtime.agent
    first.kill()

    def another() -> bool:
        agents = runtime.children("vllm_runtime.agent")
        return bool(agents) and agents[0].pid != first.pid

    await eventually(another, "a new agent")
    assert runtime.get("/health")[0] == 200
    assert "vllm_runtime_agent_starts_total 2.0" in runtime.get("/metrics", runtime.supervisor_port)[1]


async def test_orphans_are_collected(make_runtime: RuntimeMaker) -> None:
    script = "import subprocess, time; subprocess.Popen(['sh', '-c', 'sleep 0.2 & echo $! >&2']).wait(); time.sleep(60)"
    runtime = make_runtime(engine_command=("python3", "-c", script))
    await eventually(lambda: [line for line in runtime.log().splitlines() if line.strip().isdigit()], "the orphan's id")
    orphan = int(next(line for line in runtime.log().splitlines() if line.strip().isdigit()))
    await eventually(lambda: not psutil.pid_exists(orphan), "the orphan collected")
    assert runtime.process.poll() is None


@pytest.mark.parametrize(
    ("engine_args", "engine_env", "message"),
    [
        (
            ["--model=tiny", "--max-modellen=5"],
            {},
            "this vLLM has no option --max-modellen; did you mean --max-model-len?",
        ),
        (["--model=tiny", "--api-key=x"], {}, "engine argument --api-key is not allowed"),
        (["--model=tiny"], {"LD_PRELOAD": "/x"}, "environment variable LD_PRELOAD must not be set for the engine"),
        (["--model=tiny", "--max-model-len=200000"], {}, "User-specified max_model_len (200000) is greater than"),
        (["--model=tiny", "--max-num-seqs=many"], {}, "argument --max-num-seqs: invalid int value: 'many'"),
        (["--model=tiny"], {"VLLM_FAKE_START_ERROR": "No available memory"}, "No available memory"),
    ],
)
async def test_why_the_engine_did_not_start(
    make_runtime: RuntimeMaker, engine_args: list[str], engine_env: dict[str, str], message: str
) -> None:
    runtime = make_runtime(engine_args=engine_args, engine_env=engine_env)
    code = await wait(runtime)
    document = runtime.termination()
    assert document is not None
    assert message in document.message
    assert (document.stage, document.exit_code) == ("start", code)
    assert code != 0


async def test_the_engine_ending_by_itself_without_an_error_is_a_fault(make_runtime: RuntimeMaker) -> None:
    runtime = make_runtime(engine_command=("python3", "-c", "pass"))
    assert await wait(runtime) == 1
    document = runtime.termination()
    assert document is not None
    assert "ended by itself with code 0" in document.message


async def test_a_program_that_is_not_there(make_runtime: RuntimeMaker) -> None:
    runtime = make_runtime(engine_command=("/nonexistent/python3",))
    assert await wait(runtime) == 2
    document = runtime.termination()
    assert document is not None
    assert "/nonexistent/python3" in document.message


async def test_only_listed_routes_and_a_clean_environment(make_runtime: RuntimeMaker) -> None:
    runtime = await ready(make_runtime())
    for path in ("/docs", "/invocations", "/scale_elastic_ep", "/-/vllm-runtime/activity", "/-/vllm-runtime/drain"):
        assert runtime.get(path)[0] == 404
        assert runtime.post(path, {})[0] == 404
    environment: Callable[[], dict[str, str]] = psutil.Process(runtime.engine.pid).environ
    names = set(environment())
    assert {
        "VLLM_RUNTIME_CONFIG",
        "POD_NAME",
        *(name for name in os.environ if name.startswith("KUBERNETES")),
    } & names == set()
    assert environment()["VLLM_PLUGINS"] == ""
