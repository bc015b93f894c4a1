"""The rules' answers for one model, each asked once: many pools have the same kind of device."""

from __future__ import annotations

from vllm_operator.planner.constraints.check import Violation, can_run_on, legal_tensor, violations
from vllm_operator.planner.device import Device
from vllm_operator.planner.engine_settings import EngineSettings
from vllm_operator.planner.layout import Layout
from vllm_operator_api.model import ModelFacts


class Legality:
    """What vLLM would say to layouts of one model with one set of settings, for the time of one choice."""

    def __init__(self, facts: ModelFacts, settings: EngineSettings) -> None:
        self._facts = facts
        self._settings = settings
        self._violations: dict[tuple[Layout, Device], Violation | None] = {}
        self._legal_tensor: dict[tuple[int, Device], tuple[int, ...]] = {}
        self._unable: dict[Device, Violation | None] = {}

    def violation(self, layout: Layout, device: Device) -> Violation | None:
        """The most fundamental rule that the layout breaks; None: it is legal."""
        key = (layout, device)
        if key not in self._violations:
            self._violations[key] = next(iter(violations(self._facts, layout, self._settings, device)), None)
        return self._violations[key]

    def legal_tensor(self, largest: int, device: Device) -> tuple[int, ...]:
        """All legal tensor-parallel degrees up to ``largest``."""
        key = (largest, device)
        if key not in self._legal_tensor:
            self._legal_tensor[key] = legal_tensor(self._facts, self._settings, largest, device)
        return self._legal_tensor[key]

    def unable(self, device: Device) -> Violation | None:
        """Why this kind of device cannot run the model at all; None: it can."""
        if device not in self._unable:
            self._unable[device] = can_run_on(self._facts, self._settings, device)
        return self._unable[device]
