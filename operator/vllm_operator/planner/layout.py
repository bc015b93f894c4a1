"""How one replica of a model is cut over GPUs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Layout:
    """The degrees of one replica. ``Layout()`` is one GPU."""

    tensor: int = 1
    """--tensor-parallel-size: every layer is cut over so many GPUs."""
    pipeline: int = 1
    """--pipeline-parallel-size: so many stages, each with a share of the layers."""
    data: int = 1
    """--data-parallel-size: so many copies of attention and KV cache; the experts are cut over all GPUs."""
    expert_parallel: bool = False
    """--enable-expert-parallel: whole experts per GPU instead of a slice of each."""
    nodes: int = 1
    """Nodes that the replica spans; its GPUs are divided evenly over them."""

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.pipeline * self.data

    @property
    def gpus_per_node(self) -> int:
        """GPUs that each of its pods asks for."""
        return self.gpus // self.nodes

    def __str__(self) -> str:
        """For users: ``tensor=8 pipeline=2``."""
        parts = [f"tensor={self.tensor}"]
        if self.pipeline > 1:
            parts.append(f"pipeline={self.pipeline}")
        if self.data > 1:
            parts.append(f"data={self.data}")
        if self.expert_parallel:
            parts.append("experts whole")
        if self.nodes > 1:
            parts.append(f"nodes={self.nodes}")
        return " ".join(parts)
