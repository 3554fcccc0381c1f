"""What Prometheus is told, read by the parser of its own client library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from rockfill.api.metrics import Family, machine
from rockfill.hardware.sampler import KEYS, Sampler
from rockfill.telemetry.service import Stats
from tests.fakes.boards import armbian_vendor

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ENGINE = {"engine.tokens_per_second": 10.5, "engine.first_token_s": None, "queue.depth": 0}
# https://prometheus.io/docs/practices/naming: base units, and what kind of a thing it is at the end
UNITS = re.compile(r"_(seconds|bytes|ratio|hertz|celsius|requests|tokens_per_second|failing)$")


def parsed(families: list[Family]) -> dict[str, dict[tuple[str, ...], float]]:
    """By name: the values of the labels → the value."""
    text = "".join(family.text() for family in families)
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


def test_a_boards_figures_in_base_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    tree = armbian_vendor(tmp_path)
    sampler = Sampler(tmp_path)
    sampler.sample(None, None)
    tree.jiffies([(1050, 9050)] * 8)
    taken = sampler.sample(None, None)
    sampler.close()
    found = parsed(machine(Stats(0.0, {**taken.figures, **ENGINE}, sampler.cluster_names, {"a": "b"})))
    assert found["rockfill_npu_load_ratio"] == {("0",): 0.42, ("1",): 0.07, ("2",): 0.0}
    assert found["rockfill_clock_frequency_hertz"][("npu",)] == 1e9
    assert found["rockfill_clock_frequency_hertz"][("big1",)] == 408e6
    assert found["rockfill_cpu_load_ratio"] == {(): 0.5}
    assert found["rockfill_cpu_cluster_load_ratio"] == {("little",): 0.5, ("big0",): 0.5, ("big1",): 0.5}
    assert found["rockfill_temperature_celsius"][("npu-thermal",)] == 46.3
    assert found["rockfill_memory_size_bytes"] == {(): 15_960 * 2**20}
    assert found["rockfill_engine_tokens_per_second"] == {(): 10.5}
    assert found["rockfill_sensors_failing"] == {(): 1}
    assert "rockfill_engine_first_token_seconds" not in found  # not measured yet, so not told
    assert all(UNITS.search(name) for name in found), found.keys()


def test_what_is_not_known_is_not_told() -> None:
    nothing: dict[str, None] = dict.fromkeys([*KEYS, *ENGINE])
    assert parsed(machine(Stats(0.0, {**nothing}, (), {}))) == {"rockfill_sensors_failing": {(): 0}}


def test_labels_may_hold_anything() -> None:
    family = Family("x_celsius", "gauge", "Help.")
    for name in ('a"b', "a\\b", "a\nb", "ä"):
        family.add(1.5, zone=name)
    assert set(parsed([family])["x_celsius"]) == {('a"b',), ("a\\b",), ("a\nb",), ("ä",)}
