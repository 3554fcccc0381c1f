"""A pytest plugin: how long a test may take.

Unit and protocol tests have a minute, the rest what pyproject.toml gives; a test's own limit stands. A limit ends what
hangs, and does not judge what is slow: beside other work a test of a second takes ten. There is none on one example of
a property.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

QUICK_FOLDERS = {"unit", "protocol"}
QUICK_TIMEOUT_S = 60

# On top of the profile that hypothesis itself chose: in CI it is one without randomness.
settings.register_profile("rockfill", settings.default, deadline=None)
settings.load_profile("rockfill")


def pytest_itemcollected(item: pytest.Item) -> None:
    quick = QUICK_FOLDERS & set(item.path.relative_to(item.config.rootpath).parts)
    if quick and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(QUICK_TIMEOUT_S))
