from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.access.tokens import EVERYTHING, SESSION_S, Access, Scope, Visitor
from rockfill.errors import Code, Problem

TOKEN = "a-token-of-some-length"
NOW_S = 1_800_000_000.0
ACCESS = Access(TOKEN)
ANYBODY = Visitor(EVERYTHING)
SESSION = ACCESS.new_session(ANYBODY, NOW_S)


def test_the_primary_token_is_good_for_everything() -> None:
    assert ACCESS.visitor(TOKEN) == ANYBODY


@pytest.mark.parametrize("token", ["", " ", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), f" {TOKEN}", "tökén", "\udcff"])
def test_any_other_is_good_for_nothing(token: str) -> None:
    assert ACCESS.visitor(token) is None


def test_without_a_primary_token_no_token_is_good_for_anything() -> None:
    """An empty one must not open the door to whoever sends `Bearer` with nothing after it."""
    assert Access("").visitor("") is None


def test_a_session_is_good_until_it_ends() -> None:
    assert ACCESS.visitor_of_session(SESSION, NOW_S) == ANYBODY
    assert ACCESS.visitor_of_session(SESSION, NOW_S + SESSION_S) == ANYBODY
    assert ACCESS.visitor_of_session(SESSION, NOW_S + SESSION_S + 1) is None


def test_a_session_survives_a_restart_and_ends_with_the_token() -> None:
    assert Access(TOKEN).visitor_of_session(SESSION, NOW_S) == ANYBODY
    assert Access(TOKEN + "2").visitor_of_session(SESSION, NOW_S) is None


def test_a_session_does_not_give_the_token_away() -> None:
    assert TOKEN not in SESSION
    assert ACCESS.visitor(SESSION) is None


def test_a_later_end_can_not_be_written_into_it() -> None:
    expiry, _, rest = SESSION.partition(".")
    assert ACCESS.visitor_of_session(f"{int(expiry) + 1}.{rest}", NOW_S) is None


@pytest.mark.parametrize(
    "cookie", ["", ".", "x", "9999999999", "9999999999.", f"{SESSION}x", f"x{SESSION}", "é.é", "\udcff.0"]
)
def test_what_was_not_made_here_is_good_for_nothing(cookie: str) -> None:
    assert ACCESS.visitor_of_session(cookie, NOW_S) is None


@given(st.integers(0, len(SESSION) - 1), st.characters(codec="ascii"))
def test_a_changed_character_anywhere_ends_it(at: int, character: str) -> None:
    changed = SESSION[:at] + character + SESSION[at + 1 :]
    assert ACCESS.visitor_of_session(changed, NOW_S) == (ANYBODY if changed == SESSION else None)


def test_a_named_token_is_good_for_its_scopes_until_it_is_revoked() -> None:
    access = Access(TOKEN)
    token = access.add("ha", [Scope.COMPLETE, Scope.READ, Scope.READ], NOW_S)
    visitor = Visitor(frozenset({Scope.READ, Scope.COMPLETE}), "ha")
    assert access.visitor(token) == visitor
    assert access.visitor(TOKEN) == ANYBODY
    revoked: list[str] = []
    access.when_revoked(revoked.append)
    access.revoke("ha")
    assert access.visitor(token) is None
    assert revoked == ["ha"]


def test_what_is_stored_brings_the_tokens_back_but_holds_none() -> None:
    access = Access(TOKEN)
    token = access.add("ha", [Scope.READ], NOW_S)
    assert token not in str(access.stored)
    again = Access(TOKEN, [*access.stored, None, {"name": "x"}, {**access.stored[0], "name": "y", "scopes": ["all"]}])
    assert [named.name for named in again.named] == ["ha"]
    assert again.visitor(token) == Visitor(frozenset({Scope.READ}), "ha")
    assert again.visitor(access.stored[0]["sha256"]) is None


def test_a_session_is_good_for_no_more_than_its_token_and_ends_with_it() -> None:
    access = Access(TOKEN)
    visitor = access.visitor(access.add("ha", [Scope.READ], NOW_S))
    assert visitor is not None
    session = access.new_session(visitor, NOW_S)
    assert access.visitor_of_session(session, NOW_S) == visitor
    expiry, _, mac = session.split(".")
    assert access.visitor_of_session(f"{expiry}..{mac}", NOW_S) is None
    access.revoke("ha")
    assert access.visitor_of_session(session, NOW_S) is None
    with pytest.raises(Problem) as caught:  # a request that was under way meanwhile gets none either
        access.new_session(visitor, NOW_S)
    assert caught.value.code is Code.UNAUTHORIZED
    access.add("ha", [Scope.ADMIN], NOW_S)
    assert access.visitor_of_session(session, NOW_S) is None


@pytest.mark.parametrize("name", ["", ".", "-x", "a b", "a/b", "../x", "é", "x" * 65, "a\n"])
def test_a_name_is_of_harmless_characters(name: str) -> None:
    with pytest.raises(Problem) as caught:
        Access(TOKEN).add(name, [Scope.READ], NOW_S)
    assert caught.value.code is Code.INVALID_VALUE


def test_a_name_is_given_once_and_never_without_scopes() -> None:
    access = Access(TOKEN)
    access.add("ha", [Scope.READ], NOW_S)
    for name, scopes in (("ha", [Scope.READ]), ("none", [])):
        with pytest.raises(Problem):
            access.add(name, scopes, NOW_S)
    with pytest.raises(Problem) as caught:
        access.revoke("nobody")
    assert caught.value.code is Code.NOT_FOUND
    assert [named.name for named in access.named] == ["ha"]
