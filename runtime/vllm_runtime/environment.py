"""The engine's environment, built anew: nothing that a pod's environment happens to hold reaches vLLM by accident.

vLLM and its libraries run code that some variables name (``SAGEMAKER_MODEL_PATH``, ``VLLM_LOGGING_CONFIG_PATH``) and
read others (``VLLM_PORT`` of a Service called vllm) as their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from vllm_operator_api.runtime import HOME_PATH, TMP_PATH, ImageFacts
from vllm_runtime.errors import ConfigurationError

NEVER: Final = re.compile(
    r"^(LD_.*|PYTHON.*|PATH|HOME|USER|SHELL|IFS|ENV|BASH_.*|SAGEMAKER_.*|CUSTOM_.*|NCCL_.*PLUGIN.*|NVIDIA_VISIBLE_DEVICES"
    r"|TORCH.*_CACHE.*|RUNTIME_CONTROL_TOKEN|VLLM_(PLUGINS|SERVER_DEV_MODE|LOGGING_CONFIG_PATH|ALLOW_.*|MEDIA_CONNECTOR"
    r"|MODEL_REDIRECT_PATH|DEBUG_.*|RUNTIME_.*))$"
)
"""What a service's own variables may never be; the operator refuses them before, with more."""


def engine_environment(
    container: Mapping[str, str], image: ImageFacts, own: Mapping[str, str], model: str | None, control_token: str
) -> dict[str, str]:
    """Environment of the vLLM process.

    Args:
        container: environment of this container; only what the image names is taken from it.
        image: facts of the runtime image.
        own: the service's variables (``RuntimeConfig.engine_env``).
        model: the model as vLLM gets it; a path means that the hub is not needed.
        control_token: secret of the middleware's private routes.

    Raises:
        ConfigurationError: ``own`` has a variable that the engine must not get.
    """
    for name in own:
        if NEVER.match(name):
            raise ConfigurationError(f"environment variable {name} must not be set for the engine")
    home = container.get("HOME") or HOME_PATH
    temporary = container.get("TMPDIR") or TMP_PATH
    cache = f"{home}/.cache"
    environment = {name: container[name] for name in image.pass_env if name in container}
    environment |= own
    environment |= {
        "PATH": container.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "HOME": home,
        "USER": "vllm",
        "TMPDIR": temporary,
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": cache,
        "HF_HOME": f"{cache}/huggingface",
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/torchinductor",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_PLUGINS": "",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MAX_N_SEQUENCES": "64",
        "RUNTIME_CONTROL_TOKEN": control_token,
    }
    if model is not None and model.startswith("/"):
        environment["HF_HUB_OFFLINE"] = "1"
    return environment
