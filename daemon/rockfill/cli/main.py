"""``rockfill``: parses the command line and turns every outcome into an exit status."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rockfill import __version__
from rockfill.cli.entrance_grammar import add_entrance
from rockfill.cli.library_grammar import add_hub, add_models, add_runtimes
from rockfill.config import ClockPolicy
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DESCRIPTION = """\
Rockfill completes code on an RK3588 board's NPU, or on the CPU of any other
machine, and serves it to editors, browsers and automations."""

EPILOG = """\
environment:
  ROCKFILL_URL         the appliance to talk to (default http://127.0.0.1:8012)
  ROCKFILL_TOKEN       its token (default: the one in the state directory)
  ROCKFILL_STATE_DIR   the state directory

exit status:
  0 ok, 1 failed, 2 wrong usage, 69 no daemon, 77 unauthorised, 78 configuration"""

POLICIES = "auto (while a model works), loaded (while one is loaded), always, or off"

EXIT_STATUS = {
    Code.NO_DAEMON: 69,
    Code.UNAUTHORIZED: 77,
    Code.FORBIDDEN: 77,
    Code.CONFIG_INVALID: 78,
    Code.STATE_TOO_NEW: 78,
    Code.WEB_ROOT_MISSING: 78,
}


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations, in subcommands either: the next option would change what they mean."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)


def parser() -> argparse.ArgumentParser:
    """The command line's grammar; each subcommand imports what it runs only when it is run."""
    top = _Parser(
        prog="rockfill",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rockfill {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    serve = commands.add_parser(
        "serve",
        help="run the appliance",
        description="Run the appliance until it is told to stop. Its last line is the address of its page.",
    )
    serve.add_argument("--listen", metavar="HOST:PORT", help="where to listen (default 127.0.0.1:8012)")
    serve.add_argument("--state-dir", metavar="DIR", help="where models, token and settings are kept")
    serve.add_argument(
        "--config", metavar="FILE", help="configuration (default /etc/rockfill/config.toml, if installed)"
    )
    serve.add_argument(
        "--sysfs-root", metavar="DIR", help="look for /sys, /proc and /dev below DIR, for trying things out"
    )
    serve.add_argument("--model", metavar="NAME-OR-PATH", help="the model to run: a name, a .gguf file or a directory")
    serve.add_argument("--verbose", action="store_true", help="log more, the engine's own output included")
    serve.set_defaults(run=("serving", "serve"))

    complete = commands.add_parser(
        "complete",
        help="complete a file at a position",
        description="Print what the model would insert at LINE and COL (both counted from 1) of FILE, as it comes.",
    )
    complete.add_argument("position", metavar="FILE:LINE:COL")
    complete.add_argument("--multiline", action="store_true", help="go on after the end of the line")
    complete.add_argument("--max-tokens", type=int, default=128, metavar="N", help="at most N tokens (default 128)")
    complete.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
    _remote(complete)
    complete.set_defaults(run=("asking", "complete"))

    status = commands.add_parser("status", help="what the appliance is doing")
    status.add_argument("--json", action="store_true", help="print it as JSON")
    _remote(status)
    status.set_defaults(run=("asking", "status"))

    stats = commands.add_parser("stats", help="live figures of the machine and the engine")
    stats.add_argument("-w", "--watch", action="store_true", help="go on, once a second")
    stats.add_argument("--json", action="store_true", help="print them as JSON, with --watch an object a line")
    _remote(stats)
    stats.set_defaults(run=("figures", "stats"))

    clocks = commands.add_parser("clocks", help="how the board's clocks are set, and why")
    clocks.add_argument("--json", action="store_true", help="print it as JSON")
    _remote(clocks)
    clocks.set_defaults(run=("clocks", "clocks"))
    clocks_commands = clocks.add_subparsers(dest="clocks_command", metavar="COMMAND")
    clocks_set = clocks_commands.add_parser("set", help="say when clocks are raised")
    clocks_set.add_argument("policy", choices=[policy.value for policy in ClockPolicy], metavar="POLICY", help=POLICIES)
    clocks_set.add_argument(
        "--fix", action="append", default=[], metavar="DEVICE=MHZ", help="put a device at one frequency instead"
    )
    clocks_restore = clocks_commands.add_parser("restore", help="give all clocks back as they were found")
    for command, function in ((clocks_set, "set_policy"), (clocks_restore, "restore")):
        command.add_argument("--json", action="store_true", help="print the answer as JSON")
        _remote(command)
        command.set_defaults(run=("clocks", function))

    doctor = commands.add_parser(
        "doctor",
        help="find what keeps the appliance from working, or working fast",
        description="Check the board, the system and what is installed. Exit status 0: all is well, 1: there are "
        "warnings, 3: there are problems.",
    )
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    doctor.add_argument("--config", metavar="FILE", help="the configuration, where no daemon runs")
    _remote(doctor)
    doctor.set_defaults(run=("doctor", "doctor"))

    logs = commands.add_parser("logs", help="what the engine printed last")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it prints more")
    logs.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="at most N lines (default 50)")
    _remote(logs)
    logs.set_defaults(run=("asking", "logs"))

    engine = commands.add_parser("engine", help="load, unload and restart the model")
    engine_commands = engine.add_subparsers(dest="engine_command", metavar="COMMAND", required=True)
    for name, what in (
        ("load", "load a model and make it the chosen one"),
        ("unload", "unload it; the next request loads it again"),
        ("restart", "start the engine anew, also one that was given up"),
        ("pin", "keep the model loaded however long it is idle"),
        ("unpin", "let it be unloaded again"),
        ("pause", "refuse completions and free the machine"),
        ("resume", "accept completions again"),
        ("history", "what became of the engine lately"),
    ):
        command = engine_commands.add_parser(name, help=what)
        if name == "load":
            command.add_argument(
                "model", metavar="MODEL", nargs="?", default="", help="a name; default: the chosen one"
            )
        command.add_argument("--json", action="store_true", help="print the answer as JSON")
        _remote(command)
        command.set_defaults(run=("asking", "engine"))

    selftest = commands.add_parser(
        "selftest",
        help="find out what the model does on this machine",
        description="Measure the chosen model on this machine and remember what it can do. Takes a minute on a board; "
        "completions wait meanwhile.",
    )
    selftest.add_argument("--json", action="store_true", help="print it as JSON")
    selftest.add_argument("--report", action="store_true", help="print it as text that can be shared (the default)")
    _remote(selftest)
    selftest.set_defaults(run=("asking", "selftest"))

    evaluation = commands.add_parser("eval", help="measure how good the running model is")
    evaluation_commands = evaluation.add_subparsers(dest="eval_command", metavar="COMMAND", required=True)
    infill = evaluation_commands.add_parser(
        "infill",
        help="at filling in code",
        description="Ask the running model for lines of source files that it can't see, and for answers to infilling "
        "tasks whose programs then show whether they are right. The programs run in a sandbox without network.",
    )
    infill.add_argument(
        "files", metavar="FILE-OR-DIR", nargs="*", help="source files: whole lines and rests of lines are asked for"
    )
    infill.add_argument("--tasks", metavar="FILE", help="tasks in human-eval-infilling's format (.jsonl or .jsonl.gz)")
    infill.add_argument(
        "--limit", type=_positive, metavar="N", help="at most N tasks, and N places (default: all tasks, 500 places)"
    )
    infill.add_argument("--seed", type=int, default=0, metavar="N", help="choose other places (default 0)")
    infill.add_argument("--json", action="store_true", help="print the results as JSON")
    _remote(infill)
    infill.set_defaults(run=("evaluating", "infill"))

    add_models(commands, _remote)
    add_hub(commands, _remote)
    runtime = commands.add_parser("runtime", help="Rockchip's RKLLM runtime")
    runtime_commands = runtime.add_subparsers(dest="runtime_command", metavar="COMMAND", required=True)
    add_runtimes(runtime_commands, _remote)
    inspect = runtime_commands.add_parser(
        "inspect",
        help="what a librkllmrt.so is",
        description="Identify a librkllmrt.so from its bytes, without loading it.",
    )
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="print it as JSON")
    inspect.set_defaults(run=("serving", "runtime_inspect"))

    token = commands.add_parser(
        "token",
        help="print the token that clients need, or make others",
        description="Print the primary token, which is good for everything; or see to tokens with fewer rights.",
    )
    token.add_argument("--state-dir", metavar="DIR", help="the state directory to read it from")
    token.set_defaults(run=("serving", "token"))
    add_entrance(commands, token, _remote)

    config = commands.add_parser("config", help="look at the configuration")
    config_commands = config.add_subparsers(dest="config_command", metavar="COMMAND", required=True)
    check = config_commands.add_parser("check", help="say every mistake in a configuration file")
    check.add_argument("file", nargs="?", metavar="FILE", help="default /etc/rockfill/config.toml")
    check.add_argument("--json", action="store_true", help="print the configuration in force as JSON")
    check.set_defaults(run=("serving", "config_check"))
    return top


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _remote(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", metavar="URL", help="the appliance to talk to (default ROCKFILL_URL)")
    command.add_argument("--state-dir", metavar="DIR", help="where to find its token, if it is on this machine")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Never prints a traceback for a `Problem`."""
    arguments = parser().parse_args(argv)
    verbose = getattr(arguments, "verbose", False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return _run(arguments)
    except Problem as problem:
        print(f"rockfill: {problem.message}", file=sys.stderr)
        if problem.advice:
            print(f"          {problem.advice}", file=sys.stderr)
        return EXIT_STATUS.get(problem.code, 1)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"rockfill: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    module, function = arguments.run
    run: Callable[[argparse.Namespace], int] = getattr(import_module(f"rockfill.cli.{module}"), function)
    return run(arguments)
