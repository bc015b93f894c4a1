"""The contracts of vllm-operator: custom resources, conditions, names and queue messages.

Every other package may import this one; this one imports nothing of theirs and nothing but pydantic.
"""
