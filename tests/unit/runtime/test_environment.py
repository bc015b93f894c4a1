"""The engine's environment is built, not inherited."""

from __future__ import annotations

import pytest

from vllm_operator_api.runtime import ImageFacts
from vllm_runtime.environment import engine_environment
from vllm_runtime.errors import ConfigurationError

IMAGE = ImageFacts(device="cpu", vllmVersion="0.32.0", passEnv=["LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"])
CONTAINER = {
    "PATH": "/opt/bin",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": "/cuda",
    "HOME": "/home/vllm",
    "VLLM_PORT": "tcp://10.0.0.1:80",
    "SAGEMAKER_MODEL_PATH": "/evil",
    "PYTHONPATH": "/evil",
    "LD_PRELOAD": "/evil",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "VLLM_RUNTIME_CONFIG": "{}",
    "POD_NAME": "p",
    "CUSTOM_PRE_PROCESS": "/evil",
    "HF_TOKEN": "secret",
}


def test_only_what_the_image_names_and_what_is_ours() -> None:
    environment = engine_environment(CONTAINER, IMAGE, {"VLLM_LOGGING_LEVEL": "DEBUG"}, "org/model", "token")
    assert environment == {
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/cuda",
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "PATH": "/opt/bin",
        "HOME": "/home/vllm",
        "USER": "vllm",
        "TMPDIR": "/tmp",
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": "/home/vllm/.cache",
        "HF_HOME": "/home/vllm/.cache/huggingface",
        "VLLM_CACHE_ROOT": "/home/vllm/.cache/vllm",
        "TRITON_CACHE_DIR": "/home/vllm/.cache/triton",
        "TORCHINDUCTOR_CACHE_DIR": "/home/vllm/.cache/torchinductor",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_PLUGINS": "",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MAX_N_SEQUENCES": "64",
        "RUNTIME_CONTROL_TOKEN": "token",
    }


def test_a_model_on_disk_needs_no_hub() -> None:
    assert engine_environment({}, IMAGE, {}, "/mnt/model/tiny", "t")["HF_HUB_OFFLINE"] == "1"


def test_ours_win() -> None:
    environment = engine_environment({}, IMAGE, {"VLLM_NO_USAGE_STATS": "0", "VLLM_MAX_N_SEQUENCES": "9999"}, None, "t")
    assert (environment["VLLM_NO_USAGE_STATS"], environment["VLLM_MAX_N_SEQUENCES"]) == ("1", "64")


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PATH",
        "HOME",
        "SAGEMAKER_MODEL_PATH",
        "CUSTOM_FASTAPI_X",
        "VLLM_PLUGINS",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_LOGGING_CONFIG_PATH",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "VLLM_DEBUG_X",
        "BASH_ENV",
        "NVIDIA_VISIBLE_DEVICES",
        "NCCL_NET_PLUGIN",
        "TORCHINDUCTOR_CACHE_DIR",
        "RUNTIME_CONTROL_TOKEN",
        "VLLM_RUNTIME_CONFIG",
    ],
)
def test_what_a_service_may_not_set(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        engine_environment({}, IMAGE, {name: "x"}, None, "t")
