"""Which layers each pipeline stage holds."""

from __future__ import annotations


def stage_layers(layers: int, pipeline: int) -> tuple[range, ...]:
    """The layers of every stage, first stage first (``distributed/utils.py: get_pp_indices``).

    What is left over goes one each to the stages counted from the last but one.
    """
    sizes = [layers // pipeline] * pipeline
    for extra in range(layers % pipeline):
        sizes[-(extra + 2)] += 1
    stages: list[range] = []
    first = 0
    for size in sizes:
        stages.append(range(first, first + size))
        first += size
    return tuple(stages)
