"""Running one row against the engine until it has an outcome."""

from __future__ import annotations

import asyncio
import random

import orjson

from vllm_operator_api.queue import RowError, RowRequest
from vllm_runtime.agent.concurrency import AdaptiveLimit
from vllm_runtime.agent.engine import TIMEOUT_CODE, Engine, EngineConnectionError, Health
from vllm_runtime.agent.requests import refuse
from vllm_runtime.agent.results import Outcome
from vllm_runtime.agent.row_errors import (
    MAX_ATTEMPTS,
    MAX_OVERLOAD_ATTEMPTS,
    Judgement,
    Verdict,
    backoff_seconds,
    judge,
)


class EngineLeavingError(Exception):
    """The engine is dead or shutting down: the row says nothing about itself.

    ``died``: it went away under this row, instead of telling that it is about to.
    """

    def __init__(self, message: str, *, died: bool) -> None:
        super().__init__(message)
        self.died = died


class RowRunner:
    """Runs rows; shares the concurrency limit with whoever starts them."""

    def __init__(self, engine: Engine, limit: AdaptiveLimit) -> None:
        self._engine = engine
        self._limit = limit

    async def run(self, endpoint: str, request: RowRequest) -> Outcome:
        """The row's outcome.

        Raises:
            EngineLeavingError: there will be none from this engine.
        """
        refused = refuse(endpoint, request.body)
        if refused is not None:
            return Outcome(error=refused)
        try:
            body = orjson.dumps(request.body)
        except orjson.JSONEncodeError as error:  # a number beyond 64 bits
            return Outcome(error=RowError(code="invalid_request", message=f"the row's request cannot be sent: {error}"))
        attempt = overloads = 0
        while True:
            content, judgement = await self._try(endpoint, body)
            match judgement.verdict:
                case Verdict.ANSWERED:
                    self._limit.healthy()
                    return Outcome(body=content)
                case Verdict.PERMANENT:
                    self._limit.healthy()
                    return Outcome(error=self._final(judgement, attempt + overloads + 1))
                case Verdict.LEAVING:
                    raise EngineLeavingError(judgement.error.message if judgement.error else "", died=False)
                case Verdict.OVERLOADED:
                    self._limit.overloaded(asyncio.get_running_loop().time())
                    overloads += 1
                case Verdict.RETRY:
                    attempt += 1
            if attempt >= MAX_ATTEMPTS or overloads >= MAX_OVERLOAD_ATTEMPTS:
                return Outcome(error=self._final(judgement, attempt + overloads))
            await asyncio.sleep(backoff_seconds(attempt + overloads, random.random()))  # noqa: S311  spreads retries

    async def _try(self, endpoint: str, body: bytes) -> tuple[bytes, Judgement]:
        try:
            status, content = await self._engine.post(endpoint, body)
        except EngineConnectionError as error:
            if await self._engine.health() is Health.DOWN:
                raise EngineLeavingError(str(error), died=True) from error
            if error.code == TIMEOUT_CODE:  # it waited behind too many others, perhaps
                self._limit.overloaded(asyncio.get_running_loop().time())
            return b"", Judgement(Verdict.RETRY, RowError(code=error.code, message=str(error)))
        return content, judge(status, content)

    @staticmethod
    def _final(judgement: Judgement, attempts: int) -> RowError:
        error = judgement.error or RowError(code="internal", message="no reason was given")
        return error.model_copy(update={"attempts": attempts})
