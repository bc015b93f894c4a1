"""The operator with services that all serve and do nothing: memory, CPU, and writes to the API server."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.bench.jobs import run_async
from tests.bench.report import Report
from tests.support.heartbeats import Workers
from tests.support.jobs import connect_as, secured_server, write_credentials
from tests.support.kubectl import Kubectl
from tests.support.operator_stack import RELEASE_NAMESPACE, OperatorProcess, PretendingKubelet, install

from localk8s.control_plane import ControlPlane

SERVICES = 50
HEARTBEAT_SECONDS = 5.0
"""``queue.heartbeatSeconds``' default."""
REST_SECONDS = 60.0
SETTLE_SECONDS = 15.0
"""For what the last changes leave behind: status writes of mere numbers come at most every 5 s."""
CREATION_TIMEOUT_SECONDS = 120.0
TARGET_RSS_MIB = 120.0
TARGET_WRITES = 0
_SERVICES_PATH = "/apis/inference.vllm-operator.io/v1alpha1/namespaces/default/llmservices"
_PODS_PATH = "/api/v1/namespaces/default/pods?labelSelector=app.kubernetes.io/component=engine"


@dataclass(frozen=True, slots=True)
class Rest:
    """What the operator did meanwhile."""

    serving_after_seconds: float
    writes_until_serving: float
    writes: float
    requests: dict[str, float]
    reconciles: float
    heartbeats: int
    cpu_seconds_per_minute: float
    rss_mib: float
    rss_alone_mib: float
    changed: list[str]
    """Paths in the services' statuses that differ after the rest."""


def run() -> None:
    """Print them."""
    with tempfile.TemporaryDirectory(prefix="bench-operator-") as directory:
        rest = run_async(measure(Path(directory)))
    report = Report(
        f"operator_at_rest: {SERVICES} LLMServices that serve, a heartbeat of each every {HEARTBEAT_SECONDS:.0f} s",
        ("measure", f"in {REST_SECONDS:.0f} s"),
    )
    report.row("heartbeats sent", str(rest.heartbeats))
    report.row("reconciles", f"{rest.reconciles:.0f}")
    report.row("writes to the API server", f"{rest.writes:.0f}")
    report.row("CPU", f"{rest.cpu_seconds_per_minute:.2f} s per minute")
    report.row("RSS", f"{rest.rss_mib:.0f} MiB (without services {rest.rss_alone_mib:.0f})")
    report.note(
        f"all created at once, all Serving after {rest.serving_after_seconds:.0f} s "
        f"and {rest.writes_until_serving:.0f} writes ({rest.writes_until_serving / SERVICES:.0f} a service)"
    )
    if rest.requests:
        report.note(f"requests meanwhile: {', '.join(f'{name} {count:.0f}' for name, count in rest.requests.items())}")
    for path in rest.changed:
        report.note(f"changed meanwhile: {path}")
    report.target("RSS", f"{rest.rss_mib:.0f} MiB", f"< {TARGET_RSS_MIB:.0f} MiB", met=rest.rss_mib < TARGET_RSS_MIB)
    report.target("writes", f"{rest.writes:.0f}", str(TARGET_WRITES), met=rest.writes <= TARGET_WRITES)
    report.show()


async def measure(directory: Path) -> Rest:
    """Create the services, wait until all serve, and look at the operator while nothing happens."""
    async with operator_stack(directory) as (control_plane, kubelet, operator, workers):
        process = psutil.Process(operator.pid)
        rss_alone_mib = process.memory_info().rss / 2**20
        created_at = time.monotonic()
        Kubectl(control_plane.kubeconfig)("apply", "--server-side", "-f", "-", stdin=services())
        await all_serving(control_plane)
        serving_after_seconds = time.monotonic() - created_at
        writes_until_serving = operator.metric("vllm_operator_api_writes_total")
        kubelet.poll_seconds = 5.0  # it has nothing to do any more but to renew its lease
        pods = control_plane.api.request("GET", _PODS_PATH)["items"]
        workers.list_pods, workers.interval_seconds = lambda: pods, HEARTBEAT_SECONDS
        await asyncio.sleep(SETTLE_SECONDS)

        statuses = service_statuses(control_plane)
        before, sent, cpu = metrics(operator), workers.sequence, process.cpu_times()
        await asyncio.sleep(REST_SECONDS)
        after, cpu_after = metrics(operator), process.cpu_times()
        return Rest(
            serving_after_seconds=serving_after_seconds,
            writes_until_serving=writes_until_serving,
            writes=difference(before, after, "vllm_operator_api_writes_total"),
            requests=requests(before, after),
            reconciles=difference(before, after, "vllm_operator_reconcile_total"),
            heartbeats=workers.sequence - sent,
            cpu_seconds_per_minute=(cpu_after.user + cpu_after.system - cpu.user - cpu.system) * 60 / REST_SECONDS,
            rss_mib=process.memory_info().rss / 2**20,
            rss_alone_mib=rss_alone_mib,
            changed=differing_paths(statuses, service_statuses(control_plane)),
        )


