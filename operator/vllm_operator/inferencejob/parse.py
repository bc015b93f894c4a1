"""An InferenceJob from its manifest, and what the API server's rules cannot see of it. Pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from vllm_operator.kube.kinds import Manifest
from vllm_operator.manifests.job_input import input_text
from vllm_operator_api.names import MAX_RESOURCE_NAME_LENGTH
from vllm_operator_api.v1alpha1.inferencejob import (
    InferenceJob,
    InferenceJobSpec,
    InferenceJobStatus,
    VolumeFile,
)

MAX_INLINE_BYTES: Final = 256 * 1024
EMBEDDINGS: Final = "/v1/embeddings"
_UNREADABLE_SPEC: Final[dict[str, Any]] = {"serviceRef": {"name": "unreadable"}, "input": {}, "output": {}}
"""Stands for a spec that cannot be read; nothing is made from it."""


@dataclass(frozen=True, slots=True)
class SpecProblem:
    """Why a spec is not accepted."""

    message: str
    permanent: bool = True
    """The spec is immutable: what is wrong with it stays so. Not so for one that this version cannot read."""


def parse_job(manifest: Manifest) -> tuple[InferenceJob, SpecProblem | None]:
    """The typed job, and what is wrong with its spec. A status that cannot be read is as good as none."""
    try:
        status = InferenceJobStatus.model_validate(manifest.get("status") or {})
    except ValidationError:
        status = InferenceJobStatus()
    try:
        job = _job(manifest, manifest.get("spec") or {}, status)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(("spec", *(str(part) for part in first["loc"])))
        return _job(manifest, _UNREADABLE_SPEC, status), SpecProblem(f"{field}: {first['msg']}"[:1000], permanent=False)
    message = _problem(job)
    return job, SpecProblem(message) if message else None


def _job(manifest: Manifest, spec: dict[str, Any], status: InferenceJobStatus) -> InferenceJob:
    metadata = manifest["metadata"]
    return InferenceJob.model_construct(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        spec=InferenceJobSpec.model_validate(spec),
        status=status,
    )


def _problem(job: InferenceJob) -> str | None:
    if len(job.name) > MAX_RESOURCE_NAME_LENGTH:
        return (
            f"metadata.name: {len(job.name)} characters; at most {MAX_RESOURCE_NAME_LENGTH} leave room for its children"
        )
    return _input_problem(job.spec) or _output_problem(job.spec) or _endpoint_problem(job.spec)


def _input_problem(spec: InferenceJobSpec) -> str | None:
    source = spec.input
    given = [s for s in (source.inline, source.config_map, source.persistent_volume_claim) if s is not None]
    if len(given) != 1:
        return f"spec.input: exactly one of inline, configMap and persistentVolumeClaim; got {len(given)}"
    if source.inline is not None:
        size = len(input_text(source.inline.rows).encode())
        if size > MAX_INLINE_BYTES:
            return f"spec.input.inline: {size} bytes; at most {MAX_INLINE_BYTES}: use a ConfigMap or a volume"
    return _path_problem("spec.input.persistentVolumeClaim.path", source.persistent_volume_claim)


def _output_problem(spec: InferenceJobSpec) -> str | None:
    output = spec.output
    given = [d for d in (output.config_map, output.persistent_volume_claim) if d is not None]
    if len(given) != 1:
        return f"spec.output: exactly one of configMap and persistentVolumeClaim; got {len(given)}"
    if spec.input.message_key in (output.result_key, f"{output.result_key}_error"):
        return (
            f"spec.output.resultKey: {output.result_key!r} would take the place of spec.input.messageKey "
            f"{spec.input.message_key!r}"
        )
    source, destination = spec.input.persistent_volume_claim, output.persistent_volume_claim
    if source is not None and destination is not None and _same_file(source, destination):
        return f"spec.output.persistentVolumeClaim.path: {destination.path!r} is the input"
    return _path_problem("spec.output.persistentVolumeClaim.path", destination)


def _endpoint_problem(spec: InferenceJobSpec) -> str | None:
    if spec.endpoint != EMBEDDINGS:
        return None
    if spec.input.system_prompt is not None:
        return f"spec.input.systemPrompt: {EMBEDDINGS} takes none"
    given = spec.sampling.model_dump(by_alias=True, exclude_none=True, exclude={"max_tokens"})
    if given:
        return f"spec.sampling.{next(iter(given))}: {EMBEDDINGS} does not sample"
    return None


def _path_problem(field: str, file: VolumeFile | None) -> str | None:
    if file is None:
        return None
    if file.path.startswith("/") or any(part in ("", ".", "..") for part in file.path.split("/")):
        return f"{field}: {file.path!r} must name a file below the volume's root, without '.', '..' or empty parts"
    if "\0" in file.path:
        return f"{field}: NUL is not allowed"
    return None


def _same_file(one: VolumeFile, other: VolumeFile) -> bool:
    return one.claim_name == other.claim_name and posixpath.normpath(one.path) == posixpath.normpath(other.path)
