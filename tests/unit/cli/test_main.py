"""Arguments and exit statuses of the command line."""

from __future__ import annotations

import argparse
import json
import socket
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

import rockfill
from rockfill.cli.main import EXIT_STATUS, main, parser
from rockfill.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.appliance import ScriptedAppliance


@pytest.fixture(autouse=True)
def nobody_s_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ROCKFILL_URL", "ROCKFILL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROCKFILL_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def closed_url() -> Iterator[str]:
    """An address where nothing listens, and nothing else can begin to meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["--no-such-option"],
        ["serve", "--liste", "127.0.0.1:1"],  # options are not guessed
        ["serve", "extra"],
        ["complete"],
        ["complete", "f:1:1", "--max-tokens", "many"],
        ["config"],
        ["config", "check", "a", "b"],
        ["engine"],
        ["engine", "explode"],
        ["runtime", "inspect"],
    ],
)
def test_wrong_arguments_end_with_2_and_say_how_it_is_used(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: rockfill")


def test_version_and_help_end_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    for option, says in (("--version", f"rockfill {rockfill.__version__}\n"), ("--help", "exit status:")):
        with pytest.raises(SystemExit) as caught:
            main([option])
        assert caught.value.code == 0
        assert says in capsys.readouterr().out


def test_every_command_is_carried_out_by_something() -> None:
    """A subcommand that nothing runs would be a defect that only its first user sees."""
    for module, function in _runs(parser()):
        assert callable(getattr(import_module(f"rockfill.cli.{module}"), function))


def _runs(top: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    run = top.get_default("run")
    if run is not None:
        yield run
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _runs(child)


def test_no_daemon_ends_with_69(closed_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", closed_url]) == EXIT_STATUS[Code.NO_DAEMON] == 69
    said = capsys.readouterr().err
    assert f"No Rockfill answers at {closed_url}" in said
    assert "rockfill serve" in said


def test_a_wrong_token_ends_with_77(
    scripted: ScriptedAppliance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROCKFILL_TOKEN", "wrong")
    assert main(["status", "--url", scripted.url]) == EXIT_STATUS[Code.UNAUTHORIZED] == 77
    assert "rockfill token" in capsys.readouterr().err
    monkeypatch.setenv("ROCKFILL_TOKEN", scripted.token)
    assert main(["status", "--url", scripted.url]) == 0


def test_a_bad_configuration_ends_with_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[engine]\nhelo_timeout_s = 1\nload_timeout_s = 0")
    for arguments in (["config", "check", str(file)], ["serve", "--config", str(file)]):
        assert main(arguments) == EXIT_STATUS[Code.CONFIG_INVALID] == 78
        said = capsys.readouterr().err
        assert f"{file}: engine.helo_timeout_s: is not known" in said
        assert f"{file}: engine.load_timeout_s: must be at least" in said


def test_a_good_configuration_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[completion]\nmax_queue = 5")
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: fine\n"
    assert main(["config", "check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["completion"]["max_queue"] == 5


@pytest.mark.parametrize("listen", ["8012", "board", "::1:80"])
def test_a_bad_listen_option_ends_with_78(listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--listen", listen]) == 78
    assert "--listen must be HOST:PORT" in capsys.readouterr().err


def test_any_other_problem_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token"]) == 1
    assert main(["complete", str(tmp_path / "none:1:1")]) == 1
    assert main(["runtime", "inspect", str(tmp_path / "none")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err


def test_the_token_is_printed_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("abc\n")
    assert main(["token", "--state-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "abc\n"
