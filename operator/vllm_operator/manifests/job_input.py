"""ConfigMaps of an InferenceJob: its inline rows for the driver, and its finished output for the user."""

from __future__ import annotations

import json
from typing import Any, Final

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.common import Owner, child_metadata
from vllm_operator_api.names import child_name

INPUT_COMPONENT: Final = "job-input"
OUTPUT_COMPONENT: Final = "job-output"
INPUT_KEY: Final = "input.jsonl"


def input_config_map_name(owner: Owner) -> str:
    """Name of the ConfigMap with the inline rows: the uid makes it nobody else's."""
    return child_name(owner.name, "input", owner.uid)


def input_text(rows: list[dict[str, Any]]) -> str:
    """Inline rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def input_config_map(owner: Owner, rows: list[dict[str, Any]]) -> Manifest:
    """The inline rows as a file that the driver mounts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, input_config_map_name(owner), INPUT_COMPONENT),
        "immutable": True,
        "data": {INPUT_KEY: input_text(rows)},
    }


def output_config_map(owner: Owner, name: str, key: str, text: str) -> Manifest:
    """The finished output under the name that the user chose; it goes when the job is deleted."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, name, OUTPUT_COMPONENT),
        "data": {key: text},
    }
