"""The holder's view of a lease, over every order of renewals that come through or not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vllm_runtime.agent.lease import Lease


def test_three_renewals_per_lease() -> None:
    lease = Lease(30, asked_at=100)
    assert not lease.renewal_due(109.9)
    assert lease.renewal_due(110)
    assert lease.renewal_timeout_seconds == 5
    lease.renewed(110)
    assert (lease.wake_at, lease.expires_at) == (120, 140)


def test_two_lost_renewals_do_not_lose_it() -> None:
    lease = Lease(30, asked_at=0)
    now = 10.0
    attempts = 0
    while not lease.expired(now):
        assert lease.renewal_due(now)
        attempts += 1
        now += lease.renewal_timeout_seconds
        lease.renewal_failed(now)
        now = lease.wake_at
    assert attempts >= 3
    assert now == 30
    assert not lease.renewal_due(now)


def test_a_renewal_that_was_sent_before_the_last_one_does_not_shorten_it() -> None:
    lease = Lease(30, asked_at=0)
    lease.renewed(20)
    lease.renewed(10)
    assert lease.expires_at == 50


@given(st.floats(0.5, 3600), st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=200))
def test_never_held_longer_than_the_server_may_think(seconds: float, answers: list[tuple[bool, float]]) -> None:
    """Whatever is answered after whatever delay, the holder stops before a lease after its last confirmed sending."""
    lease = Lease(seconds, asked_at=0)
    confirmed = 0.0
    now = 0.0
    for answered, delay in answers:
        now = max(now, lease.wake_at)
        assert now <= confirmed + seconds
        if lease.expired(now):
            return
        sent = now
        now += delay * lease.renewal_timeout_seconds
        if answered:
            lease.renewed(sent)
            confirmed = sent
        else:
            now = sent + lease.renewal_timeout_seconds
            lease.renewal_failed(now)
        if lease.expired(now):
            assert now >= confirmed + seconds
            return
