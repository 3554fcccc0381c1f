from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rockfill.errors import Code, Problem
from rockfill.store.shelf import Shelf, check_file_name, slug_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILES = {"files": [{"name": "weights", "size_bytes": 1}]}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/x",
        "a\0b",
        "a\nb",
        ".hidden",
        "x" * 201,
        "manifest.json",
        "plan.json",
        "a b",
        "é",
    ],
)
def test_names_that_are_no_plain_files_are_refused(name: str) -> None:
    with pytest.raises(Problem) as caught:
        check_file_name(name)
    assert caught.value.code is Code.INVALID_VALUE


@pytest.mark.parametrize("name", ["a", "model-w8a8_g128-opt-0-hybrid-ratio-1.0.rkllm", "x" * 200, "_a+b=c@d.gguf"])
def test_names_of_files_are_taken(name: str) -> None:
    assert check_file_name(name) == name


@pytest.mark.parametrize(
    ("name", "slug"),
    [("codegemma:2b", "codegemma-2b"), ("../../etc", "etc"), ("..", "model"), ("", "model"), ("A/B\0C", "a-b-c")],
)
def test_a_directory_gets_a_plain_name(name: str, slug: str) -> None:
    assert slug_of(name) == slug
    assert len(slug_of("x" * 1000)) <= 120


def gather(shelf: Shelf, content: str = "x") -> None:
    (shelf.staging("thing") / "weights").write_text(content)


def test_what_gathers_is_not_seen_until_it_is_whole(shelf: Shelf) -> None:
    gather(shelf)
    shelf.keep_plan("thing", {"a": 1})
    assert [path.name for path in shelf.root.iterdir()] == [".partial"]
    assert shelf.plans() == {"thing": {"a": 1}}
    place = shelf.publish("thing", FILES)
    assert {path.name for path in place.iterdir()} == {"weights", "manifest.json"}
    assert shelf.plans() == {}
    assert shelf.is_removable(place)


def test_a_later_one_takes_the_place_of_ours_and_of_nothing_else(shelf: Shelf) -> None:
    gather(shelf)
    place = shelf.publish("thing", FILES)
    gather(shelf, "y")
    shelf.publish("thing", FILES)
    assert (place / "weights").read_text() == "y"
    (place / "notes").write_text("mine")
    gather(shelf, "z")
    shelf.keep_plan("thing", {"a": 1})
    with pytest.raises(Problem) as caught:
        shelf.publish("thing", FILES)
    assert caught.value.code is Code.NOT_REMOVABLE
    assert (place / "notes").read_text() == "mine"
    assert (shelf.staging("thing") / "weights").read_text() == "z", "and what came is kept"
    assert shelf.plans() == {"thing": {"a": 1}}
    assert (place / "weights").read_text() == "y", "and so is what was there"
    assert shelf.is_removable(place)


def test_it_takes_no_place_that_it_may_not_have(shelf: Shelf) -> None:
    gather(shelf)
    shelf.publish("model", {**FILES, "source": "there"}, gathered="thing")
    (shelf.staging("~elsewhere") / "weights").write_text("y")
    seen: list[object] = []

    def never(there: Mapping[str, object]) -> bool:
        seen.append(there["source"])
        return False

    with pytest.raises(Problem) as caught:
        shelf.publish("model", FILES, gathered="~elsewhere", over=never)
    assert caught.value.code is Code.NOT_REMOVABLE
    assert seen == ["there"]
    assert (shelf.root / "model" / "weights").read_text() == "x"
    shelf.publish("model", FILES, gathered="~elsewhere")  # it may
    assert (shelf.root / "model" / "weights").read_text() == "y"


def test_a_manifest_that_names_files_elsewhere_removes_nothing(shelf: Shelf) -> None:
    gather(shelf)
    shelf.publish("model", FILES, gathered="thing")
    (shelf.root / "other").write_text("not ours")
    bad = {"files": [{"name": "weights", "size_bytes": 1}, {"name": "../other", "size_bytes": 1}]}
    (shelf.root / "model" / "manifest.json").write_text(json.dumps(bad))
    assert not shelf.is_removable(shelf.root / "model")
    with pytest.raises(Problem) as caught:
        shelf.remove(shelf.root / "model")
    assert caught.value.code is Code.NOT_REMOVABLE
    assert sorted(entry.name for entry in (shelf.root / "model").iterdir()) == ["manifest.json", "weights"]
    assert (shelf.root / "other").exists()


def test_nothing_outside_is_removed(shelf: Shelf, tmp_path: Path) -> None:
    gather(shelf)
    place = shelf.publish("thing", FILES)
    linked = shelf.root / "link"
    linked.symlink_to(place)
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    for directory in (linked, elsewhere, shelf.root, shelf.root / "none"):
        assert not shelf.is_removable(directory)
    assert (elsewhere / "weights").exists()


def test_too_little_room_is_told_in_figures(shelf: Shelf) -> None:
    room_bytes = shelf.room_bytes()
    shelf.check_room("it", 0)
    with pytest.raises(Problem) as caught:
        shelf.check_room("it", room_bytes + 10**12)
    assert caught.value.code is Code.DISK_FULL
