"""Metrics as documented, probes, and logs that are JSON."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import aiohttp
import pytest
import structlog

from localk8s.children import free_ports
from vllm_operator.observability.http import ObservabilityServer
from vllm_operator.observability.logging import configure_logging
from vllm_operator.observability.metrics import OperatorMetrics

DOCUMENT = Path(__file__).parents[3] / "docs/operations/metrics.md"


def test_every_metric_is_documented_with_its_labels() -> None:
    documented = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(
            r"^\| `(vllm_operator_\w+)` \| \w+ \| ([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE
        )
    }
    metrics = OperatorMetrics()
    metrics.reconciled("LLMService", "done", 0.1)
    metrics.api_request("get", "Pod", 200)
    metrics.cache_objects.labels("Pod").set(1)
    actual: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        if family.name.startswith("vllm_operator_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            actual[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert documented == actual


def test_renewals_of_the_lease_are_no_writes() -> None:
    metrics = OperatorMetrics()
    metrics.api_request("replace", "Lease", 200)
    metrics.api_request("get", "Pod", 200)
    metrics.api_request("apply", "Deployment", 201)
    assert metrics.registry.get_sample_value("vllm_operator_api_writes_total") == 1


async def test_probes_and_scrape() -> None:
    wrong: dict[str, str | None] = {"healthy": None, "ready": "not all kinds are listed yet"}
    metrics = OperatorMetrics()
    (port,) = free_ports(1)
    server = ObservabilityServer(
        metrics.registry,
        host="127.0.0.1",
        port=port,
        healthy=lambda: wrong["healthy"],
        ready=lambda: wrong["ready"],
        before_scrape=lambda: metrics.leader.set(1),
    )
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with session.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "not all kinds are listed yet\n")
            async with session.get("/metrics") as answer:
                assert "vllm_operator_leader 1.0" in await answer.text()
    finally:
        await server.stop()


def test_logs_are_json_lines_with_context(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("INFO")
        log = structlog.stdlib.get_logger("vllm_operator.test")
        with structlog.contextvars.bound_contextvars(key="LLMService ns/chat", generation=3):
            log.info("state changed", state="Ready")
            log.debug("not shown")
        logging.getLogger("library").warning("odd: %s", 5)
        try:
            raise ValueError("a bug")
        except ValueError:
            log.exception("failed")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    first, second, third = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert first["message"] == "state changed"
    assert (first["key"], first["generation"], first["state"], first["level"]) == (
        "LLMService ns/chat",
        3,
        "Ready",
        "info",
    )
    assert (second["message"], second["logger"]) == ("odd: 5", "library")
    assert "ValueError: a bug" in third["exception"]
