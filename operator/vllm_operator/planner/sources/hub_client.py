"""Bounded requests to the model hub, and what its refusals mean.

Bounded in bytes, redirects and time as a whole. A token goes to the hub's own origin only: redirects, which lead to
its file servers, are followed without it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, NoReturn, Self

import httpx

from vllm_operator.planner.facts.errors import ModelError, TransientModelError, too_large
from vllm_operator_api.conditions import Reason

_TIMEOUT: Final = httpx.Timeout(20.0, connect=10.0)
_DEADLINE_SECONDS: Final = 120.0
"""For all requests together."""
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_WAIT_SECONDS: Final = 86_400
_WINDOW: Final = re.compile(r"(?:^|;)\s*t=(\d{1,9})")
"""Seconds to the end of the window in the header ``RateLimit: "api";r=0;t=120``."""


class HubUnreachableError(TransientModelError):
    """There is no connection to the hub."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.MODEL_FACTS_UNAVAILABLE, message)


class HubClient:
    """Asks for one repository."""

    def __init__(self, base: str, repository: str, revision: str, token: str | None) -> None:
        self.base = base
        self.gated = False
        """Whether the hub says that the repository is gated."""
        self._repository = repository
        self._revision = revision
        self._token = token
        self._ends_at = time.monotonic() + _DEADLINE_SECONDS
        # A compressed answer could be larger than memory once it is unpacked.
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def read(self, path: str, what: str, most: int) -> bytes:
        """The whole answer.

        Raises:
            ModelError: there is none, or it has more than ``most`` bytes.
            TransientModelError: it may pass.
        """
        return b"".join(self.parts(path, what, most))

    def parts(self, path: str, what: str, most: int) -> Iterator[bytes]:
        """The answer, piece by piece. Raises as ``read``."""
        with self._answer(path, what, {}) as answer:
            read = 0
            for part in self._raw(answer):
                read += len(part)
                if read > most:
                    too_large(f"{what} has more than {most} bytes")
                yield part

    def beginning(self, path: str, what: str, most: int) -> bytes:
        """The first ``most`` bytes, or all if there are fewer."""
        return self._some(path, what, f"bytes=0-{most - 1}", most)

    def part(self, path: str, what: str, offset: int, count: int) -> bytes | None:
        """``count`` bytes from ``offset``; None: the hub gives no parts of files."""
        found = self._some(path, what, f"bytes={offset}-{offset + count - 1}", offset + count, whole_from=offset)
        return found if len(found) == count else None

    def _some(self, path: str, what: str, wanted: str, most: int, whole_from: int = 0) -> bytes:
        body = bytearray()
        with self._answer(path, what, {"Range": wanted}) as answer:
            offset = 0 if answer.status_code == 206 else whole_from
            if offset:
                return b""
            for part in self._raw(answer):
                body += part
                if len(body) >= most:
                    break
        return bytes(body[:most])

    def _raw(self, answer: httpx.Response) -> Iterator[bytes]:
        for part in answer.iter_raw():
            if time.monotonic() > self._ends_at:
                self._unavailable(f"{self.base} takes longer than {_DEADLINE_SECONDS:.0f} s to answer")
            yield part

    @contextmanager
    def _answer(self, path: str, what: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        try:
            url = httpx.URL(self.base + path)
            for _ in range(_MAX_REDIRECTS + 1):
                with self._client.stream("GET", url, headers=headers | self._authorization(url)) as answer:
                    if answer.status_code in _REDIRECTS:
                        url = self._next(url, answer)
                        continue
                    self._accept(answer, what)
                    yield answer
                    return
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            detail = str(error)[:200] or type(error).__name__
            raise HubUnreachableError(f"{self.base} cannot be reached: {detail}") from None
        except httpx.TimeoutException:
            self._unavailable(f"{self.base} does not answer in time")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self._unavailable(f"{self.base} cannot be read: {str(error)[:200] or type(error).__name__}")
        self._unavailable(f"{self.base} redirects without end")

    def _authorization(self, url: httpx.URL) -> dict[str, str]:
        own = httpx.URL(self.base)
        same = (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)
        return {"Authorization": f"Bearer {self._token}"} if self._token is not None and same else {}

    def _next(self, url: httpx.URL, answer: httpx.Response) -> httpx.URL:
        target = url.join(answer.headers.get("location", ""))
        if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme == "http"):
            self._unavailable(f"{self.base} redirects to {str(target)[:100]}, which is not safe to follow")
        return target

    def _accept(self, answer: httpx.Response, what: str) -> None:
        if answer.status_code not in (200, 206):
            self._refuse(answer)
        if answer.headers.get("content-type", "").startswith("text/html"):
            self._unavailable(
                f"{self.base} answers with a web page instead of {what}: a proxy or a login is in between"
            )
        if answer.headers.get("content-encoding", "identity") != "identity":
            self._unavailable(f"{self.base} sends {what} compressed, though it was asked not to")

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        status, code = answer.status_code, answer.headers.get("x-error-code", "")
        if status == 429:
            self._rate_limited(answer)
        if code == "GatedRepo" or (status in (401, 403) and self.gated):
            raise ModelError(Reason.GATED_MODEL, self._gated_message())
        if status == 404:
            raise ModelError(
                Reason.MODEL_NOT_FOUND,
                f"{self.base} has no repository {self._repository} with the revision {self._revision}; "
                "correct spec.model.id or spec.model.revision",
            )
        if status in (401, 403):
            raise ModelError(Reason.MODEL_NOT_FOUND, self._private_message(status))
        self._unavailable(f"{self.base} answers {status}")

    def _gated_message(self) -> str:
        page = f"{self.base}/{self._repository}"
        if self._token is None:
            return (
                f"{self._repository} is gated: accept its licence at {page}, and name a Secret with a token of that "
                "account in spec.model.tokenSecretRef"
            )
        return (
            f"{self._repository} is gated, and the token that was given has no access: accept its licence at {page} "
            "with the token's account, or give the token of an account that has"
        )

    def _private_message(self, status: int) -> str:
        if self._token is None:
            return (
                f"{self.base} answers {status} for {self._repository}: it does not exist or is private; correct "
                "spec.model.id, or name a Secret with a token that may read it in spec.model.tokenSecretRef"
            )
        return (
            f"{self.base} answers {status} for {self._repository}: it does not exist, or the token that was given is "
            "not valid or may not read it; correct spec.model.id or the token"
        )

    def _rate_limited(self, answer: httpx.Response) -> NoReturn:
        seconds = _wait_seconds(answer.headers)
        wait = "tries again later" if seconds is None else f"asks to wait {seconds} s"
        hint = "" if self._token is not None else "; a token has a limit of its own"
        raise TransientModelError(
            Reason.HUB_RATE_LIMITED,
            f"{self.base} answers 429, too many requests from this address, and {wait}{hint}",
            retry_after_seconds=seconds,
        )

    def _unavailable(self, message: str) -> NoReturn:
        raise TransientModelError(Reason.MODEL_FACTS_UNAVAILABLE, message)


def _wait_seconds(headers: httpx.Headers) -> int | None:
    """What ``Retry-After`` or the window of ``RateLimit`` says, from 1 to a day."""
    after = headers.get("retry-after", "")
    window = _WINDOW.search(headers.get("ratelimit", "")[:512])
    if after.isascii() and after.isdecimal() and len(after) < 10:
        seconds = int(after)
    elif window is not None:
        seconds = int(window.group(1))
    else:
        return None
    return min(max(1, seconds), _MAX_WAIT_SECONDS)
