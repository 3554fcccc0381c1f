"""What ``make test-arm64`` runs. The name keeps it out of ``make test``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.arm64.root import CHECKOUT, NotHere, prepare
from tests.not_run import not_run

# Python is some 20 times slower here: what limits a test natively would only measure that
INNER = """
import platform, sys
import pytest
assert platform.machine() == "aarch64"
sys.executable = sys.argv[1]  # not qemu's own idea of it: what tests start has to go through qemu again
class Patience:
    def pytest_collection_modifyitems(self, items):
        for item in items:
            item.add_marker(pytest.mark.timeout(300), append=False)
sys.exit(pytest.main(sys.argv[2:], plugins=[Patience()]))
"""
PLUGINS = ("pytest_timeout", "pytest_asyncio.plugin")
TESTS = ("tests/unit/rkllm", "tests/unit/compat")


@pytest.mark.timeout(3600)  # nine minutes on a machine of its own
def test_the_rkllm_binding_on_arm64() -> None:
    try:
        arm64 = prepare()
    except NotHere as reason:
        not_run("arm64", str(reason))
    paths = [*arm64.paths, CHECKOUT / "daemon", CHECKOUT]
    environment = {
        **os.environ,
        "CC": "aarch64-linux-gnu-gcc",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    options = [option for plugin in PLUGINS for option in ("-p", plugin)]
    options += ["-p", "no:cacheprovider", "--durations=5", "--quiet"]
    command = [str(arm64.python), "-c", INNER, str(arm64.python), *options, *TESTS]
    inner = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=sys.stderr.fileno(), check=False)
    assert inner.returncode == 0
