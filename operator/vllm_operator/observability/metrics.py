"""The operator's metrics. The table in docs/operations/metrics.md lists them; a test keeps the two in step."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_WRITE_VERBS = frozenset({"apply", "create", "patch", "replace", "delete"})


class OperatorMetrics:
    """All metrics of one operator process, in a registry of its own. Label values are bounded: no names, no uids."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reconciles = Counter(
            "vllm_operator_reconcile_total",
            "Reconciles by kind and result: done, requeue, retry (expected error), error (unexpected).",
            ("kind", "result"),
            registry=self.registry,
        )
        self._reconcile_seconds = Histogram(
            "vllm_operator_reconcile_seconds",
            "Duration of a reconcile.",
            ("kind",),
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
            registry=self.registry,
        )
        self._queue_latency_seconds = Histogram(
            "vllm_operator_queue_latency_seconds",
            "Time a key waited for a worker.",
            buckets=(0.001, 0.01, 0.1, 1, 10, 60),
            registry=self.registry,
        )
        self.queue_depth = Gauge("vllm_operator_queue_depth", "Keys that wait for a worker.", registry=self.registry)
        self._api_requests = Counter(
            "vllm_operator_api_requests_total",
            "Requests to the Kubernetes API by verb, kind and HTTP status (0: no answer). Watches are not counted.",
            ("verb", "kind", "code"),
            registry=self.registry,
        )
        self._api_writes = Counter(
            "vllm_operator_api_writes_total",
            "Requests that may change an object; leases (renewed every two seconds) are left out.",
            registry=self.registry,
        )
        self.cache_objects = Gauge(
            "vllm_operator_cache_objects", "Objects in the cache.", ("kind",), registry=self.registry
        )
        self.leader = Gauge("vllm_operator_leader", "1 while this process holds the lease.", registry=self.registry)
        self.event_loop_lag_seconds = Gauge(
            "vllm_operator_event_loop_lag_seconds",
            "How late the event loop came back from its last half second of sleep.",
            registry=self.registry,
        )

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        """One reconcile ended."""
        self._reconciles.labels(kind, result).inc()
        self._reconcile_seconds.labels(kind).observe(seconds)

    def waited(self, seconds: float) -> None:
        """A key waited so long for a worker."""
        self._queue_latency_seconds.observe(seconds)

    def api_request(self, verb: str, kind: str, code: int) -> None:
        """One request to the Kubernetes API ended."""
        self._api_requests.labels(verb, kind, str(code)).inc()
        if verb in _WRITE_VERBS and kind != "Lease":
            self._api_writes.inc()
