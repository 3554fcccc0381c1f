from __future__ import annotations

import pytest

from rockfill.access.logins import FAILURE_FORGOTTEN_S, FREE_FAILURES, LINK_S, MOST_ADDRESSES, MOST_LINKS, Logins
from rockfill.access.tokens import EVERYTHING, Access, Scope, Visitor
from rockfill.errors import Code, Problem

TOKEN = "a-token-of-some-length"
HERE, THERE = "192.168.1.7", "192.168.1.8"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logins(clock: Clock) -> Logins:
    return Logins(Access(TOKEN), clock)


def refused(logins: Logins, address: str, token: str) -> int:
    """In how many seconds to come again."""
    with pytest.raises(Problem) as caught:
        logins.attempt(address, token)
    assert caught.value.code is Code.TOO_MANY_REQUESTS
    retry_after_s: int = caught.value.detail["retry_after_s"]
    return retry_after_s


def exhaust(logins: Logins, address: str) -> None:
    for number in range(FREE_FAILURES):
        assert logins.attempt(address, f"wrong {number}") is None


def test_of_ten_thousand_wrong_tokens_few_are_even_looked_at(logins: Logins) -> None:
    looked_at = 0
    for number in range(10_000):
        try:
            assert logins.attempt(HERE, f"wrong {number}") is None
            looked_at += 1
        except Problem as problem:
            assert problem.code is Code.TOO_MANY_REQUESTS  # noqa: PT017 - the first ones are not refused
    assert looked_at == FREE_FAILURES


def test_after_too_many_a_right_token_is_not_looked_at_either_but_elsewhere_it_is(logins: Logins) -> None:
    exhaust(logins, HERE)
    assert refused(logins, HERE, TOKEN) >= 1
    assert logins.attempt(THERE, TOKEN) == Visitor(EVERYTHING)


def test_whoever_was_in_stays_in_whatever_others_beside_try(logins: Logins) -> None:
    assert logins.attempt(HERE, TOKEN) is not None
    exhaust(logins, HERE)
    refused(logins, HERE, "wrong")
    assert logins.attempt(HERE, TOKEN) == Visitor(EVERYTHING)


def test_a_token_that_was_good_and_is_revoked_is_wrong(clock: Clock) -> None:
    access = Access(TOKEN)
    logins = Logins(access, clock)
    token = access.add("ha", [Scope.READ], 0)
    assert logins.attempt(HERE, token) is not None
    access.revoke("ha")
    assert logins.attempt(HERE, token) is None
    exhaust(Logins(access, clock), HERE)


def test_failures_are_forgotten_with_time(logins: Logins, clock: Clock) -> None:
    exhaust(logins, HERE)
    wait_s = refused(logins, HERE, "wrong")
    clock.now_s += wait_s + 0.01
    assert logins.attempt(HERE, "wrong") is None
    refused(logins, HERE, "wrong")
    clock.now_s += FREE_FAILURES * FAILURE_FORGOTTEN_S
    exhaust(logins, HERE)


def test_the_addresses_of_one_ipv6_network_are_one_and_ipv4_in_ipv6_is_ipv4(logins: Logins) -> None:
    exhaust(logins, "2001:db8::1")
    refused(logins, "2001:db8::ffff:2", "wrong")
    assert logins.attempt("2001:db8:0:1::1", "wrong") is None
    exhaust(logins, HERE)
    refused(logins, f"::ffff:{HERE}", "wrong")


def test_what_is_remembered_is_bounded(logins: Logins) -> None:
    for number in range(MOST_ADDRESSES + 100):
        logins.attempt(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "wrong")
    assert len(logins._failures) == MOST_ADDRESSES
    first = logins.new_link("session")
    for _ in range(MOST_LINKS):
        logins.new_link("session")
    assert not logins.use_link(HERE, first)


def test_a_link_is_good_once_and_for_ten_minutes(logins: Logins, clock: Clock) -> None:
    nonce, late = logins.new_link("session"), logins.new_link("session")
    assert logins.use_link(HERE, nonce) == "session"
    assert not logins.use_link(HERE, nonce)
    clock.now_s += LINK_S + 1
    assert not logins.use_link(HERE, late)
    assert LINK_S == 600


def test_links_are_not_guessed_for_ever(logins: Logins) -> None:
    nonce = logins.new_link("session")
    for number in range(FREE_FAILURES):
        assert not logins.use_link(HERE, f"guess {number}")
    with pytest.raises(Problem):
        logins.use_link(HERE, nonce)
    assert logins.use_link(THERE, nonce)
