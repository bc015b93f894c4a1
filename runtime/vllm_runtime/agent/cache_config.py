"""The KV cache's size out of the engine's ``/metrics``, read as it comes and no further than needed."""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from vllm_operator_api.queue import KvCacheReport

MAX_METRICS_BYTES: Final = 4 * 1024 * 1024
"""Read at most: a busy engine's metrics are some 100 KiB."""
MAX_LINE_BYTES: Final = 16 * 1024
"""Of a line that is looked at; this metric's has every field of vLLM's cache configuration as a label."""

_METRIC: Final = b"vllm:cache_config_info{"
"""A gauge; one sample per data-parallel engine, all alike but for the label ``engine`` (v1/metrics/loggers.py:1120)."""
_LABEL: Final = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\.)*)"')


class CacheConfigScan:
    """Takes a ``/metrics`` answer in pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._bytes = 0
        self._labels: list[dict[str, str]] = []

    def feed(self, chunk: bytes) -> bool:
        """Take the next piece; True: no more is needed."""
        self._bytes += len(chunk)
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[:MAX_LINE_BYTES]
        for line in lines:
            if line.startswith(_METRIC):
                text = line[:MAX_LINE_BYTES].decode(errors="replace")
                self._labels.append({match[1]: match[2] for match in _LABEL.finditer(text)})
            elif self._labels:  # the samples of one metric follow each other
                return True
        return self._bytes >= MAX_METRICS_BYTES

    def report(self) -> KvCacheReport | None:
        """What the metric said; None: it is not there, or this engine keeps no KV cache."""
        if not self._labels:
            return None
        labels = self._labels[0]
        try:
            return KvCacheReport.model_validate(
                {
                    "engines": len(self._labels),
                    "blocks": labels.get("num_gpu_blocks"),
                    "block_tokens": labels.get("block_size"),
                    "tokens": _told(labels.get("kv_cache_size_tokens")),
                    "max_concurrency": _told(labels.get("kv_cache_max_concurrency")),
                }
            )
        except ValidationError:
            return None


def _told(value: str | None) -> str | None:
    return None if value == "None" else value
