"""``python -m vllm_runtime``."""

from vllm_runtime.main import main

main()
