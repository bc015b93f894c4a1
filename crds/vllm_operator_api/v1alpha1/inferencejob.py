"""InferenceJob: rows through a model, every row answered exactly once and in input order."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from vllm_operator_api.meta import ApiModel, Condition, DnsLabel, DnsSubdomain, LocalObjectReference, Timestamp
from vllm_operator_api.v1alpha1.llmservice_status import LeasesStatus, WorkersStatus

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings"]
RowKey = Annotated[str, Field(min_length=1, max_length=128)]
Phase = Literal["Pending", "Validating", "Running", "Finalizing", "Succeeded", "PartiallySucceeded", "Failed"]

_PATH_RULES: list[JsonValue] = [
    {"rule": "!self.startsWith('/')", "message": "path must be relative to the volume's root"},
    {"rule": "!self.split('/').exists(part, part == '..')", "message": "path must not contain the path element '..'"},
]
_INPUT_RULES: list[JsonValue] = [
    {
        "rule": "[has(self.inline), has(self.configMap), has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
        "message": "input must have exactly one of inline, configMap and persistentVolumeClaim",
    }
]
_OUTPUT_RULES: list[JsonValue] = [
    {
        "rule": "has(self.configMap) != has(self.persistentVolumeClaim)",
        "message": "output must have exactly one of configMap and persistentVolumeClaim",
    }
]
_SPEC_RULES: list[JsonValue] = [
    {
        "rule": "self.input.messageKey != self.output.resultKey",
        "message": "output.resultKey must not be input.messageKey: the answer would replace the row's own text",
    },
    {
        "rule": "self.endpoint == '/v1/chat/completions' || !has(self.input.systemPrompt)",
        "message": "input.systemPrompt is for endpoint /v1/chat/completions only",
    },
    {
        "rule": "self == oldSelf",
        "message": "spec is immutable: make another InferenceJob instead of changing this one",
    },
]
VolumePath = Annotated[
    str, Field(min_length=1, max_length=512, json_schema_extra={"x-kubernetes-validations": _PATH_RULES})
]


class InlineRows(ApiModel):
    """Rows in the object itself."""

    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)] = Field(
        description="The rows, at most 1000 and 256 KiB.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class ConfigMapFile(ApiModel):
    """A key of a ConfigMap of this namespace."""

    name: DnsSubdomain = Field(description="Name of the ConfigMap.")
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(
        description="Key whose text is the file."
    )


class VolumeFile(ApiModel):
    """A file on a PersistentVolumeClaim of this namespace."""

    claim_name: DnsSubdomain = Field(description="Name of the PersistentVolumeClaim.")
    path: VolumePath = Field(description="Path of the file below the volume's root.")


class JobInput(ApiModel):
    """Where the rows come from: exactly one source, in the JSON Lines format (one JSON object a line)."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": _INPUT_RULES})

    inline: InlineRows | None = None
    config_map: ConfigMapFile | None = None
    persistent_volume_claim: VolumeFile | None = None
    message_key: RowKey = Field(
        default="prompt",
        description=(
            "Key of a row that holds its text (chat: a string becomes a user message, a list is taken as messages). "
            "A row without it becomes an error row."
        ),
    )
    system_prompt: Annotated[str, Field(max_length=65536)] | None = Field(
        default=None, description="Put before each row's messages unless they begin with a system message. Chat only."
    )


class Sampling(ApiModel):
    """Sampling parameters of chat rows."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(default=None, description="Default: the engine's.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="Default: the engine's.")
    max_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(
        default=1024, description="Longest answer in tokens."
    )
    seed: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None, description="Seed of each request, for answers that can be had again. Default: none."
    )
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=16)] | None = Field(
        default=None,
        description="Texts at which an answer ends.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class JobOutput(ApiModel):
    """Where the answers go: exactly one destination. It must not exist yet."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": _OUTPUT_RULES})

    persistent_volume_claim: VolumeFile | None = None
    config_map: ConfigMapFile | None = Field(
        default=None, description="For outputs up to 900 KiB. The ConfigMap is made by the job and owned by it."
    )
    result_key: RowKey = Field(
        default="results", description="Key under which a row's answer is added; the row's own keys are kept."
    )


class InferenceJobSpec(ApiModel):
    """What the user wants. Immutable: another job is another object."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": _SPEC_RULES})

    service_ref: LocalObjectReference = Field(description="The LLMService of this namespace that answers; it is woken.")
    endpoint: Endpoint = Field(default="/v1/chat/completions", description="What each row asks of the model.")
    input: JobInput
    sampling: Sampling = Field(default_factory=Sampling, json_schema_extra={"default": {}})
    output: JobOutput


class RowsStatus(ApiModel):
    """Rows of the input."""

    total: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Known once the input has been read.")
    completed: Annotated[int, Field(ge=0)] = Field(default=0, description="Rows in the output that carry an answer.")
    failed: Annotated[int, Field(ge=0)] = Field(default=0, description="Rows in the output that carry an error.")


class ShardsStatus(ApiModel):
    """Shards: the consecutive rows that are leased together."""

    total: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Known once the input has been read.")
    committed: Annotated[int, Field(ge=0)] = Field(default=0, description="Shards whose rows are in the output.")
    leased: Annotated[int, Field(ge=0)] = Field(default=0, description="Shards that agents hold.")
    pending: Annotated[int, Field(ge=0)] = Field(default=0, description="Shards in the queue that nobody holds.")
    redelivered: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Shards that went to another agent because the first was not heard of."
    )


class UsageStatus(ApiModel):
    """Tokens, as the engine counted them."""

    prompt_tokens: Annotated[int, Field(ge=0)] = Field(default=0, description="Tokens of the rows.")
    completion_tokens: Annotated[int, Field(ge=0)] = Field(default=0, description="Tokens of the answers.")


class OutputStatus(ApiModel):
    """The finished output."""

    location: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="`pvc://<claim>/<path>` or `configmap://<name>/<key>`."
    )
    bytes: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Its size.")
    sha256: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="Its SHA-256 in hexadecimal.")


class InferenceJobStatus(ApiModel):
    """What is. Written by the operator only."""

    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Generation of the object that this status is of."
    )
    phase: Phase | None = Field(default=None, description="Where the job is; derived from the conditions.")
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default=[],
        description="What holds, and why.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    rows: RowsStatus | None = None
    progress: Annotated[str, Field(max_length=32)] | None = Field(default=None, description="`<done>/<total>` rows.")
    shards: ShardsStatus | None = None
    leases: LeasesStatus | None = None
    workers: WorkersStatus | None = None
    usage: UsageStatus | None = None
    output: OutputStatus | None = None
    start_time: Timestamp | None = Field(default=None, description="When the first row was read.")
    completion_time: Timestamp | None = Field(default=None, description="When the job ended.")


class InferenceJob(ApiModel):
    """A file of rows through a model: every row answered exactly once, in order, whatever crashes."""

    name: DnsLabel
    namespace: DnsLabel
    uid: str
    generation: int
    spec: InferenceJobSpec
    status: InferenceJobStatus = Field(default_factory=InferenceJobStatus)
