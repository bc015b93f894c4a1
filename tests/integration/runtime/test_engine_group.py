"""An engine that spans nodes: the supervisors of its leader and of a follower, side by side on this host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.runtime.conftest import RuntimeMaker, eventually, ready
from tests.support.runtime_process import RuntimeProcess, agent_config

pytestmark = pytest.mark.integration


def member(index: int) -> dict[str, str]:
    """What a LeaderWorkerSet and the downward API set in a pod of a group of two."""
    return {
        "LWS_LEADER_ADDRESS": "localhost",
        "LWS_GROUP_SIZE": "2",
        "LWS_WORKER_INDEX": str(index),
        "POD_IP": "127.0.0.1",
    }


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[RuntimeProcess]:
    """Not started: it first has to know the leader's port."""
    # The agent in its configuration must not run: heartbeats of an engine without a server would be nonsense.
    agent = agent_config("nats://127.0.0.1:1", "q")
    runtime = RuntimeProcess(tmp_path, name="follower", nodes=2, container_env=member(1), agent=agent)
    yield runtime
    runtime.stop()


async def start_group(make_runtime: RuntimeMaker, follower: RuntimeProcess) -> RuntimeProcess:
    """The leader, once both are up."""
    leader = await ready(make_runtime(nodes=2, container_env=member(0)))
    follower.engine_port = leader.engine_port
    follower.start()

    def up() -> bool:
        status, body = follower.get("/healthz", follower.supervisor_port)
        return status == 200 and json.loads(body) == {"engineRunning": True, "engineReady": True}

    await eventually(up, "the follower seeing the leader")
    return leader


async def test_what_each_engine_is_told(make_runtime: RuntimeMaker, follower: RuntimeProcess) -> None:
    leader = await start_group(make_runtime, follower)
    leads, follows = leader.engine.cmdline(), follower.engine.cmdline()
    assert leads[-8:] == [
        "--nnodes", "2", "--node-rank", "0", "--master-addr", "127.0.0.1", "--master-port", "29501",
    ]  # fmt: skip
    assert follows[-9:] == [
        "--nnodes", "2", "--node-rank", "1", "--master-addr", "localhost", "--master-port", "29501", "--headless",
    ]  # fmt: skip
    assert "--port" in leads
    assert "--port" not in follows
    assert follower.children("vllm_runtime.agent") == []


async def test_a_follower_outlasts_the_leaders_drain(make_runtime: RuntimeMaker, follower: RuntimeProcess) -> None:
    leader = await start_group(make_runtime, follower)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "!sleep 2.5"}]}
    request = asyncio.create_task(asyncio.to_thread(leader.post, "/v1/chat/completions", body))
    await eventually(lambda: leader.get("/metrics")[1].strip().endswith(" 1"), "a request in flight")
    engine = follower.engine
    leader.terminate()
    follower.terminate()
    status, _ = await request
    assert status == 200
    assert engine.is_running()
    assert await asyncio.to_thread(leader.wait) == 0
    assert await asyncio.to_thread(follower.wait) == 0
    assert not engine.is_running()


async def test_a_follower_without_a_leader_ends_soon(follower: RuntimeProcess) -> None:
    follower.start()
    await asyncio.to_thread(lambda: follower.engine)
    follower.terminate()
    assert await asyncio.to_thread(follower.wait, 15.0) == 0


async def test_a_pod_that_is_in_no_group(make_runtime: RuntimeMaker) -> None:
    runtime = make_runtime(nodes=2)
    assert await asyncio.to_thread(runtime.wait) == 2
    document = runtime.termination()
    assert document is not None
    assert document.message == "LWS_GROUP_SIZE is '', expected the number that a LeaderWorkerSet sets"
