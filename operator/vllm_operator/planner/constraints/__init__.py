"""Which layouts vLLM runs a model in, and why not the others: one small rule per module function, C1 to C18.

Every rule was read in the source of vLLM 0.32.0; its docstring names the place, relative to the ``vllm`` package.
``check`` is the way in. Three of the known constraints are no rules here: C13 (a pod asks for as many accelerators as
its engine starts, so they cannot be too few), C15 (the custom all-reduce falls back to NCCL: slower, not illegal) and
C18 (``/dev/shm`` is part of the pod). Two wait for a setting that would break them: C12 (decode context parallelism)
and C17 (LoRA, speculative decoding).
"""
