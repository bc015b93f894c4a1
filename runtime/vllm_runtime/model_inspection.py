"""vLLM's inspection of model classes, done once when the image is built instead of at every start.

Before it loads a model, vLLM imports its module in a process of its own to see what the class can do, and keeps the
answer as a small JSON file below ``VLLM_CACHE_ROOT``. In a pod that directory is empty at each start, and the import
costs it 7 s of 25 (measured, vLLM 0.32.0 on two cores). All classes together take 8 s in one process.

    python3 -m vllm_runtime.model_inspection DIRECTORY

writes the files for every class that can be imported where it runs; classes whose libraries are missing are left to the
start. vLLM itself checks each file against a hash of the module, so a file of another version is ignored.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Final

INSPECTED_PATH: Final = Path("/opt/vllm-runtime/cache")
"""Where the image has the files, as vLLM lays them out below ``VLLM_CACHE_ROOT``."""
_SUBDIRECTORY: Final = "modelinfos"
"""``_LazyRegisteredModel._get_cache_dir`` of vllm/model_executor/models/registry.py (0.32.0)."""


def use_inspected(cache_root: Path, inspected: Path = INSPECTED_PATH) -> None:
    """Put the image's files where vLLM looks for them; files that are there stay. An image may have none.

    Raises:
        OSError: a file cannot be read or written; without it the start takes longer, no more.
    """
    if not (inspected / _SUBDIRECTORY).is_dir():
        return
    target = cache_root / _SUBDIRECTORY
    target.mkdir(parents=True, exist_ok=True)
    for source in (inspected / _SUBDIRECTORY).iterdir():
        if not (target / source.name).exists():
            shutil.copyfile(source, target / source.name)


def inspect_all(directory: Path) -> tuple[int, int]:
    """Inspect every model class of the installed vLLM into ``directory``; returns how many could be and could not."""
    os.environ["VLLM_CACHE_ROOT"] = str(directory)
    registry = importlib.import_module("vllm.model_executor.models.registry")
    inspected = failed = 0
    lazy = (model for model in registry.ModelRegistry.models.values() if hasattr(model, "_save_modelinfo_to_cache"))
    for model in {(model.module_name, model.class_name): model for model in lazy}.values():
        try:
            module = importlib.util.find_spec(model.module_name)
            if module is None or module.origin is None:
                raise ImportError(model.module_name)
            information = registry._ModelInfo.from_model_cls(model.load_model_cls())  # noqa: SLF001
            model._save_modelinfo_to_cache(information, model._get_modelinfo_module_hash(Path(module.origin)))  # noqa: SLF001
        except Exception:  # noqa: BLE001  a model's module may fail in any way where its libraries or devices are missing
            failed += 1
        else:
            inspected += 1
    for file in (directory / _SUBDIRECTORY).iterdir():
        file.chmod(0o644)  # vLLM writes them for its own user only; the engine's is another
    return inspected, failed


def main() -> None:
    """Command line: the directory to write to."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    inspected, failed = inspect_all(Path(sys.argv[1]))
    print(f"{inspected} model classes inspected, {failed} left to the start")  # noqa: T201
    if not inspected:
        raise SystemExit("no model class could be inspected: has vLLM's registry changed?")


if __name__ == "__main__":
    main()
