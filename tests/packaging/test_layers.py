"""The package keeps the layer rule, and the checker sees each way of breaking it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.layers import violations

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_keeps_the_layer_rule() -> None:
    assert violations(ROOT / "daemon" / "rockfill") == []


def _check(root: Path, files: dict[str, str]) -> list[str]:
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return violations(root)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("engine/machine.py", "from rockfill.errors import Problem"),
        ("engine/supervisor.py", "from rockfill.engine import machine\nfrom .machine import step\nimport asyncio"),
        ("decode.py", "from rockfill.errors import Code"),
        ("api/pages.py", "from rockfill import __version__, paths\nfrom aiohttp import web"),
        ("api/ws/dispatch.py", "from .. import pages\nfrom ...completion import service\nfrom .connection import Peer"),
        ("__main__.py", "import rockfill.cli"),
        ("fim/families.py", "import rockfill"),
        ("worker.py", "import ctypes\ndef load():\n    from rockfill.llama import session"),
        ("rkllm/session.py", "from rockfill.rkllm.abi import Library\nimport ctypes.util"),
        ("client/__init__.py", "import aiohttp\nfrom rockfill.snapshots import EngineSnapshot"),
        ("hardware/board.py", "MODEL = '/proc/device-tree/model'"),
        ("doctor/checks.py", '"""/proc/self is not read."""\nADVICE = "see /sys/kernel"\nUNIT = "/systemd"'),
        ("fim/manage.py", "import asyncio_like"),
        ("__init__.py", "__version__ = '1'"),
    ],
)
def test_what_keeps_the_rule_passes(tmp_path: Path, name: str, source: str) -> None:
    assert _check(tmp_path, {name: source}) == []


@pytest.mark.parametrize(
    ("name", "source", "breach"),
    [
        ("engine/machine.py", "import rockfill.api.server", "1: imports api, which is above it"),
        ("engine/machine.py", "from rockfill import app", "1: imports app, which is above it"),
        ("engine/machine.py", "from ..completion.cache import Cache", "1: imports completion, which is above it"),
        ("engine/__init__.py", "from ..completion import cache", "1: imports completion, which is above it"),
        ("engine/machine.py", "def f():\n    import rockfill.cli", "2: imports cli, which is above it"),
        (
            "fim/families.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rockfill.link import codec",
            "3: imports its sibling link",
        ),
        ("paths.py", "from . import config", "1: imports its sibling config"),
        ("errors.py", "from rockfill.decode import decode", "1: imports decode, which is above it"),
        ("client/__init__.py", "from rockfill.hardware import board", "1: client may not import hardware"),
        ("__init__.py", "from rockfill.errors import Problem", "1: the package itself imports errors"),
        ("__init__.py", "from .errors import Problem", "1: the package itself imports errors"),
        ("engine/process.py", "import ctypes", "1: only rkllm, worker may import ctypes"),
        ("engine/process.py", "from ctypes.util import find_library", "1: only rkllm, worker may import ctypes"),
        ("completion/service.py", "from aiohttp import web", "1: only api, app, cli, client, hub may import aiohttp"),
        ("app.py", "from rockfill.llama.session import LlamaSession", "1: only worker may import rockfill.llama"),
        ("app.py", "from rockfill import rkllm", "1: only worker may import rockfill.rkllm"),
        ("engine/machine.py", "import asyncio", "1: a pure module imports asyncio"),
        ("link/codec.py", "from asyncio import Queue", "1: a pure module imports asyncio"),
        ("clocks/lease.py", "GOVERNOR = '/sys/class/devfreq'", "1: only hardware opens /sys/class/devfreq"),
        ("engine/process.py", "def f(pid):\n    return f'/proc/{pid}/stat'", "2: only hardware opens /proc/"),
        ("engine/process.py", "ROOT = '/proc'", "1: only hardware opens /proc"),
        ("engine/utils.py", "", "1: utils says nothing of what is in it"),
        ("engine/helpers/files.py", "", "1: helpers says nothing of what is in it"),
        ("sound.py", "", "1: sound has no place in the table of layers"),
        ("app.py", "import rockfill.sound", "1: imports rockfill.sound, which has no place in the table of layers"),
    ],
)
def test_each_way_of_breaking_the_rule_is_seen(tmp_path: Path, name: str, source: str, breach: str) -> None:
    assert _check(tmp_path, {name: source}) == [f"{name}:{breach}"]
