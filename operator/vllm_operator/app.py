"""The operator process: builds the object graph, takes the lease, runs, and ends in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Coroutine
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final, cast
from uuid import uuid4

import kopf
import structlog
import uvloop
from pydantic import ValidationError

from vllm_operator import handlers
from vllm_operator.engine.cache import ObjectCache
from vllm_operator.engine.clock import SystemClock
from vllm_operator.engine.controller import Controller
from vllm_operator.engine.events import EventRecorder
from vllm_operator.engine.executor import Executor
from vllm_operator.engine.lease import LeaderElector, LeaseTimes
from vllm_operator.engine.queue import KeyedWorkQueue
from vllm_operator.engine.status_writer import StatusWriter
from vllm_operator.engine.tasks import end_tasks
from vllm_operator.engine.watches import Lister, Watch
from vllm_operator.inferencejob.reconcile import InferenceJobReconciler
from vllm_operator.inferencejob.sweep import sweep_queue
from vllm_operator.kube.aiohttp_client import AiohttpKubeClient
from vllm_operator.kube.connection import Connection, ConnectionSettingsError, discover
from vllm_operator.kube.errors import KubeError
from vllm_operator.kube.kinds import INFERENCE_JOB, LLM_SERVICE, NODE, Manifest, ObjectRef
from vllm_operator.llmservice.cluster_inventory import ClusterInventory
from vllm_operator.llmservice.cluster_sources import ClusterSources, serves_leader_worker_sets
from vllm_operator.llmservice.reconcile import LLMServiceReconciler
from vllm_operator.observability.http import ObservabilityServer, measure_loop_lag
from vllm_operator.observability.logging import configure_logging
from vllm_operator.observability.metrics import OperatorMetrics
from vllm_operator.planner.inventory.profiles import parse_profiles
from vllm_operator.queue.admin import JetStreamAdmin
from vllm_operator.queue.connection import QueueConnection
from vllm_operator.queue.monitor import QueueMonitor
from vllm_operator.queue.view import QueueUnavailableError
from vllm_operator.routing import WATCHED, WATCHED_WITH_GROUPS, Router, slim_node
from vllm_operator.settings import Settings
from vllm_operator_api.names import (
    APPLIED_HASH_ANNOTATION,
    FIELD_MANAGER,
    MANAGED_BY_VALUE,
    OWNER_UID_LABEL,
    STATUS_FIELD_MANAGER,
)
from vllm_operator_api.queue import OPERATOR_INBOX_PREFIX

LEASE_NAME: Final = "vllm-operator"
_STUCK_SECONDS: Final = 600.0
"""A reconcile is a handful of calls of at most 30 s each: after ten minutes it hangs."""
_SWEEP_SECONDS: Final = 60.0
_SWEEP_DEBOUNCE_SECONDS: Final = 2.0
_RELIST_SECONDS: Final = 600.0
_GROUPS_SECONDS: Final = 10.0
"""Between two looks at whether LeaderWorkerSets were installed, which ``ClusterSources`` finds out each minute."""
_SHUTDOWN_SECONDS: Final = 4.0
_log: Final = structlog.stdlib.get_logger(__name__)


class Operator:
    """One operator process. ``run`` once."""

    def __init__(self, settings: Settings, connection: Connection, *, leader_worker_sets: bool) -> None:
        """``leader_worker_sets``: the cluster has that kind, so that it can be watched."""
        clock = SystemClock()
        self._watched = WATCHED_WITH_GROUPS if leader_worker_sets else WATCHED
        self._settings = settings
        self._connection = connection
        self._namespaces = tuple(name.strip() for name in settings.watch_namespaces.split(",") if name.strip())
        self._metrics = OperatorMetrics()
        self._client = AiohttpKubeClient(
            connection,
            user_agent=f"vllm-operator/{version('vllm-operator')}",
            namespaces=self._namespaces,
            observer=self._metrics.api_request,
        )
        self._cache = ObjectCache(
            watched=[kind.kind for kind, _ in self._watched],
            owner_uid_label=OWNER_UID_LABEL,
            slim={NODE.kind: slim_node},
        )
        self._queue = KeyedWorkQueue()
        self._cluster = ClusterInventory(
            self._cache,
            parse_profiles(settings.accelerator_profiles),
            on_change=self._on_inventory_changed,
        )
        self._cluster_sources = ClusterSources(
            self._client,
            self._cache,
            self._cluster,
            clock,
            count_pods=not self._namespaces,
            on_change=self._queue.add,
        )
        self._router = Router(
            self._cache, self._queue.add, self._on_parent_gone, self._on_relisted, self._cluster.node_changed
        )
        self._lister = Lister(
            self._client,
            self._cache,
            [Watch(kind, selector) for kind, selector in self._watched],
            self._namespaces,
            self._router.changed,
        )
        self._queue_connection = QueueConnection(
            settings.queue_url,
            settings.queue_credentials_directory,
            f"operator {settings.pod_name}",
            inbox_prefix=OPERATOR_INBOX_PREFIX,
        )
        self._monitor = QueueMonitor(
            self._queue_connection,
            on_service_changed=self._router.parent_changed,
            on_job_changed=self._router.parent_changed,
            on_connection_changed=self._router.all_parents_changed,
            clock=clock,
        )
        self._admin = JetStreamAdmin(self._queue_connection, self._monitor)
        executor = Executor(self._client, self._cache, FIELD_MANAGER, APPLIED_HASH_ANNOTATION)
        self._status_writer = StatusWriter(
            self._client, clock, STATUS_FIELD_MANAGER, settings.status_interval_seconds, self._cache
        )
        events = EventRecorder(self._client, MANAGED_BY_VALUE, clock)
        services = LLMServiceReconciler(
            cache=self._cache,
            executor=executor,
            status_writer=self._status_writer,
            events=events,
            queue=self._monitor,
            cluster=self._cluster,
            settings=settings,
            clock=clock,
        )
        jobs = InferenceJobReconciler(
            client=self._client,
            cache=self._cache,
            executor=executor,
            status_writer=self._status_writer,
            events=events,
            queue=self._monitor,
            admin=self._admin,
            settings=settings,
            clock=clock,
        )
        self._controller = Controller(
            self._queue,
            self._cache,
            {LLM_SERVICE.kind: services, INFERENCE_JOB.kind: jobs},
            clock,
            self._metrics,
            workers=settings.reconcile_workers,
            resync_seconds=settings.resync_seconds,
        )
        self._elector = LeaderElector(
            self._client,
            clock,
            ObjectRef("Lease", settings.namespace, LEASE_NAME),
            f"{settings.pod_name or socket.gethostname()}_{uuid4().hex[:8]}",
            LeaseTimes.of_duration(settings.lease_duration_seconds),
        )
        self._http = ObservabilityServer(
            self._metrics.registry,
            host="0.0.0.0",
            port=settings.http_port,
            healthy=self._unhealthy_because,
            ready=self._unready_because,
            before_scrape=self._set_gauges,
        )
        self._stop = asyncio.Event()
        self._stop_kopf = asyncio.Event()
        self._sweep_soon = asyncio.Event()
        self._leading = False
        self._watching = False
        self._exit_status = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT (0), or until a part of it fails (1). Never returns when the lease is lost."""
        self._take_signals()
        await self._client.start()
        await self._http.start()
        try:
            self._spawn(measure_loop_lag(self._metrics.event_loop_lag_seconds), "event loop lag")
            self._spawn(self._lead(), "start", ends=True)
            await self._stop.wait()
            _log.info("stopping")
        finally:
            await self._shut_down()
        return self._exit_status

    async def _lead(self) -> None:
        """Take the lease, fill the cache, and start everything that works; returns when it all runs."""
        if self._settings.leader_election:
            await self._elector.acquire()
            self._spawn(self._keep_lease(), "lease")
        self._leading = True
        await self._queue_connection.start()
        await self._monitor.start()
        await self._lister.start()
        _log.info("cache synced", **{kind.plural: self._cache.count(kind.kind) for kind, _ in self._watched})
        await self._cluster.read_all()
        await self._cluster_sources.look()
        # What is cached now lives as long as the process: without this each full collection stops the loop for 0.1 s.
        gc.collect()
        gc.freeze()
        self._spawn(self._cluster.run(), "inventory")
        self._spawn(self._cluster_sources.run(), "inventory sources")
        if self._watched is not WATCHED_WITH_GROUPS:
            self._spawn(self._wait_for_groups(), "leader worker sets", ends=True)
        self._spawn(self._controller.run(), "controller")
        self._spawn(self._lister.run(_RELIST_SECONDS), "relist")
        self._spawn(self._sweep(), "sweep")
        # kopf cancels, when it ends, what was started after it: it comes last.
        watching = asyncio.Event()
        self._spawn(self._watch(watching), "watches")
        await watching.wait()
        self._take_signals()  # kopf took them for itself: it would end before the workers
        self._watching = True
        self._lister.request()

    async def _keep_lease(self) -> None:
        await self._elector.keep()
        # Another operator may be writing already: not a line of this process may run any more.
        os._exit(1)

    async def _watch(self, watching: asyncio.Event) -> None:
        await kopf.operator(
            registry=handlers.build_registry(self._watched, self._router.observe, self._connection),
            settings=handlers.build_settings(self._watched),
            # kopf's own guess asks the system for the user's name, and the image's numeric user has none.
            identity=cast("Any", self._settings.pod_name),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop_kopf,
            ready_flag=watching,
        )

    async def _wait_for_groups(self) -> None:
        """End the process, to be started again, when a kind appears that it should watch and does not."""
        while True:
            await asyncio.sleep(_GROUPS_SECONDS)
            if self._cluster.leader_worker_set:
                _log.info("LeaderWorkerSets were installed: the operator ends, to watch them when it is started again")
                self._stop.set()
                return

    async def _sweep(self) -> None:
        """Remove what custom resources left in the queue: every minute, and soon after one of them was deleted."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await self._sweep_soon.wait()
            await asyncio.sleep(_SWEEP_DEBOUNCE_SECONDS)
            self._sweep_soon.clear()
            try:
                await sweep_queue(self._client, self._admin)
            except (QueueUnavailableError, KubeError) as error:
                _log.info("queue not swept, will be tried again", error=str(error))

    async def _shut_down(self) -> None:
        """Workers, then the lease, then connections; whatever hangs is left behind after four seconds."""
        try:
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                watches = [task for task in self._tasks if task.get_name() == "watches"]
                await end_tasks(*[task for task in self._tasks if task not in watches])
                self._queue.close()
                await self._elector.release()
                self._leading = False
                self._stop_kopf.set()
                if watches:
                    await asyncio.wait(watches, timeout=1.0)
                await end_tasks(*watches)
                await self._monitor.stop()
                await self._queue_connection.stop()
                await self._client.stop()
                await self._http.stop()
        except TimeoutError:
            _log.warning("not everything ended in time")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, *, ends: bool = False) -> None:
        """Run a part in the background. The process ends with it, unless it is one that ``ends`` by itself."""

        def on_done(task: asyncio.Task[None]) -> None:
            if task.cancelled() or (ends and task.exception() is None) or self._stop.is_set():
                return
            _log.error("a part of the operator ended", part=name, exc_info=task.exception())
            self._exit_status = 1
            self._stop.set()

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(on_done)
        self._tasks.append(task)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    def _on_parent_gone(self, manifest: Manifest) -> None:
        uid = manifest["metadata"]["uid"]
        self._status_writer.forget(uid)
        self._cache.drop_unwatched_children(uid)
        self._sweep_soon.set()

    def _on_inventory_changed(self) -> None:
        self._router.services_changed()  # the router is made of the inventory, so it cannot be handed to it

    def _on_relisted(self) -> None:
        if self._watching:
            self._lister.request()

    def _unhealthy_because(self) -> str | None:
        running = self._controller.longest_running_seconds()
        return f"a reconcile has run for {running:.0f} s" if running > _STUCK_SECONDS else None

    def _unready_because(self) -> str | None:
        if self._leading:
            return None if self._cache.synced else "leading, but not all kinds are listed yet"
        return None if self._elector.ready else "no answer from the API server yet"

    def _set_gauges(self) -> None:
        self._metrics.leader.set(self._leading)
        self._metrics.queue_depth.set(len(self._queue))
        for kind in self._cache.kinds():
            self._metrics.cache_objects.labels(kind).set(self._cache.count(kind))


async def _has_leader_worker_sets(connection: Connection) -> bool:
    """Asked once before anything is watched; False also where nobody answers, and then they are found later."""
    client = AiohttpKubeClient(connection, user_agent=f"vllm-operator/{version('vllm-operator')}")
    await client.start()
    try:
        return await serves_leader_worker_sets(client) is True
    finally:
        await client.stop()


def run() -> int:
    """Entry point of ``vllm-operator run``: settings from the environment. Returns the exit status."""
    try:
        settings = Settings()
    except ValidationError as error:
        configure_logging("INFO")
        for problem in error.errors():
            _log.error("cannot start", setting=".".join(map(str, problem["loc"])), problem=problem["msg"])
        return 2
    configure_logging(settings.log_level)
    try:
        connection = discover()
    except ConnectionSettingsError as error:
        _log.error("cannot start", problem=str(error))
        return 2
    _log.info("starting", version=version("vllm-operator"), server=connection.server, pod=settings.pod_name)

    async def main() -> int:
        groups = await _has_leader_worker_sets(connection)
        return await Operator(settings, connection, leader_worker_sets=groups).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
