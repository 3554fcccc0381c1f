"""Whatever tokens come, and however characters are cut among them: the text is exactly what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockfill.compat.runtime import Generation
from tests.fakes.rkllm_simulator import Control, Token
from tests.fakes.vocabulary import SPECIAL

from .sessions import generate, open_session

if TYPE_CHECKING:
    from pathlib import Path

# Five generations together: a thousand scripts
EXAMPLES = 250

EOS = SPECIAL.index("<eos>")
STOP = 60_000
STOP_TEXTS = ("<|file_separator|>", "\n\nSTOP", "é")
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")  # C strings end at a NUL


@dataclass(frozen=True, slots=True)
class Case:
    """A script, how the library behaves with it, and how the run is asked for."""

    script: list[Token]
    waiting: str
    unending: bool
    abort: str
    finish_on_abort: bool
    max_tokens: int
    aborted_at: int | None
    late_abort: bool  # one from the run before, which the library may remember

    @property
    def keys(self) -> dict[str, str | int | list[Token]]:
        return {
            "script": self.script,
            "waiting": self.waiting,
            "eos": "never" if self.unending else "stop",
            "eos_id": EOS,
            "abort": self.abort,
            "finish_on_abort": int(self.finish_on_abort),
        }

    @property
    def expected(self) -> tuple[str, str, int]:
        """Text, reason of the end, number of tokens."""
        said, count = _Said(holds=self.waiting == "hold"), 0
        for token in self.script:
            if count == self.aborted_at:
                return said.text, "aborted", count
            if token.id == STOP:
                return said.text, "stop", count
            if token.text and not token.special:
                said.add(token.text)
            count += 1
            if count == self.max_tokens:
                return said.text, "length", count
        return said.text, "aborted" if count == self.aborted_at else "stop", count  # asked once more at the end


class _Said:
    """Text of which only the last character can be cut; `holds` is a library that keeps the token of a cut one."""

    def __init__(self, *, holds: bool) -> None:
        self._holds = holds
        self._data = self._kept = b""

    def add(self, data: bytes) -> None:
        self._kept += data
        complete = _text(self._data + self._kept).encode() == self._data + self._kept
        if complete or not self._holds:
            self._data, self._kept = self._data + self._kept, b""

    @property
    def text(self) -> str:
        return _text(self._data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "ignore")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    data = draw(st.text(CHARACTERS, max_size=20)).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    script = [
        Token(50_000 + number, data[start:end])
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(data)], strict=True))
    ]
    others = st.sampled_from([Token(49_000, None), Token(49_001, b"<hidden>", special=True)])
    for token in draw(st.lists(others, max_size=4)):
        script.insert(draw(st.integers(0, len(script))), token)
    if draw(st.booleans()):
        stop = Token(STOP, draw(st.sampled_from(STOP_TEXTS)).encode(), special=draw(st.booleans()))
        script.insert(draw(st.integers(0, len(script))), stop)
    abort = draw(st.sampled_from(["ok", "sticky", "ignored"]))
    late_abort = draw(st.booleans())
    return Case(
        script,
        waiting=draw(st.sampled_from(["hold", "partial"])),
        unending=abort != "ignored" and draw(st.booleans()),
        abort=abort,
        finish_on_abort=draw(st.booleans()),
        max_tokens=draw(st.integers(1, 30)),
        aborted_at=None if late_abort else draw(st.none() | st.integers(0, 12)),
        late_abort=late_abort,
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("generation", list(Generation))
def test_a_completion_is_the_text_of_its_tokens_up_to_its_end_and_nothing_else(
    control: Control, tmp_path: Path, generation: Generation
) -> None:
    """No text of a stop token, no half character, nothing of the run before."""
    session = open_session(tmp_path / "model", generation)

    @settings(max_examples=EXAMPLES)
    @given(cases())
    def check(case: Case) -> None:
        control.set(**case.keys)
        if case.late_abort:
            session._running = True  # the other thread saw the run before, which has ended by now
            session.abort()
            session._running = False
        asked = iter(range(1000))
        heard = generate(
            session,
            max_tokens=case.max_tokens,
            stop_ids=frozenset({STOP}),
            aborted=lambda: case.aborted_at is not None and next(asked) >= case.aborted_at,
        )
        assert heard.run is not None
        assert (heard.text, heard.run.finish, heard.run.generated_tokens) == case.expected
        assert "" not in heard.texts
        assert heard.tokens <= heard.run.generated_tokens

    check()
    session.close()
