"""The models on the disk, read in threads while they change."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from rockfill.store import models as models_module
from rockfill.store.models import MANIFEST, ModelStore, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from rockfill.snapshots import Target
    from rockfill.store.models import Manifest


def install(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / MANIFEST).write_text(json.dumps({"name": name, "engine": "llama", "file": "x.gguf"}))


def test_who_reads_the_directories_later_knows_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began before a model came must not be the last to say what there is."""
    models = ModelStore([tmp_path])
    read, has_read, go_on = models._read, threading.Event(), threading.Event()

    def slowly() -> list[Target]:
        found = read()
        if not has_read.is_set():
            has_read.set()
            go_on.wait()
        return found

    monkeypatch.setattr(models, "_read", slowly)
    threads = [threading.Thread(target=models.read_again) for _ in range(2)]
    threads[0].start()
    has_read.wait()
    install(tmp_path, "came")
    threads[1].start()
    threads[1].join(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert [target.name for target in models.targets] == ["came"]


def test_what_is_chosen_while_the_directories_are_read_stays_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("removed", "other"):
        install(tmp_path, name)
    models = ModelStore([tmp_path])
    removed, other = models.find("removed"), models.find("other")
    models.choose(removed)
    (tmp_path / "removed" / MANIFEST).unlink()

    def choosing() -> list[Target]:
        models.choose(other)
        return []

    monkeypatch.setattr(models, "_read", choosing)
    models.read_again()
    assert models.chosen == models.find("") == other
    assert models.targets == (other,)


def test_a_manifest_that_is_just_being_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "going")
    [target] = ModelStore([tmp_path]).targets
    read = models_module.manifest_at

    def too_late(directory: Path) -> Manifest:
        (directory / MANIFEST).unlink()
        return read(directory)

    monkeypatch.setattr(models_module, "manifest_at", too_late)
    assert manifest_of(target) is None
