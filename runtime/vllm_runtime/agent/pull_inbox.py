"""Pulling one JetStream message at a time.

A message that a pull brings carries its own subject, not that of the request's inbox, so nats-py's ``request`` cannot
match it; its pull subscriptions make an inbox and a queue for each consumer. Here one inbox serves all consumers of a
client, with one pull outstanding.
"""

from __future__ import annotations

import asyncio
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Header

NO_RESPONDERS_STATUS: Final = "503"


class PullInbox:
    """The inbox of one client. A pull that got no answer makes it useless: what comes later is given back."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._subject = client.new_inbox()
        self._subscription: Subscription | None = None
        self._waiting: asyncio.Future[Msg] | None = None
        self.usable = True

    async def open(self) -> None:
        """Subscribe."""
        self._subscription = await self.client.subscribe(self._subject, cb=self._on_message)

    async def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def pull(self, subject: str, payload: bytes, timeout_seconds: float) -> Msg | None:
        """One message, or None when the server says that there is none.

        Raises:
            nats.errors.NoRespondersError: no such consumer.
            TimeoutError: no answer.
        """
        if not self.usable or self._waiting is not None:
            raise RuntimeError("one pull at a time, and none after one that got no answer")
        self._waiting = asyncio.get_running_loop().create_future()
        answered = False
        try:
            await self.client.publish(subject, payload, reply=self._subject)
            async with asyncio.timeout(timeout_seconds):
                message = await self._waiting
            answered = True
        finally:
            self.usable = answered
            self._waiting = None
        if message.reply:
            return message
        if (message.headers or {}).get(Header.STATUS) == NO_RESPONDERS_STATUS:
            raise nats.errors.NoRespondersError
        return None  # 404 no messages, 408, 409: too many leased, paused, consumer just deleted

    async def _on_message(self, message: Msg) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(message)
        elif message.reply:
            await message.nak()
