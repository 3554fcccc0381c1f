"""Which places of source files are asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rockfill.evaluation.places import places

FILES = {
    "a.py": '''"""A docstring."""

import os


def size(path):
    # how large
    return os.stat(path).st_size

}
''',
    "b.py": "for number in range(10):\n    print(number)\n",
}


def test_both_kinds_are_asked_for_and_comments_are_not() -> None:
    found = places(FILES, 100, seed=0)
    assert {place.kind for place in found} == {"line", "rest"}
    answers = {place.answer for place in found if place.kind == "line"}
    assert answers <= {
        "import os",
        "def size(path):",
        "return os.stat(path).st_size",
        "for number in range(10):",
        "print(number)",
    }


def test_a_whole_line_is_asked_for_after_its_indentation() -> None:
    found = places({"b.py": FILES["b.py"]}, 1, seed=1)
    assert [(place.prefix, place.answer, place.suffix) for place in found] in (
        [("", "for number in range(10):", "\n    print(number)\n")],
        [("for number in range(10):\n    ", "print(number)", "\n")],
    )


@given(text=st.text("ab_ ()=\n.#\t", max_size=200), seed=st.integers(0, 99))
def test_the_answer_fits_between_prefix_and_suffix(text: str, seed: int) -> None:
    found = places({"file": text}, 5, seed)
    for place in found:
        line = text.split("\n")[place.line - 1]
        whole = place.prefix + place.answer + place.suffix
        assert whole == text or whole == text.replace(line, line.rstrip(), 1) or line != line.rstrip()
        assert place.answer.strip()
        assert place.answer == place.answer.rstrip()
        cursor = place.prefix.rpartition("\n")[2]
        assert line.startswith(cursor + place.answer)
        assert (place.kind == "line") == (not cursor.strip())
    assert found == places({"file": text}, 5, seed)
    assert len({(place.line, place.kind) for place in found}) == len(found) <= 5


def test_the_seed_chooses() -> None:
    text = "\n".join(f"value_{number} = compute({number})" for number in range(50))
    assert places({"f": text}, 5, seed=1) != places({"f": text}, 5, seed=2)
