from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.access.tokens import EVERYTHING, NOTHING, SESSION_S, Access

TOKEN = "a-token-of-some-length"
NOW_S = 1_800_000_000.0
ACCESS = Access(TOKEN)
SESSION = ACCESS.new_session(NOW_S)


def test_the_primary_token_is_good_for_everything() -> None:
    assert ACCESS.scopes_of_token(TOKEN) == EVERYTHING


@pytest.mark.parametrize("token", ["", " ", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), f" {TOKEN}", "tökén", "\udcff"])
def test_any_other_is_good_for_nothing(token: str) -> None:
    assert ACCESS.scopes_of_token(token) == NOTHING


def test_without_a_primary_token_no_token_is_good_for_anything() -> None:
    """An empty one must not open the door to whoever sends `Bearer` with nothing after it."""
    assert Access("").scopes_of_token("") == NOTHING


def test_a_session_is_good_until_it_ends() -> None:
    assert ACCESS.scopes_of_session(SESSION, NOW_S) == EVERYTHING
    assert ACCESS.scopes_of_session(SESSION, NOW_S + SESSION_S) == EVERYTHING
    assert ACCESS.scopes_of_session(SESSION, NOW_S + SESSION_S + 1) == NOTHING


def test_a_session_survives_a_restart_and_ends_with_the_token() -> None:
    assert Access(TOKEN).scopes_of_session(SESSION, NOW_S) == EVERYTHING
    assert Access(TOKEN + "2").scopes_of_session(SESSION, NOW_S) == NOTHING


def test_a_session_does_not_give_the_token_away() -> None:
    assert TOKEN not in SESSION
    assert ACCESS.scopes_of_token(SESSION) == NOTHING


def test_a_later_end_can_not_be_written_into_it() -> None:
    expiry, _, mac = SESSION.partition(".")
    assert ACCESS.scopes_of_session(f"{int(expiry) + 1}.{mac}", NOW_S) == NOTHING


@pytest.mark.parametrize(
    "cookie", ["", ".", "x", "9999999999", "9999999999.", f"{SESSION}x", f"x{SESSION}", "é.é", "\udcff.0"]
)
def test_what_was_not_made_here_is_good_for_nothing(cookie: str) -> None:
    assert ACCESS.scopes_of_session(cookie, NOW_S) == NOTHING


@given(st.integers(0, len(SESSION) - 1), st.characters(codec="ascii"))
def test_a_changed_character_anywhere_ends_it(at: int, character: str) -> None:
    changed = SESSION[:at] + character + SESSION[at + 1 :]
    assert ACCESS.scopes_of_session(changed, NOW_S) == (EVERYTHING if changed == SESSION else NOTHING)
