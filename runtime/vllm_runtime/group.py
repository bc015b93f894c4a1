"""The pods of one engine that spans nodes: which of them this is, and what vLLM is told of it.

A LeaderWorkerSet makes the group. Its leader (index 0) serves HTTP and runs the queue agent; the followers only lend
their GPUs (vLLM's ``--headless``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vllm_operator_api.runtime import GROUP_INDEX_ENV, GROUP_LEADER_ENV, GROUP_SIZE_ENV, POD_IP_ENV
from vllm_runtime.errors import ConfigurationError

MASTER_PORT: Final = 29501
"""vLLM's default (config/parallel.py:312), written out so that it does not depend on the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineGroup:
    """This pod's place in its group."""

    size: int
    index: int
    leader_address: str
    """Host name by which followers find the leader; the leader's own IP address on the leader, for it binds to it."""

    @property
    def follows(self) -> bool:
        """Whether another pod of the group serves HTTP."""
        return self.index > 0

    def engine_arguments(self) -> list[str]:
        """Options of vLLM that no one else may set (engine/arg_utils.py:2359)."""
        arguments = [
            "--nnodes", str(self.size),
            "--node-rank", str(self.index),
            "--master-addr", self.leader_address,
            "--master-port", str(MASTER_PORT),
        ]  # fmt: skip
        return [*arguments, "--headless"] if self.follows else arguments


def engine_group(nodes: int, environment: Mapping[str, str]) -> EngineGroup | None:
    """The group that the environment tells of; None for an engine of one pod, whatever the environment holds.

    Raises:
        ConfigurationError: a variable is missing, or contradicts ``nodes``.
    """
    if nodes == 1:
        return None
    size = _number(environment, GROUP_SIZE_ENV)
    if size != nodes:
        raise ConfigurationError(f"{GROUP_SIZE_ENV} is {size}, but the engine is planned for {nodes} pods")
    index = _number(environment, GROUP_INDEX_ENV)
    if index >= size:
        raise ConfigurationError(f"{GROUP_INDEX_ENV} is {index}, but the group has {size} pods")
    source = GROUP_LEADER_ENV if index else POD_IP_ENV
    address = environment.get(source, "")
    if not address:
        raise ConfigurationError(f"{source} is not set: an engine of {nodes} pods is run by a LeaderWorkerSet")
    return EngineGroup(size=size, index=index, leader_address=address)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigurationError(f"{name} is {text!r}, expected the number that a LeaderWorkerSet sets")
    return int(text)
