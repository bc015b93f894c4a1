"""C9: pipeline parallelism cuts the layers into stages."""

from __future__ import annotations

from vllm_operator.planner.constraints.rule import Case
from vllm_operator.planner.engine_options import EngineOptions, default_engine_options


def supports_stages(architecture: str, engine: EngineOptions | None = None) -> bool:
    """Whether vLLM's class for this architecture implements ``SupportsPP`` (``config/model.py:1557``). True for one
    that the engine does not know: there is nothing to hold against it.
    """
    known = default_engine_options() if engine is None else engine
    return architecture not in known.no_pipeline_architectures


def stages(case: Case) -> str | None:
    """Only some model classes can be cut, and every stage holds a layer (``distributed/utils.py: get_pp_indices`` would
    give the last stages none).
    """
    if case.layout.pipeline == 1:
        return None
    if not supports_stages(case.facts.architecture):
        return f"vLLM cannot cut {case.facts.architecture} into pipeline stages"
    if case.layout.pipeline > case.facts.layers:
        return f"{case.layout.pipeline} pipeline stages are more than the model's {case.facts.layers} layers"
    return None
