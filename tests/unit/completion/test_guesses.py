"""Which requests nobody waits for."""

from __future__ import annotations

import pytest

from rockfill.completion.guesses import AT_ONCE_S, Guesses

LATER = 1000.0


def told(prefix: str = "y = ", text: str = "f(x)", suffix: str = "\n", predict_s: float | None = 0.25) -> Guesses:
    guesses = Guesses()
    guesses.offered("vim", prefix, text, suffix, predict_s=predict_s, at_s=0)
    return guesses


@pytest.mark.parametrize(
    ("prefix", "predict_s", "at_s", "guess"),
    [
        ("y = f(x)", 1.0, LATER, True),  # llama.vim: a guess may take longer
        ("y = f(x)", 0.25, LATER, False),  # the offer was taken
        ("y = f(x)", 0.25, AT_ONCE_S / 2, True),  # llama.vscode: nobody is so fast
        ("y = f(x)", None, LATER, False),
        ("y = f(", 1.0, 0, False),  # typed along
        ("y = f(x) + ", 1.0, 0, False),
        ("", 1.0, 0, False),
    ],
)
def test_it_is_one_at_the_end_of_an_offer_before_anybody_took_it(
    prefix: str, predict_s: float | None, at_s: float, guess: bool
) -> None:
    assert told().is_guess("vim", prefix, predict_s=predict_s, at_s=at_s) is guess
    assert not told().is_guess("another", prefix, predict_s=predict_s, at_s=at_s)


@pytest.mark.parametrize(
    ("guesses", "prefix"),
    [
        (told("one\n" * 300 + "y = "), "one\n" * 200 + "y = f(x)"),  # the window has slid
        (told(suffix=")\nmore"), "y = f(x))"),  # llama.vim takes the rest of the line along
        (told(text="f(x)\n"), "y = f(x)"),  # and leaves line ends out
        (told(text="f(\n    x)\n"), "y = f(\n    x)"),
    ],
)
def test_editors_write_the_same_document_in_their_own_ways(guesses: Guesses, prefix: str) -> None:
    assert guesses.is_guess("vim", prefix, predict_s=1, at_s=LATER)


def test_an_empty_offer_is_none() -> None:
    assert not told(text=" \n").is_guess("vim", "y = ", predict_s=1, at_s=0)


def test_of_many_clients_the_last_ones_are_remembered() -> None:
    guesses = told()
    for number in range(300):
        guesses.offered(str(number), "y = ", "1", "", predict_s=0.25, at_s=0)
    assert not guesses.is_guess("vim", "y = f(x)", predict_s=1, at_s=LATER)
    assert guesses.is_guess("299", "y = 1", predict_s=1, at_s=LATER)