@asynccontextmanager
async def operator_stack(
    directory: Path,
) -> AsyncIterator[tuple[ControlPlane, PretendingKubelet, OperatorProcess, Workers]]:
    """The operator with the chart's rights and default settings, a queue, and agents that send heartbeats."""
    credentials = write_credentials(directory / "credentials")
    with ControlPlane() as control_plane, secured_server(credentials) as nats:
        install(Kubectl(control_plane.kubeconfig))
        kubelet = PretendingKubelet(control_plane)
        account = control_plane.kubeconfig_for(RELEASE_NAMESPACE, "vllm-operator")
        operator = OperatorProcess(account, nats.url, credentials / "operator", log=directory / "operator.log")
        client = await connect_as(nats, credentials, "agent")
        workers = Workers(
            client,
            lambda: list(control_plane.api.request("GET", _PODS_PATH)["items"]),
            interval_seconds=1.0,
            idle_grows=True,
        )
        beating = asyncio.create_task(workers.run())
        try:
            kubelet.start()
            operator.start()
            async with asyncio.timeout(30):
                while not await asyncio.to_thread(operator.ready):
                    await asyncio.sleep(0.1)
            yield control_plane, kubelet, operator, workers
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            await client.close()
            operator.stop()
            kubelet.stop()


def services() -> str:
    """A manifest list of services whose model the pretending kubelet's facts are of."""
    items = [
        {
            "apiVersion": "inference.vllm-operator.io/v1alpha1",
            "kind": "LLMService",
            "metadata": {"name": f"model-{index:02d}", "namespace": "default"},
            "spec": {"model": {"id": f"pvc://models/model-{index:02d}"}, "scaling": {"idleAfter": "1h"}},
        }
        for index in range(SERVICES)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


async def all_serving(control_plane: ControlPlane) -> None:
    """Wait until every service's condition Ready has the reason Serving and every agent is heard."""
    seen: Counter[str] = Counter()
    try:
        async with asyncio.timeout(CREATION_TIMEOUT_SECONDS):
            while seen["Serving"] < SERVICES:
                await asyncio.sleep(0.5)
                seen = Counter(map(state, service_statuses(control_plane).values()))
    except TimeoutError:
        raise RuntimeError(f"not all serve after {CREATION_TIMEOUT_SECONDS:.0f} s: {dict(seen)}") from None


def state(status: dict[str, Any]) -> str:
    """The reason of condition Ready; ``Unheard`` while it serves without a heartbeat."""
    conditions = {condition["type"]: condition["reason"] for condition in status.get("conditions", [])}
    reason = str(conditions.get("Ready", "New"))
    heard = (status.get("workers") or {}).get("ready", 0) == 1
    return "Unheard" if reason == "Serving" and not heard else reason


def service_statuses(control_plane: ControlPlane) -> dict[str, dict[str, Any]]:
    """Status of each service by name."""
    items = control_plane.api.request("GET", _SERVICES_PATH)["items"]
    return {item["metadata"]["name"]: item.get("status") or {} for item in items}


def metrics(operator: OperatorProcess) -> dict[str, float]:
    """Every series that the operator shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.http_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def difference(before: dict[str, float], after: dict[str, float], name: str) -> float:
    """By how much all series of a metric grew together."""
    return sum(value - before.get(key, 0) for key, value in after.items() if key.partition("{")[0] == name)


def requests(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Requests to the API server by their labels, those of the leader's lease left out."""
    prefix = "vllm_operator_api_requests_total{"
    return {
        key.removeprefix(prefix).rstrip("}"): value - before.get(key, 0)
        for key, value in sorted(after.items())
        if key.startswith(prefix) and '"Lease"' not in key and value != before.get(key, 0)
    }


def differing_paths(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """Where statuses differ, counted over all services."""
    paths: Counter[str] = Counter()
    for name, status in after.items():
        paths.update(_differing(before.get(name, {}), status, ""))
    return [f"{path} of {count} services" for path, count in paths.most_common()]


def _differing(before: Any, after: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        return [found for key in keys for found in _differing(before.get(key), after.get(key), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [found for one, other in pairs for found in _differing(one, other, f"{path}[]")]
    return [] if before == after else [path.lstrip(".")]
