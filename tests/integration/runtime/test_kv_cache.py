"""The size of the engine's KV cache, from its metrics into heartbeats."""

from __future__ import annotations

import pytest
from tests.integration.runtime.conftest import Queue, RuntimeMaker, eventually, ready

from vllm_operator_api.queue import KvCacheReport

pytestmark = pytest.mark.integration


async def test_heartbeats_tell_the_kv_cache_of_a_running_engine(queue: Queue, make_runtime: RuntimeMaker) -> None:
    await ready(
        make_runtime(
            queue,
            engine_args=["--model=tiny", "--max-model-len=64", "--data-parallel-size=2"],
            engine_env={"VLLM_FAKE_KV_BLOCKS": "250"},
        )
    )

    def told() -> KvCacheReport | None:
        seen = queue.last_heartbeat("worker-0")
        return seen.kv_cache if seen is not None else None

    report = await eventually(told, "a heartbeat with the KV cache")
    assert report == KvCacheReport(engines=2, blocks=500, block_tokens=16, tokens=4000, max_concurrency=62.5)
    before_ready = [seen for seen in queue.heartbeats if seen.state == "starting"]
    assert all(seen.kv_cache is None for seen in before_ready)


async def test_an_engine_without_the_metric_works_all_the_same(queue: Queue, make_runtime: RuntimeMaker) -> None:
    runtime = await ready(make_runtime(queue, engine_env={"VLLM_FAKE_KV_BLOCKS": "0"}))
    await eventually(lambda: "tells no size of a KV cache" in runtime.log(), "the agent having asked")

    def running() -> bool:
        seen = queue.last_heartbeat("worker-0")
        return seen is not None and seen.state == "running" and seen.kv_cache is None

    await eventually(running, "heartbeats of the running agent")
