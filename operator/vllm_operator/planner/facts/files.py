"""Which of a model's files say what: names as in repositories of the model hub."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vllm_operator.planner.facts.errors import ModelError
from vllm_operator_api.conditions import Reason

CONFIG_FILE: Final = "config.json"
PARAMS_FILE: Final = "params.json"
"""Mistral's own configuration."""
QUANTIZATION_FILE: Final = "hf_quant_config.json"
"""ModelOpt's; vLLM reads it where ``config.json`` has no quantisation (``config/model.py``)."""
_INDEX_SUFFIX: Final = ".safetensors.index.json"
_INDEXES: Final = (f"model{_INDEX_SUFFIX}", f"consolidated{_INDEX_SUFFIX}")
_SAFETENSORS: Final = ".safetensors"
_GGUF: Final = ".gguf"
_PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_CONSOLIDATED: Final = "consolidated"
"""Prefix of a second copy of the weights in another layout. vLLM loads one of the two (``default_loader.py``), and
they have the same size; copies in folders (``original/``, ``metal/``) it does not look at."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files to read."""

    config: str
    """``CONFIG_FILE`` or ``PARAMS_FILE``; of a GGUF model the file itself."""
    quantization: str | None
    index: str | None
    weights: tuple[str, ...]
    """The safetensors where no index names them, or the files of a GGUF model."""

    @property
    def is_gguf(self) -> bool:
        """Whether configuration and weights are one file."""
        return self.config.endswith(_GGUF)


def model_files(names: Iterable[str], where: str) -> ModelFiles:
    """The files among ``names`` (those in folders do not count). ``where`` is for the user.

    Raises:
        ModelError: there is no configuration, or no weights that are safe to load.
    """
    files = frozenset(name for name in names if "/" not in name)
    config = next((name for name in (CONFIG_FILE, PARAMS_FILE) if name in files), None)
    ggufs = tuple(sorted(name for name in files if name.endswith(_GGUF)))
    weights = _safetensors(files)
    if ggufs and not weights:
        return ModelFiles(ggufs[0], None, None, _one_gguf(ggufs))
    if config is None:
        raise ModelError(
            Reason.MODEL_NOT_FOUND,
            f"{where} has no {CONFIG_FILE}; it must hold a model in the layout of the model hub",
        )
    index = next((name for name in _INDEXES if name in files), None)
    if index is None and not weights:
        raise _no_weights(files, where)
    return ModelFiles(config, QUANTIZATION_FILE if QUANTIZATION_FILE in files else None, index, weights)


def _safetensors(files: frozenset[str]) -> tuple[str, ...]:
    found = tuple(sorted(name for name in files if name.endswith(_SAFETENSORS)))
    return tuple(name for name in found if not name.startswith(_CONSOLIDATED)) or found


def _one_gguf(names: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of the first model: others are the same one quantised in another way."""
    stem = names[0].split("-00001-of-")[0]
    parts = tuple(name for name in names if name.startswith(f"{stem}-0"))
    return parts if "-00001-of-" in names[0] else names[:1]


def _no_weights(files: frozenset[str], where: str) -> ModelError:
    pickles = sorted(name for name in files if name.endswith(_PICKLES))
    if pickles:
        return ModelError(
            Reason.UNSAFE_WEIGHTS,
            f"{where} has its weights only as pickles ({', '.join(pickles[:3])}), which can run code when they are "
            "loaded; convert them to safetensors",
        )
    return ModelError(Reason.MODEL_CONFIG_INVALID, f"{where} has no weights: there is no file *{_SAFETENSORS}")
