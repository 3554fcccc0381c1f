"""The rules that the test suite itself stands on: leaks fail, nothing is left untested in silence, CI says no."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

LEAKS = """
import asyncio, os, socket, subprocess
import pytest
from rockfill import sleepy

kept = []

def test_leaks_a_file():
    kept.append(os.open(os.devnull, os.O_RDONLY))

def test_leaks_a_socket():
    kept.append(socket.socket())

def test_leaks_a_child():
    kept.append(subprocess.Popen(["sleep", "60"]))

def test_leaks_a_child_that_ended():
    kept.append(os.posix_spawn("/bin/true", ["true"], {}))
    os.waitid(os.P_PID, kept[-1], os.WEXITED | os.WNOWAIT)

async def test_leaks_a_task():
    kept.append(asyncio.create_task(asyncio.sleep(60)))

async def test_leaks_a_server():
    kept.append(await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0))

async def test_blocks_the_loop():
    sleepy.nap()

@pytest.fixture
async def background():
    task = asyncio.create_task(asyncio.sleep(60))
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

async def test_is_tidy(background, tmp_path):
    (tmp_path / "file").write_text("a test may write in the loop")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    child = await asyncio.create_subprocess_exec("/bin/true")
    await child.wait()
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.to_thread(sleepy.nap)

def test_is_tidy_without_a_loop(tmp_path):
    subprocess.run(["/bin/true"], check=True)
    with socket.socket(), (tmp_path / "file").open("w"):
        sleepy.nap()
"""


def _run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, plugin: str, *options: str) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}:{ROOT}")
    pytester.makeini(INI)
    return pytester.runpytest_subprocess("-p", plugin, "-rA", *options)


def test_a_test_that_leaks_or_blocks_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(
        **{"rockfill/__init__": "", "rockfill/sleepy": "import time\ndef nap():\n    time.sleep(0.001)"}
    )
    pytester.makepyfile(test_leaks=LEAKS)
    result = _run(pytester, monkeypatch, "tests.leaks")
    for name, left in {
        "a_file": "left behind: file descriptor *: /dev/null",
        "a_socket": "left behind: file descriptor *: socket:*",
        "a_child": "left behind: child process *",
        "a_child_that_ended": "left behind: child process *: ended, but never waited for",
        "a_task": "left behind: <Task pending *",
        "a_server": "left behind: file descriptor *: socket:*",
    }.items():
        result.stdout.fnmatch_lines([f"_* ERROR at teardown of test_leaks_{name} _*", left], consecutive=True)
    result.stdout.fnmatch_lines(["_* test_blocks_the_loop _*", "E *BlockingError: Blocking call to time.sleep"])
    # Those that leak have passed before their leak is seen.
    result.assert_outcomes(passed=8, errors=6, failed=1)


LIMIT = """
def test_limit(request):
    marker = request.node.get_closest_marker("timeout")
    assert (marker.args[0] if marker else None) == {expected}
"""


def test_unit_and_protocol_tests_have_the_shorter_limit(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, expected in {"unit/fim": 60, "protocol": 60, "system": None}.items():
        path = pytester.path / folder / f"test_{expected}.py"
        path.parent.mkdir(parents=True)
        path.write_text(LIMIT.format(expected=expected))
    own = pytester.path / "unit" / "test_own.py"
    own.write_text("import pytest\npytestmark = pytest.mark.timeout(3)\n" + LIMIT.format(expected=3))
    _run(pytester, monkeypatch, "tests.limits", "--import-mode=importlib").assert_outcomes(passed=4)


SKIPS = """
import pytest
from tests.not_run import not_run

@pytest.mark.parametrize("page", [1, 2])
def test_in_a_browser(page):
    not_run("browser", "chromium is not installed, nor can it be")

def test_skipped():
    pytest.skip("no reason is too small")

@pytest.mark.skip(reason="by a mark")
def test_marked():
    pass

@pytest.mark.xfail
def test_known_to_fail():
    assert False

def test_passes():
    pass
"""
MODULE = """
from tests.not_run import not_run
not_run("arm64", "an x86-64 machine")
"""


def test_what_was_not_run_is_said_last_and_once(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(test_skips=SKIPS, test_module=MODULE)
    result = _run(pytester, monkeypatch, "tests.not_run", "--not-run-file=build/not-run")
    result.assert_outcomes(passed=1, skipped=5, xfailed=1)
    assert result.outlines[-5].startswith("=")  # pytest's own last line
    assert result.outlines[-4:] == [
        "NOT RUN: arm64, an x86-64 machine",
        "NOT RUN: browser, chromium is not installed, nor can it be",
        "NOT RUN: test_skips.py::test_marked, by a mark",
        "NOT RUN: test_skips.py::test_skipped, no reason is too small",
    ]
    listed = (pytester.path / "build" / "not-run").read_text().splitlines()
    assert listed == ["arm64", "browser", "test_skips.py::test_marked", "test_skips.py::test_skipped"]


@pytest.mark.parametrize(
    ("recipe", "refused"),
    [
        ("touch build/not-run", None),
        ("printf 'npu\\nqemu\\n' >build/not-run", None),
        ("printf 'npu\\nbrowser\\n' >build/not-run", "browser"),
        ("printf 'np\\n' >build/not-run", "np"),
        ("printf 'npu2\\n' >build/not-run", "npu2"),
        ("true", "build/not-run"),
        ("touch build/not-run; false", "Error 1"),
        ("read line", "Error 1"),
    ],
)
def test_ci_accepts_only_the_known_limits_of_the_host(tmp_path: Path, recipe: str, refused: str | None) -> None:
    for folder in (".ci", "build"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / ".ci" / "host-limits").write_text("# known\n\nnpu   # no board\nqemu\n")
    (tmp_path / "build" / "not-run").write_text("of an earlier run\n")
    (tmp_path / "Makefile").write_text(f"test:\n\t@{recipe}\n")
    done = subprocess.run(
        ["bash", tmp_path / ".ci" / "run"], capture_output=True, text=True, input="line\n", check=False
    )
    assert (done.returncode == 0) == (refused is None), done
    assert (refused or "") in done.stderr
