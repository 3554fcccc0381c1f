"""A pytest plugin: what this machine could not test is said last, one line each, and never lost among the passed.

`not_run(what, why)` ends a test, or at module level a whole module, as not run: `what` is the name that
`.ci/host-limits` may list ("browser"), `why` the reason on this machine. A plain skip counts likewise, with the test's
id as `what`. `--not-run-file` writes each `what` to a file, one a line, and writes it when there is none, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

_MARK = "NOT RUN: "


def not_run(what: str, why: str) -> NoReturn:
    """End the test here because this machine can't run it; `what` must hold no comma."""
    assert "," not in what, what
    pytest.skip(f"{_MARK}{what}, {why}", allow_module_level=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--not-run-file", type=Path, help="where to list what was not run")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Record(config))


class _Record:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: set[tuple[str, str]] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if reason.startswith(_MARK):
            what, _, why = reason.removeprefix(_MARK).partition(", ")
        else:
            what, why = report.nodeid, reason
        self._found.add((what, " ".join(why.split())))

    def pytest_unconfigure(self) -> None:
        """Later than pytest's own last line, so that these are the end of the output."""
        path: Path | None = self._config.getoption("--not-run-file")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{what}\n" for what in sorted({what for what, _ in self._found})))
        for what, why in sorted(self._found):
            self._config.get_terminal_writer().line(f"{_MARK}{what}, {why}")
