"""Whole operator processes against a real API server: leadership, outages, deletions seen and unseen, memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from tests.integration.core.conftest import install_crds
from tests.support.waiting import eventually

from localk8s.children import free_ports
from localk8s.control_plane import ControlPlane
from vllm_operator.kube.aiohttp_client import AiohttpKubeClient
from vllm_operator.kube.connection import from_kubeconfig
from vllm_operator.kube.errors import AlreadyExistsError, KubeError, RetryableError
from vllm_operator.kube.kinds import JOB, LLM_SERVICE, SERVICE, Manifest, ObjectRef
from vllm_operator_api.names import OWNER_NAME_LABEL

pytestmark = pytest.mark.integration

LEASE = ObjectRef("Lease", "vllm-operator-system", "vllm-operator")
MAX_RSS_MIB_WITH_50_SERVICES = 120


class OperatorProcess:
    """``vllm-operator run`` as a child process, with the queue down (nothing listens on its port)."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        (self.port,) = free_ports(1)
        self.name = f"operator-{uuid4().hex[:6]}"
        self.log = directory / f"{self.name}.log"
        repository = Path(__file__).parents[3]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(repository / part) for part in ("crds", "operator")),
            "KUBECONFIG": str(kubeconfig),
            "VLLM_OPERATOR_POD_NAME": self.name,
            "VLLM_OPERATOR_HTTP_PORT": str(self.port),
            "VLLM_OPERATOR_QUEUE_URL": "nats://127.0.0.1:1",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vllm_operator", "run"], env=environment, stderr=log, stdout=log
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status (0: no answer) and text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else -1.0

    def leads(self) -> bool:
        return self.metric("vllm_operator_leader") == 1 and self.get("/readyz")[0] == 200

    def rss_mib(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / (1 << 20)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    """One of this module's own: its API server is killed."""
    with ControlPlane() as running:
        install_crds(running)
        running.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": LEASE.namespace}})
        yield running


@pytest.fixture
def start(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Callable[[], OperatorProcess]]:
    started: list[OperatorProcess] = []

    def start_one() -> OperatorProcess:
        started.append(OperatorProcess(control_plane.kubeconfig, tmp_path))
        return started[-1]

    yield start_one
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(10)
        sys.stdout.write(each.log.read_text(errors="replace")[-4000:])


@pytest.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[AiohttpKubeClient]:
    made = AiohttpKubeClient(from_kubeconfig(control_plane.kubeconfig), user_agent="test")
    await made.start()
    yield made
    for service in (await made.list(LLM_SERVICE)).items:
        await made.delete(ObjectRef.of(service))
    await made.stop()


def llm_service(name: str) -> Manifest:
    return {
        "apiVersion": LLM_SERVICE.api_version,
        "kind": LLM_SERVICE.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"id": "pvc://models/tiny"}},
    }


async def has_child(client: AiohttpKubeClient, name: str) -> bool:
    try:
        return bool((await client.list(SERVICE, label_selector=f"{OWNER_NAME_LABEL}={name}")).items)
    except KubeError:
        return False


async def holder(client: AiohttpKubeClient) -> str:
    try:
        return str((await client.get(LEASE))["spec"].get("holderIdentity") or "")
    except KubeError:
        return ""


async def test_leadership_passes_on(start: Callable[[], OperatorProcess], client: AiohttpKubeClient) -> None:
    first = start()
    await eventually(first.leads, timeout_seconds=30)
    second = start()
    await eventually(lambda: second.get("/readyz")[0] == 200, timeout_seconds=30, message="the second stands by")
    assert second.metric("vllm_operator_leader") == 0
    assert (await holder(client)).startswith(first.name)

    begun = time.monotonic()
    first.end(signal.SIGKILL)
    await eventually(second.leads, timeout_seconds=25)
    assert time.monotonic() - begun <= 20

    third = start()
    await eventually(lambda: third.get("/readyz")[0] == 200, timeout_seconds=30)
    begun = time.monotonic()
    assert second.end() == 0
    assert time.monotonic() - begun < 5
    await eventually(third.leads, timeout_seconds=10)
    assert time.monotonic() - begun < 5
    await client.create(llm_service("after-two-leaders"))
    await eventually(lambda: has_child(client, "after-two-leaders"))
    third.end()


async def test_an_outage_of_the_api_server_is_outlived(
    start: Callable[[], OperatorProcess], control_plane: ControlPlane, client: AiohttpKubeClient
) -> None:
    operator = start()
    await eventually(operator.leads, timeout_seconds=30)
    await client.create(llm_service("before"))
    await eventually(lambda: has_child(client, "before"))
    control_plane.restart_apiserver()

    async def created() -> bool:
        try:
            await client.create(llm_service("after"))
        except AlreadyExistsError:
            return True
        except RetryableError:  # the connection that the client still had
            return False
        return True

    await eventually(created, timeout_seconds=30)
    await eventually(lambda: has_child(client, "after"), timeout_seconds=60)
    child = (await client.list(SERVICE, label_selector=f"{OWNER_NAME_LABEL}=before")).items[0]
    await client.delete(ObjectRef.of(child))
    await eventually(lambda: has_child(client, "before"), timeout_seconds=30, message="the deleted child comes back")
    assert operator.process.poll() is None
    operator.end()


async def test_a_lost_lease_ends_the_process(start: Callable[[], OperatorProcess], control_plane: ControlPlane) -> None:
    operator = start()
    await eventually(operator.leads, timeout_seconds=30)
    control_plane.kill_apiserver()
    try:
        await eventually(lambda: operator.process.poll() is not None, timeout_seconds=20)
        assert operator.process.returncode == 1
        again = start()
        await eventually(lambda: again.get("/healthz")[0] == 200, timeout_seconds=20)
        assert again.get("/readyz")[0] == 503
    finally:
        control_plane.restart_apiserver()
    await eventually(again.leads, timeout_seconds=40)
    again.end()


async def test_memory_and_writes_with_fifty_services(
    start: Callable[[], OperatorProcess], client: AiohttpKubeClient
) -> None:
    operator = start()
    await eventually(operator.leads, timeout_seconds=30)
    begun = time.monotonic()
    for number in range(50):
        await client.create(llm_service(f"many-{number}"))

    async def all_made() -> bool:
        jobs, services = await client.list(JOB), await client.list(SERVICE)
        names = [item["metadata"]["name"] for item in (*jobs.items, *services.items)]
        return sum(name.startswith("many-") for name in names) >= 100

    await eventually(all_made, timeout_seconds=60)
    seconds = time.monotonic() - begun

    def settled() -> bool:
        before = operator.metric("vllm_operator_api_writes_total")
        time.sleep(2)
        return operator.metric("vllm_operator_api_writes_total") == before

    await eventually(settled, timeout_seconds=60)
    writes = operator.metric("vllm_operator_api_writes_total")
    rss = operator.rss_mib()
    print(f"operator with 50 LLMServices: {rss:.0f} MiB, {writes:.0f} writes, children after {seconds:.1f} s")
    assert rss < MAX_RSS_MIB_WITH_50_SERVICES
    operator.end()
