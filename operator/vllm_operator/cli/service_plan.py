"""The plan of an LLMService's file for the nodes of a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from vllm_operator.cli.cluster import ClusterView, read_cluster
from vllm_operator.cli.errors import CommandError
from vllm_operator.cli.model_config import read_model
from vllm_operator.cli.planning import PlanReport, plan_report
from vllm_operator.cli.service_file import ServiceFile, read_service
from vllm_operator.kube.connection import ConnectionSettingsError, discover
from vllm_operator.kube.errors import KubeError
from vllm_operator.llmservice.facts import observe_facts, read_facts
from vllm_operator.llmservice.plan_request import plan_request
from vllm_operator.llmservice.planning import PlanningInputs, check_spec, make_plan
from vllm_operator.manifests.model_facts import facts_job_name
from vllm_operator.planner.choice.waiting import waiting_for
from vllm_operator.planner.engine_options import default_engine_options
from vllm_operator.planner.facts.errors import ModelError
from vllm_operator.planner.facts.override import apply_override
from vllm_operator.planner.inventory.pools import for_resource
from vllm_operator.planner.inventory.quota import quota_left
from vllm_operator.planner.problem import PlanProblem
from vllm_operator.planner.sources.builtin import builtin_facts
from vllm_operator.planner.sources.hub import read_hub
from vllm_operator.planner.sources.hub_client import HubUnreachableError
from vllm_operator.planner.sources.location import ModelLocation
from vllm_operator_api.conditions import Reason
from vllm_operator_api.model import ModelFacts
from vllm_operator_api.quantities import BYTES_PER_GIB

_DEFAULT_NAMESPACE: Final = "default"
_HUB_ENDPOINT: Final = "HF_ENDPOINT"
_HUB_TOKEN_FILE: Final = "HF_TOKEN_PATH"  # noqa: S105  a name
"""Variables that the model hub's own tools read, too."""


def service_report(
    path: Path,
    model_config: Path | None,
    weights_bytes: int | None,
    *,
    context: str | None = None,
    namespace: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> PlanReport:
    """Plan the service as the operator of that cluster would, from scratch.

    Raises:
        CommandError: the file, the model or the cluster cannot be read.
    """
    service = read_service(path)
    location = check_spec(service.spec, default_engine_options())
    if isinstance(location, PlanProblem):
        return PlanReport(reason=location.reason, message=location.message)
    facts = None if model_config is None else read_model(model_config, weights_bytes=weights_bytes)
    cluster = _cluster(service, namespace or service.namespace or _DEFAULT_NAMESPACE, context, environment)
    if facts is None:
        facts = _facts(service, location, cluster, weights_bytes, environment)
    return _plan(service, location, facts, cluster)


def _cluster(service: ServiceFile, namespace: str, context: str | None, environment: Mapping[str, str]) -> ClusterView:
    try:
        connection = discover(environment, context=context, login_plugins=True)
        return asyncio.run(read_cluster(connection, namespace=namespace, service=service.name))
    except ConnectionSettingsError as error:
        raise CommandError(str(error)) from error
    except KubeError as error:
        raise CommandError(f"the cluster's nodes cannot be listed: {error.message}") from error
    except OSError as error:
        raise CommandError(f"the cluster cannot be asked: {error}") from error


def _facts(
    service: ServiceFile,
    location: ModelLocation,
    cluster: ClusterView,
    weights_bytes: int | None,
    environment: Mapping[str, str],
) -> ModelFacts:
    """Facts that the spec gives, that a Job in the cluster has read, or that the hub tells."""
    given = service.spec.model.facts
    override = {} if given is None else given.model_dump(by_alias=True, exclude_none=True)
    if weights_bytes is not None:
        override["weightsGiB"] = weights_bytes / BYTES_PER_GIB
    try:
        found = None if "config" in override else _read(service, location, cluster, environment)
        return found if found is not None and not override else apply_override(found, override)
    except ModelError as error:
        raise CommandError(f"{service.spec.model.id}: {error.message}; or give --model-config FILE") from error


def _read(
    service: ServiceFile, location: ModelLocation, cluster: ClusterView, environment: Mapping[str, str]
) -> ModelFacts:
    name = facts_job_name(service.name, location, service.spec.model.token_secret_ref)
    job = observe_facts(cluster.facts_jobs, tuple(cluster.facts_pods)).job(name)
    found = None if job is None else read_facts(job, service.spec.model.id)
    if isinstance(found, ModelFacts):
        return found
    if location.repository is None:
        raise CommandError(
            f"{service.spec.model.id} lies on a volume, which only pods can read, and no model-facts Job of "
            f"{service.name} has read it: give --model-config FILE, with --weights-gib if you know their size"
        )
    token_file = environment.get(_HUB_TOKEN_FILE)
    try:
        return read_hub(
            location.repository,
            location.revision,
            environment.get(_HUB_ENDPOINT),
            Path(token_file) if token_file else None,
        )
    except HubUnreachableError as error:
        known = builtin_facts(location.repository, error.message)
        if known is None:
            raise
        return known


def _plan(service: ServiceFile, location: ModelLocation, facts: ModelFacts, cluster: ClusterView) -> PlanReport:
    options = default_engine_options()
    inputs = PlanningInputs(inventory=cluster.inventory, options=options, leader_worker_set=cluster.leader_worker_set)
    made = make_plan(service.spec, location, facts, inputs)
    resource_name = service.spec.accelerator.resource_name
    pools = for_resource(cluster.inventory, resource_name)
    problem = made if isinstance(made, PlanProblem) else None
    report = plan_report(facts, plan_request(service.spec, facts, options, {}), pools, problem)
    if report.layout is None:
        return report
    chosen = tuple(pool for pool in pools if pool.product in report.products)
    waits = waiting_for(chosen, report.layout, quota_left(cluster.quotas, resource_name))
    if waits is None:
        return report
    return replace(report, reason=Reason.WAITING_FOR_CAPACITY, message=f"{report.message}; {waits}")
