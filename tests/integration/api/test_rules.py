"""Every rule of both kinds against the real API server: what passes, what does not, and what the user is told."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from localk8s.api import ApiError
from localk8s.control_plane import ControlPlane
from vllm_operator_api.crd import RESOURCES, root_schema

pytestmark = pytest.mark.integration

Manifest = dict[str, Any]
_DELETE = object()

SERVICE: Manifest = {
    "apiVersion": "inference.vllm-operator.io/v1alpha1",
    "kind": "LLMService",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {"model": {"id": "Qwen/Qwen3-8B"}},
}
JOB: Manifest = {
    "apiVersion": "inference.vllm-operator.io/v1alpha1",
    "kind": "InferenceJob",
    "metadata": {"name": "job", "namespace": "default"},
    "spec": {
        "serviceRef": {"name": "chat"},
        "input": {"inline": {"rows": [{"prompt": "a", "more": {"deep": [1, None]}}]}},
        "output": {"configMap": {"name": "answers", "key": "answers.jsonl"}},
    },
}
BASES = {"LLMService": SERVICE, "InferenceJob": JOB}
PLURALS = {"LLMService": "llmservices", "InferenceJob": "inferencejobs"}
VOLUME = {"claimName": "data", "path": "in.jsonl"}


def changed(base: Manifest, **changes: Any) -> Manifest:
    """A copy of ``base`` with fields set by their path below it, ``__`` between names; ``_DELETE`` removes one."""
    manifest = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = manifest
        for name in parents:
            node = node.setdefault(name, {})
        if value is _DELETE:
            del node[last]
        else:
            node[last] = value
    return manifest


def service(**changes: Any) -> Manifest:
    return changed(SERVICE, **changes)


def job(**changes: Any) -> Manifest:
    return changed(JOB, **changes)


def create(control_plane: ControlPlane, manifest: Manifest) -> Manifest:
    """The object as the API server would store it."""
    path = f"/apis/{manifest['apiVersion']}/namespaces/default/{PLURALS[manifest['kind']]}"
    return control_plane.api.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", manifest)


ACCEPTED = {
    "hub model": service(),
    "hub model with dots": service(spec__model__id="meta-llama/Llama-3.3-70B_v1"),
    "model on a volume": service(spec__model__id="pvc://models/llama/70b"),
    "model at the root of a volume": service(spec__model__id="pvc://models"),
    "dots in a path element": service(spec__model__id="pvc://models/v1..2"),
    "tensor auto": service(spec__parallelism__tensor="auto"),
    "tensor 1": service(spec__parallelism__tensor=1),
    "tensor 64": service(spec__parallelism__tensor=64),
    "duration": service(spec__scaling__idleAfter="1h30m"),
    "name of 40": service(metadata__name="a" * 40),
    "job name with a digit first": job(metadata__name="2nd-job"),
    "job name of 40": job(metadata__name="1" * 40),
    "rows from a volume": job(spec__input={"persistentVolumeClaim": VOLUME}),
    "rows from a ConfigMap": job(spec__input={"configMap": {"name": "rows", "key": "rows.jsonl"}}),
    "answers to a volume": job(spec__output={"persistentVolumeClaim": {"claimName": "data", "path": "out/a..b.jsonl"}}),
    "system prompt for chat": job(spec__input__systemPrompt="Be brief."),
    "embeddings": job(spec__endpoint="/v1/embeddings"),
    "keys differ": job(spec__input__messageKey="text", spec__output__resultKey="prompt"),
    "a thousand rows": job(spec__input__inline__rows=[{"prompt": "a"}] * 1000),
    "sampling": job(spec__sampling={"temperature": 0.1, "topP": 1, "seed": 7, "stop": ["\n"], "maxTokens": 5}),
}

TENSOR = "tensor must be 'auto' or a number from 1 to 64"
NAME_SERVICE = "must consist of lower-case letters, digits and '-', and begin with a letter"
ID_FORM = 'spec.model.id: Invalid value: "{}": id must be pvc://<claim>/<path> or <organisation>/<name>'
ONE_INPUT = "input must have exactly one of inline, configMap and persistentVolumeClaim"
ONE_OUTPUT = "output must have exactly one of configMap and persistentVolumeClaim"
DOTS = "path must not contain the path element '..'"

REJECTED: dict[str, tuple[Manifest, str]] = {
    # names
    "name of 41": (service(metadata__name="a" * 41), "metadata.name must have at most 40 characters"),
    "name that begins with a digit": (service(metadata__name="9b"), NAME_SERVICE),
    "name with a dot": (service(metadata__name="a.b"), NAME_SERVICE),
    "job name of 41": (job(metadata__name="a" * 41), "metadata.name must have at most 40 characters"),
    "job name with a dot": (
        job(metadata__name="a.b"), "metadata.name must consist of lower-case letters, digits and '-'",
    ),
    # model
    "no model": (service(spec={}), "spec.model: Required value"),
    "no spec": (service(spec=_DELETE), "spec: Required value"),
    "model without organisation": (service(spec__model__id="llama"), ID_FORM.format("llama")),
    "model by URL": (service(spec__model__id="https://x/y"), ID_FORM.format("https://x/y")),
    "claim in capitals": (service(spec__model__id="pvc://Models/x"), ID_FORM.format("pvc://Models/x")),
    "absolute path on a claim": (service(spec__model__id="pvc://m//etc"), ID_FORM.format("pvc://m//etc")),
    "path out of the claim": (
        service(spec__model__id="pvc://m/../x"),
        'spec.model.id: Invalid value: "pvc://m/../x": id must not contain the path element \'..\'',
    ),
    "odd revision": (service(spec__model__revision="a b"), 'spec.model.revision: Invalid value: "a b"'),
    "odd dtype": (service(spec__model__dtype="int4"), 'spec.model.dtype: Unsupported value: "int4"'),
    # numbers
    "tensor 0": (
        service(spec__parallelism__tensor=0),
        "spec.parallelism.tensor: Invalid value: 0: tensor must be 'auto' or a number from 1 to 64",
    ),
    "pipeline 0": (service(spec__parallelism__pipeline=0), "pipeline must be 'auto' or a number from 1 to 64"),
    "data in words": (service(spec__parallelism__data="two"), "data must be 'auto' or a number from 1 to 64"),
    "tensor 65": (service(spec__parallelism__tensor=65), TENSOR),
    "tensor in words": (service(spec__parallelism__tensor="two"), TENSOR),
    "tensor a quoted number": (service(spec__parallelism__tensor="2"), TENSOR),
    "tensor a fraction": (service(spec__parallelism__tensor=1.5), "spec.parallelism.tensor: Invalid value"),
    "memory share above 1": (
        service(spec__engine__gpuMemoryUtilization=1.1),
        "spec.engine.gpuMemoryUtilization: Invalid value: 1.1: spec.engine.gpuMemoryUtilization in body should be less",
    ),
    "memory share 0": (service(spec__engine__gpuMemoryUtilization=0), "should be greater than 0"),
    "lease too short": (service(spec__queue__leaseSeconds=1), "should be greater than or equal to 10"),
    "wrong type": (
        service(spec__concurrency__target="many"),
        'spec.concurrency.target: Invalid value: "string": spec.concurrency.target in body must be of type integer',
    ),
    "duration without a unit": (service(spec__scaling__idleAfter="90"), 'spec.scaling.idleAfter: Invalid value: "90"'),
    "memory in odd units": (service(spec__resources__memory="4GB"), 'spec.resources.memory: Invalid value: "4GB"'),
    "an environment variable twice": (
        service(spec__engine__env=[{"name": "A"}, {"name": "A"}]),
        'spec.engine.env[1]: Duplicate value: {"name":"A"}',
    ),
    "unknown field": (service(spec__modell="x"), 'strict decoding error: unknown field "spec.modell"'),
    "unknown field deep inside": (
        job(spec__sampling__temprature=1), 'strict decoding error: unknown field "spec.sampling.temprature"',
    ),
    # jobs
    "no service": (job(spec__serviceRef=_DELETE), "spec.serviceRef: Required value"),
    "two inputs": (job(spec__input__persistentVolumeClaim=VOLUME), f"spec.input: Invalid value: {ONE_INPUT}"),
    "no input": (job(spec__input={}), ONE_INPUT),
    "two outputs": (job(spec__output__persistentVolumeClaim=VOLUME), f"spec.output: Invalid value: {ONE_OUTPUT}"),
    "no output": (job(spec__output={}), ONE_OUTPUT),
    "no rows": (job(spec__input__inline__rows=[]), "spec.input.inline.rows in body should have at least 1 items"),
    "too many rows": (job(spec__input__inline__rows=[{}] * 1001), "must have at most 1000 items"),
    "a row that is no object": (job(spec__input__inline__rows=["a"]), "spec.input.inline.rows[0]: Invalid value"),
    "input path with ..": (
        job(spec__input={"persistentVolumeClaim": {"claimName": "data", "path": "a/../b"}}),
        f'spec.input.persistentVolumeClaim.path: Invalid value: "a/../b": {DOTS}',
    ),
    "output path ..": (
        job(spec__output={"persistentVolumeClaim": {"claimName": "data", "path": ".."}}),
        f'spec.output.persistentVolumeClaim.path: Invalid value: "..": {DOTS}',
    ),
    "absolute path": (
        job(spec__input={"persistentVolumeClaim": {"claimName": "data", "path": "/etc/passwd"}}),
        'Invalid value: "/etc/passwd": path must be relative to the volume\'s root',
    ),
    "answer in place of the text": (
        job(spec__output__resultKey="prompt"),
        "output.resultKey must not be input.messageKey: the answer would replace the row's own text",
    ),
    "system prompt for embeddings": (
        job(spec__endpoint="/v1/embeddings", spec__input__systemPrompt="x"),
        "spec: Invalid value: input.systemPrompt is for endpoint /v1/chat/completions only",
    ),
    "odd endpoint": (job(spec__endpoint="/v1/audio"), 'spec.endpoint: Unsupported value: "/v1/audio"'),
    "too warm": (job(spec__sampling__temperature=3), "should be less than or equal to 2"),
    "odd key of a ConfigMap": (job(spec__output__configMap__key="a/b"), "spec.output.configMap.key: Invalid value"),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(control_plane: ControlPlane, case: str) -> None:
    create(control_plane, ACCEPTED[case])


@pytest.mark.parametrize("case", REJECTED)
def test_rejected_with_a_message(control_plane: ControlPlane, case: str) -> None:
    manifest, message = REJECTED[case]
    with pytest.raises(ApiError, match=re.escape(message)):
        create(control_plane, manifest)


def test_every_rule_is_seen_to_refuse() -> None:
    def messages(node: dict[str, Any]) -> set[str]:
        found = {rule["message"] for rule in node.get("x-kubernetes-validations", ())}
        for child in (*node.get("properties", {}).values(), *filter(None, [node.get("items")])):
            found |= messages(child)
        return found

    expected = [message for _, message in REJECTED.values()]
    unseen = {
        rule
        for resource in RESOURCES
        for rule in messages(root_schema(resource))
        if not any(rule.removeprefix("metadata.name ") in message for message in expected)
    }
    assert unseen == {"spec is immutable: make another InferenceJob instead of changing this one"}  # below


def test_defaults_are_written(control_plane: ControlPlane) -> None:
    assert create(control_plane, SERVICE)["spec"] == {
        "model": {"id": "Qwen/Qwen3-8B", "dtype": "auto"},
        "parallelism": {
            "tensor": "auto",
            "pipeline": "auto",
            "data": "auto",
            "allowMultiNode": False,
            "onInsufficientMemory": "Escalate",
        },
        "concurrency": {"min": 1, "target": 64},
        "accelerator": {"resourceName": "nvidia.com/gpu"},
        "resources": {},
        "engine": {"gpuMemoryUtilization": 0.92, "enforceEager": False, "kvCacheDtype": "auto"},
        "scaling": {"minReplicas": 0},
        "queue": {"maxJobs": 4, "leaseSeconds": 30, "heartbeatSeconds": 5, "shutdownGraceSeconds": 30},
    }


def test_rows_keep_what_they_have(control_plane: ControlPlane) -> None:
    assert create(control_plane, JOB)["spec"]["input"]["inline"] == JOB["spec"]["input"]["inline"]


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "/v1/embeddings"},
        {"input": {"inline": {"rows": [{"prompt": "b"}]}}},
        {"input": {"inline": {"rows": [{"prompt": "a", "more": {"deep": [2, None]}}]}}},
        {"sampling": {"maxTokens": 9}},
        {"serviceRef": {"name": "other"}},
    ],
    ids=str,
)
def test_a_job_cannot_be_changed(control_plane: ControlPlane, change: Manifest) -> None:
    path = "/apis/inference.vllm-operator.io/v1alpha1/namespaces/default/inferencejobs"
    control_plane.api.request("POST", path, JOB)
    try:
        control_plane.api.request(
            "PATCH", f"{path}/job", {"metadata": {"labels": {"a": "b"}}}, content_type="application/merge-patch+json"
        )
        with pytest.raises(ApiError, match="spec is immutable: make another InferenceJob instead of changing this one"):
            control_plane.api.request(
                "PATCH", f"{path}/job", {"spec": change}, content_type="application/merge-patch+json"
            )
    finally:
        control_plane.api.request("DELETE", f"{path}/job")
