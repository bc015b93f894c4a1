"""vLLM 0.32.0's KV cache: bytes per block, blocks per request, tokens and concurrency, as its engine counts them.

``demand.kv_demand`` goes from a model, a layout and a device to blocks; ``capacity`` from blocks and bytes to what the
engine's start-up line says. Paths in docstrings are relative to the ``vllm`` package.
"""
