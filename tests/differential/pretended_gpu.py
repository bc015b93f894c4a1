"""Let vLLM's CPU build decide as it would on an NVIDIA GPU, for code that is only asked and never run.

The CPU platform has its own block sizes and attention back ends, and refuses models that need others. ``pretend(9, 0)``
makes vLLM's CUDA platform the current one, with that compute capability: which back end is chosen, which block sizes it
takes and how states are padded is then vLLM's own code for GPUs. Compiled kernels are absent; they are replaced by
names that exist and do nothing. Call it before anything else of vLLM is imported; a process pretends once.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import sys
import types
from typing import Any

import torch

ABSENT = (
    "vllm._C_stable_libtorch",
    "vllm._moe_C_stable_libtorch",
    "vllm._flashmla_C",
    "vllm._flashmla_extension_C",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
    "vllm.vllm_flash_attn.cute",
    "vllm.third_party.flashmla",
    "vllm._flashkda_C",
    "vllm.third_party.deep_gemm",
    "deep_gemm",
    "flashinfer",
    "cutlass",
    "cuda",
    "quack",
)
"""What the CUDA build of vLLM brings along and the CPU build does not."""
GIB = 1024**3


class Nothing:
    """Has every attribute, can be called with anything, and is always nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()

    def __call__(self, *_: Any, **__: Any) -> Nothing:
        return Nothing()

    def __getitem__(self, _: Any) -> Nothing:
        return Nothing()


class NothingType(type):
    """Type of a class whose every attribute is nothing."""

    def __getitem__(cls, _: Any) -> Nothing:
        return Nothing()

    def __getattr__(cls, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()


class NothingModule(types.ModuleType):
    """A module that has every name."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return NothingType(name, (Nothing,), {}) if name[0].isupper() else Nothing()


class AbsentModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for everything in ``ABSENT``."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if any(fullname == name or fullname.startswith(name + ".") for name in ABSENT):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return NothingModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return None


class ToMeta(torch.overrides.TorchFunctionMode):
    """Creates on the meta device what asks for a GPU."""

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs["device"] = "meta"
        if function in (torch.Tensor.to, torch.Tensor.cuda):
            args = tuple("meta" if isinstance(a, str) and a.startswith("cuda") else a for a in args)
            if function is torch.Tensor.cuda:
                function, args = torch.Tensor.to, (args[0], "meta")
        return function(*args, **kwargs)


def _pretend_kernels() -> None:
    """Names of compiled kernels exist, and registrations for them are ignored."""
    import torch._ops as operators

    find = operators._OpNamespace.__getattr__

    def find_or_nothing(namespace: Any, name: str) -> Any:
        try:
            return find(namespace, name)
        except AttributeError:
            if name.startswith("__") or not namespace.name.startswith("_"):
                raise
            return Nothing()

    operators._OpNamespace.__getattr__ = find_or_nothing
    register = torch.library.register_fake

    def register_if_there(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith("_"):
            return lambda function: function
        return register(op, *args, **kwargs)

    torch.library.register_fake = register_if_there


def _pretend_triton() -> None:
    """VLLM takes triton as installed; its stand-ins decorate functions that are never called."""
    from vllm import triton_utils
    from vllm.triton_utils import importing

    class Config:
        def __init__(self, kwargs: Any = None, num_warps: int = 4, num_stages: int = 2, **_: Any) -> None:
            self.kwargs, self.num_warps, self.num_stages = kwargs or {}, num_warps, num_stages

    triton_utils.triton.Config = Config
    triton_utils.HAS_TRITON = importing.HAS_TRITON = True
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vllm.") and hasattr(module, "HAS_TRITON"):
            module.HAS_TRITON = True


def pretend(major: int, minor: int, memory_gib: int = 80) -> None:
    """Make this process's vLLM believe that it runs on NVIDIA GPUs of this compute capability."""
    os.environ["VLLM_HAS_FLASHINFER_CUBIN"] = "1"
    with contextlib.suppress(ImportError):
        import tvm_ffi  # noqa: F401  asks whether CUDA's own bindings are there, before they are pretended
    sys.meta_path.insert(0, AbsentModules())
    _pretend_kernels()
    torch.cuda.Stream = torch.cuda.Event = Nothing
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_capability = lambda *_: (major, minor)
    torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(
        multi_processor_count=132, total_memory=memory_gib * GIB, major=major, minor=minor, name="GPU",
        shared_memory_per_block_optin=232448, is_integrated=False,
    )  # fmt: skip
    torch.cuda.get_device_name = lambda *_: "GPU"

    from vllm import platforms
    from vllm.platforms import cuda
    from vllm.platforms.interface import DeviceCapability

    class PretendedGpu(cuda.CudaPlatformBase):
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
            return DeviceCapability(major, minor)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return "GPU"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return memory_gib * GIB

        @classmethod
        def is_fully_connected(cls, device_ids: list[int]) -> bool:
            return True

        @classmethod
        def device_count(cls) -> int:
            return 1024

        @classmethod
        def num_compute_units(cls, device_id: int = 0) -> int:
            return 132

        @classmethod
        def is_integrated_gpu(cls, device_id: int = 0) -> bool:
            return False

        @classmethod
        def import_kernels(cls) -> None:
            return None

        @classmethod
        def get_all_device_numa_nodes(cls) -> None:
            return None

    platforms._current_platform = PretendedGpu()
    import vllm._custom_ops as custom_ops

    for name in dir(custom_ops):
        if "support" in name and callable(getattr(custom_ops, name)):
            setattr(custom_ops, name, lambda *_, **__: True)
    _pretend_triton()
    import vllm.vllm_flash_attn.flash_attn_interface as flash_attention

    flash_attention.FA4_AVAILABLE = True
    from vllm.v1.worker.workspace import init_workspace_manager

    init_workspace_manager(torch.device("meta"))
