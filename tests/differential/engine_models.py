"""Build vLLM's own model classes without weights, devices or processes, to ask them what the planner predicts.

Runs inside an environment that holds vLLM's CPU build; imports nothing of this project. A model is built on PyTorch's
``meta`` device by one process that is told it is rank R of a group of any size, so that every check that vLLM's layers
make of a tensor or pipeline degree is vLLM's own, and its error is raised as it is.

    from engine_models import EngineModel, build
    engine = build(Path("config.json"), tensor=4, pipeline=2, stage=1)   # raises vLLM's own error when illegal
    engine.model, engine.vllm_config
    engine.kv_cache_specs                                                 # as the worker's get_kv_cache_spec
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

import torch
from pretended_gpu import ToMeta
from transformers import AutoConfig, LlamaConfig, Qwen2Config
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models import registry
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

# A model class is inspected in this process: a subprocess for each costs 10 s and guards a device that is not there.
registry._run_in_subprocess = lambda function: function()
# What the CPU platform refuses but a GPU accepts is not asked of it (platforms/interface.py verify_quantization).
type(current_platform).supported_quantization = []


class MiMoConfig(Qwen2Config):
    """What the repository of XiaomiMiMo/MiMo-7B-Base registers with --trust-remote-code."""

    model_type = "mimo"


class NemotronNasConfig(LlamaConfig):
    """What nvidia's Nemotron-Super repositories register with --trust-remote-code."""

    model_type = "nemotron-nas"

    def __init__(self, block_configs: list[dict[str, Any]] | None = None, **kwargs: Any) -> None:
        self.block_configs = [_Attributes(block) for block in block_configs or ()]
        super().__init__(**{key: value for key, value in kwargs.items() if value is not None})


class _Attributes(dict[str, Any]):
    """A JSON object whose members are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        return _Attributes(value) if isinstance(value, dict) else value


AutoConfig.register("mimo", MiMoConfig)
AutoConfig.register("nemotron-nas", NemotronNasConfig)


@dataclass(frozen=True)
class EngineModel:
    """One pipeline stage of a model, as one rank of its tensor-parallel group would build it."""

    model: torch.nn.Module
    vllm_config: VllmConfig
    kv_cache_specs: dict[str, Any]
    """Specification of the KV cache per layer of this stage, as the worker reports it to the engine."""


class _ProcessGroup:
    """What layers ask a process group for."""

    def __init__(self, size: int, rank: int) -> None:
        self._size, self._rank = size, rank

    def size(self) -> int:
        """Ranks in the group."""
        return self._size

    def rank(self) -> int:
        """This rank."""
        return self._rank


def _group(size: int, rank: int, name: str) -> parallel_state.GroupCoordinator:
    """A process group that knows its size and this rank, and has no processes."""
    group = object.__new__(parallel_state.GroupCoordinator)
    group.unique_name = name
    group.rank = group.local_rank = group.rank_in_group = rank
    group.ranks = list(range(size))
    group.world_size = size
    group.device = torch.device("meta")
    group.device_group = group.cpu_group = _ProcessGroup(size, rank)
    group.use_device_communicator = False
    group.device_communicator = None
    group.mq_broadcaster = None
    return group


@contextlib.contextmanager
def parallel_groups(*, tensor: int, pipeline: int, data: int, stage: int) -> Iterator[None]:
    """Inside, this process is tensor rank 0 of pipeline stage ``stage``."""
    names = ("_WORLD", "_INNER_DP_WORLD", "_TP", "_ETP", "_PP", "_DP", "_EP", "_DCP", "_PCP", "_EPLB")
    saved = {name: getattr(parallel_state, name) for name in names}
    ranks = tensor * pipeline * data
    try:
        parallel_state._WORLD = parallel_state._INNER_DP_WORLD = _group(ranks, stage * tensor, "world")
        parallel_state._TP = parallel_state._ETP = _group(tensor, 0, "tp")
        parallel_state._PP = _group(pipeline, stage, "pp")
        parallel_state._DP = _group(data, 0, "dp")
        parallel_state._EP = parallel_state._EPLB = _group(tensor * data, 0, "ep")
        parallel_state._DCP = _group(1, 0, "dcp")
        parallel_state._PCP = _group(1, 0, "pcp")
        yield
    finally:
        for name, value in saved.items():
            setattr(parallel_state, name, value)


@functools.cache
def _scratch() -> Path:
    """A directory that is gone when this process is."""
    folder = tempfile.mkdtemp(prefix="engine-models-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _model_directory(config: dict[str, Any]) -> Path:
    """A model directory that holds this configuration and nothing else."""
    text = json.dumps({key: value for key, value in config.items() if key != "auto_map"}, sort_keys=True)
    directory = _scratch() / hashlib.sha256(text.encode()).hexdigest()[:16]
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(text)
    return directory


def engine_config(
    config: dict[str, Any] | Path,
    *,
    tensor: int = 1,
    pipeline: int = 1,
    expert_parallel: bool = False,
    **engine_args: Any,
) -> VllmConfig:
    """VLLM's own configuration of an engine for this ``config.json``; raises vLLM's own error when it refuses it.

    ``engine_args`` are fields of vLLM's ``EngineArgs``. The checkpoint's quantisation is kept; pass
    ``quantization_config=None`` through ``hf_overrides`` to drop it.
    """
    loaded = json.loads(config.read_text()) if isinstance(config, Path) else config
    arguments = EngineArgs(
        model=str(_model_directory(loaded)),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        enable_expert_parallel=expert_parallel,
        distributed_executor_backend="mp" if tensor * pipeline > 1 else "uni",
        **engine_args,
    )
    return arguments.create_engine_config()


def build(
    config: dict[str, Any] | Path,
    *,
    tensor: int = 1,
    pipeline: int = 1,
    stage: int = 0,
    data: int = 1,
    expert_parallel: bool = False,
    keep_quantization: bool = True,
    **engine_args: Any,
) -> EngineModel:
    """Build the model class that vLLM chooses for this ``config.json`` at these degrees, on the meta device.

    Without ``keep_quantization`` its layers are those of an unquantised checkpoint, although the KV cache's data type
    is still the one that the checkpoint asks for. Raises whatever vLLM raises.
    """
    with parallel_groups(tensor=tensor, pipeline=pipeline, data=data, stage=stage):
        vllm_config = engine_config(
            config, tensor=tensor, pipeline=pipeline, expert_parallel=expert_parallel, **engine_args
        )
        if not keep_quantization:
            vllm_config.quant_config = None
        with (
            set_current_vllm_config(vllm_config),
            set_default_torch_dtype(vllm_config.model_config.dtype),
            torch.device("meta"),
            ToMeta(),
        ):
            model = initialize_model(vllm_config)
            current_platform.update_block_size_for_backend(vllm_config)
            kv_cache_specs = get_kv_cache_spec(vllm_config)
    return EngineModel(model, vllm_config, kv_cache_specs)
