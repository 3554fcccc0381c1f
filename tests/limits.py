"""A pytest plugin: unit and protocol tests have 10 s, the rest what pyproject.toml gives; a test's own limit stands."""

from __future__ import annotations

import pytest

QUICK_FOLDERS = {"unit", "protocol"}
QUICK_TIMEOUT_S = 10


def pytest_itemcollected(item: pytest.Item) -> None:
    quick = QUICK_FOLDERS & set(item.path.relative_to(item.config.rootpath).parts)
    if quick and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(QUICK_TIMEOUT_S))
