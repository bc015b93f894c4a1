"""Which pod of a group this is, from what a LeaderWorkerSet sets."""

from __future__ import annotations

import pytest

from vllm_runtime.errors import ConfigurationError
from vllm_runtime.group import EngineGroup, engine_group

LEADER = {
    "LWS_LEADER_ADDRESS": "chat-engine-0.chat-engine.team-a",
    "LWS_GROUP_SIZE": "2",
    "LWS_WORKER_INDEX": "0",
    "POD_IP": "10.1.2.3",
}
FOLLOWER = {**LEADER, "LWS_WORKER_INDEX": "1", "POD_IP": "10.1.2.4"}


def test_one_pod_is_no_group() -> None:
    assert engine_group(1, LEADER) is None


def test_the_leader_binds_to_its_own_address() -> None:
    group = engine_group(2, LEADER)
    assert group == EngineGroup(size=2, index=0, leader_address="10.1.2.3")
    assert not group.follows
    assert group.engine_arguments() == [
        "--nnodes", "2", "--node-rank", "0", "--master-addr", "10.1.2.3", "--master-port", "29501",
    ]  # fmt: skip


def test_a_follower_finds_the_leader_by_name() -> None:
    group = engine_group(2, FOLLOWER)
    assert group is not None
    assert group.follows
    assert group.engine_arguments() == [
        "--nnodes", "2", "--node-rank", "1", "--master-addr", "chat-engine-0.chat-engine.team-a",
        "--master-port", "29501", "--headless",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LWS_GROUP_SIZE": "3"}, "LWS_GROUP_SIZE is 3, but the engine is planned for 2 pods"),
        ({"LWS_GROUP_SIZE": ""}, "LWS_GROUP_SIZE is ''"),
        ({"LWS_WORKER_INDEX": "2"}, "LWS_WORKER_INDEX is 2, but the group has 2 pods"),
        ({"LWS_WORKER_INDEX": "-1"}, "LWS_WORKER_INDEX is '-1'"),
        ({"LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": ""}, "LWS_LEADER_ADDRESS is not set"),
        ({"POD_IP": ""}, "POD_IP is not set"),
    ],
)
def test_contradictions(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        engine_group(2, LEADER | changes)
    assert message in str(raised.value)
