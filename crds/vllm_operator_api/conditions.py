"""Condition types and reasons of both kinds. Each reason is part of the API and documented where it is defined."""

from __future__ import annotations

from enum import StrEnum


class ConditionStatus(StrEnum):
    """Values of a condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class LLMServiceCondition(StrEnum):
    """Condition types of an LLMService."""

    ACCEPTED = "Accepted"
    """The spec makes sense as a whole; nothing is created before it is True."""
    PLANNED = "Planned"
    """The parallelism is chosen (or the given one is legal) and a node exists that could hold it."""
    MODEL_LOADED = "ModelLoaded"
    """At least one engine has loaded the model."""
    READY = "Ready"
    """The service answers requests. Its reason is the service's state in ``kubectl get``."""
    ASLEEP = "Asleep"
    """The service is at zero replicas because it was idle."""
    DEGRADED = "Degraded"
    """Something that should work does not, while the service may still answer."""
    QUEUE_AVAILABLE = "QueueAvailable"
    """The operator has a connection to the queue; without it no heartbeat arrives and nothing is put to sleep."""


class InferenceJobCondition(StrEnum):
    """Condition types of an InferenceJob."""

    ACCEPTED = "Accepted"
    INPUT_READY = "InputReady"
    """The input was read and has rows; the output does not exist yet."""
    WORKERS_READY = "WorkersReady"
    """The service exists and at least one of its agents sends heartbeats."""
    QUEUE_AVAILABLE = "QueueAvailable"
    COMPLETE = "Complete"
    """Every input row has its row in the output. Terminal."""
    FAILED = "Failed"
    """The job ended without output. Terminal."""


class Reason(StrEnum):
    """Reasons of conditions, shared by both kinds."""

    # Accepted
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    """A rule that the API server cannot check is broken; the message names field and value."""
    ENGINE_ARG_NOT_ALLOWED = "EngineArgNotAllowed"
    """An engine argument is one that the operator sets itself or that would run code or open a route."""
    ENGINE_ARG_UNKNOWN = "EngineArgUnknown"
    """This version of vLLM has no such option; the message has the nearest one."""
    ENV_NOT_ALLOWED = "EnvNotAllowed"
    NAME_CONFLICT = "NameConflict"
    """An object of the name that a child needs exists and belongs to somebody else."""

    # Planned
    PLANNED = "Planned"
    READING_MODEL_FACTS = "ReadingModelFacts"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_CONFIG_INVALID = "ModelConfigInvalid"
    UNSAFE_WEIGHTS = "UnsafeWeights"
    """The model has only pickled weights, which can run code when they are loaded; safetensors are needed."""
    UNSUPPORTED_ARCHITECTURE = "UnsupportedArchitecture"
    MODEL_FACTS_UNAVAILABLE = "ModelFactsUnavailable"
    INVALID_PARALLELISM = "InvalidParallelism"
    """The given degree is illegal for this model; the message has vLLM's rule and the legal set."""
    INSUFFICIENT_GPU_MEMORY = "InsufficientGPUMemory"
    NO_ACCELERATOR_NODES = "NoAcceleratorNodes"
    ACCELERATOR_LABELS_MISSING = "AcceleratorLabelsMissing"

    # Ready of an LLMService: its state
    NOT_ACCEPTED = "NotAccepted"
    PLANNING = "Planning"
    STARTING = "Starting"
    """Pods are being scheduled or their image pulled."""
    LOADING = "Loading"
    """The engine runs and loads the model."""
    SERVING = "Serving"
    UPDATING = "Updating"
    DRAINING = "Draining"
    """Idle and out of routing; a last look before the replicas go to zero."""
    ASLEEP = "Asleep"
    WAKING = "Waking"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    ENGINE_FAILED = "EngineFailed"
    """The engine ended at start; the message is the engine's own."""
    POD_REJECTED = "PodRejected"
    """The API server refused the pod (quota, Pod Security); the message is its own."""

    # Asleep
    AWAKE = "Awake"
    IDLE = "Idle"
    # Degraded
    AS_EXPECTED = "AsExpected"
    WORKER_HEARTBEAT_MISSING = "WorkerHeartbeatMissing"
    APPLY_FAILED = "ApplyFailed"
    """The API server refused a child; the message is its own."""

    # QueueAvailable
    QUEUE_CONNECTED = "QueueConnected"
    QUEUE_UNAVAILABLE = "QueueUnavailable"

    # InferenceJob
    READING_INPUT = "ReadingInput"
    INPUT_VALID = "InputValid"
    INPUT_NOT_FOUND = "InputNotFound"
    INPUT_EMPTY = "InputEmpty"
    INPUT_NOT_REGULAR_FILE = "InputNotRegularFile"
    INPUT_CHANGED = "InputChanged"
    OUTPUT_EXISTS = "OutputExists"
    OUTPUT_TOO_LARGE = "OutputTooLarge"
    STORAGE_ERROR = "StorageError"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    SERVICE_NOT_READY = "ServiceNotReady"
    WORKERS_READY = "WorkersReady"
    DRIVER_STARTING = "DriverStarting"
    DRIVER_FAILED = "DriverFailed"
    """The driver ended with an error that is not the input's; the message is its last one."""
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    ROWS_FAILED = "RowsFailed"
    """The job is complete; some of its rows carry an error instead of an answer."""
