"""``python3 -m vllm_operator``: the same as the console script."""

from vllm_operator.cli.main import main

main()
