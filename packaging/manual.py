"""The manual pages and bash's completions, made from what they describe, so that they cannot tell anything else.

`manual.py rockfill.1 | rockfill.toml.5 | completion` prints one of them. The command line's own grammar is the source
of the first and the last, the commented example of the configuration that of the second. `debian/rules` runs it with
Debian's Python and nothing but the daemon's source on its path.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill import __version__
from rockfill.cli.main import DESCRIPTION, EPILOG, parser

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = Path(__file__).resolve().parent / "rockfill.toml"

FILES = (
    ("/etc/rockfill/config.toml", "The configuration; see rockfill.toml(5)."),
    ("/var/lib/rockfill", "What is kept: models, runtimes, the token, and what was chosen on the page."),
    ("/var/lib/rockfill/token", "The token that clients need, readable by root and the service."),
    ("/var/cache/rockfill", "What can be fetched again."),
)


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: the words that call it, and its grammar. `help` is its line in its parent's help."""

    words: tuple[str, ...]
    help: str
    grammar: argparse.ArgumentParser

    @property
    def runs(self) -> bool:
        """Whether it does something without another word."""
        return self.grammar.get_default("run") is not None

    @property
    def options(self) -> list[argparse.Action]:
        return [
            action for action in self.grammar._actions if action.option_strings and "-h" not in action.option_strings
        ]

    @property
    def positionals(self) -> list[argparse.Action]:
        subcommands = _subcommands(self.grammar)
        return [action for action in self.grammar._actions if not action.option_strings and action is not subcommands]


def commands() -> list[Command]:
    """All of them, a parent before what is below it."""
    return list(_below((), parser()))


def _below(words: tuple[str, ...], grammar: argparse.ArgumentParser) -> Iterator[Command]:
    subcommands = _subcommands(grammar)
    if subcommands is None:
        return
    helps = {action.dest: action.help or "" for action in subcommands._choices_actions}
    for name, below in subcommands.choices.items():
        yield Command((*words, name), helps.get(name, ""), below)
        yield from _below((*words, name), below)


def _subcommands(grammar: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    for action in grammar._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action
    return None


# ---- roff


def _text(text: str) -> str:
    """Prose: hyphens are hyphens, and no line begins as a request would."""
    return re.sub(r"(?m)^(?=[.'])", r"\\&", text.replace("\\", r"\e").replace("-", r"\-"))


def _title(name: str, section: int, what: str) -> list[str]:
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    heading = f'.TH {name.upper()} {section} {date} "rockfill {__version__}"'
    return [heading, ".SH NAME", f"{_text(name.lower())} \\- {what}"]


def _signature(action: argparse.Action) -> str:
    """``\\fB--lines\\fR \\fIN\\fR``"""
    value = str(action.metavar or action.dest.upper()) if action.nargs != 0 else ""
    value = f"\\fI{_text(value)}\\fR"
    if not action.option_strings:
        return f"[{value}]" if action.nargs == "?" else f"{value}..." if action.nargs in ("*", "+") else value
    names = ", ".join(f"\\fB{_text(name)}\\fR" for name in action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def command_page() -> str:
    """rockfill(1)"""
    lines = _title("rockfill", 1, "code completion on the NPU of an RK3588 board")
    lines += [".SH SYNOPSIS", r"\fBrockfill\fR \fICOMMAND\fR [\fIoptions\fR]", ".SH DESCRIPTION"]
    lines += [_text(" ".join(DESCRIPTION.split())), ".SH COMMANDS"]
    for command in commands():
        if not command.runs:
            continue
        called = " ".join(["rockfill", *command.words])
        arguments = " ".join(_signature(action) for action in command.positionals)
        lines += [".SS", f"\\fB{_text(called)}\\fR {arguments}".rstrip()]
        said = command.grammar.description or f"{command.help[:1].upper()}{command.help[1:]}."
        lines.append(_text(" ".join(said.split())))
        for action in [*command.positionals, *command.options]:
            if action.help and action.help != argparse.SUPPRESS:
                lines += [".TP", _signature(action), _text(action.help % {"default": action.default, "prog": called})]
    for heading, entries in _epilog():
        lines.append(f".SH {heading.upper()}")
        for name, said in entries:
            lines += [".TP", f"\\fB{_text(name)}\\fR", _text(said)]
    lines.append(".SH FILES")
    for name, said in FILES:
        lines += [".TP", f"\\fI{_text(name)}\\fR", _text(said)]
    lines += [".SH SEE ALSO", r"\fBrockfill.toml\fR(5), \fBjournalctl\fR(1), \fBsystemctl\fR(1)"]
    return "\n".join(lines) + "\n"


def _epilog() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The chapters at the end of ``rockfill --help``, each with its entries."""
    for chapter in EPILOG.split("\n\n"):
        heading, _, body = chapter.partition(":\n")
        entries: list[tuple[str, str]] = []
        if heading == "exit status":
            for status, said in re.findall(r"(\d+) ([^,]+)", " ".join(body.split())):
                entries.append((status, f"{said[:1].upper()}{said[1:]}."))
        else:
            for line in body.splitlines():
                name, said = re.fullmatch(r"  (\S*)\s+(.*)", line).groups()  # type: ignore[union-attr] # else: a new shape
                if name:
                    entries.append((name, said))
                else:
                    entries[-1] = (entries[-1][0], f"{entries[-1][1]} {said}")
        yield heading, entries


def configuration_page() -> str:
    """rockfill.toml(5)"""
    lines = _title("rockfill.toml", 5, "the configuration of Rockfill")
    heading, *blocks = re.split(r"\n(?=\[)", CONFIG.read_text())
    lines += [".SH SYNOPSIS", r"\fI/etc/rockfill/config.toml\fR", ".SH DESCRIPTION"]
    lines.append(_text(" ".join(line.lstrip("# ") for line in heading.splitlines())))
    for block in blocks:
        name, _, body = block.partition("\n")
        lines.append(f".SH {name}")
        prose: list[str] = []
        for line in body.splitlines():
            if setting := re.fullmatch(r"#?(\w+ = .*)", line):
                lines += [".TP", f"\\fB{_text(setting[1])}\\fR", *([_text(" ".join(prose))] if prose else [])]
                prose = []
            elif line.startswith("#"):
                prose.append(line.lstrip("# "))
            elif prose:  # of the whole section
                lines.append(_text(" ".join(prose)))
                prose = []
    lines += [".SH SEE ALSO", r"\fBrockfill\fR(1)"]
    return "\n".join(lines) + "\n"


# ---- bash

COMPLETION = """\
# bash completion for rockfill; made by packaging/manual.py
_rockfill()
{{
    local current=${{COMP_WORDS[COMP_CWORD]}} path= word offered=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $path$word in
            {paths}) path=$path$word/ ;;
        esac
    done
    case $path in
{cases}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$offered" -- "$current")
    if [[ ${{#COMPREPLY[@]}} = 0 && $current != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}} && complete -o filenames -F _rockfill rockfill
"""


def completion() -> str:
    """The words that may follow, at each point of the grammar; a file's name where none does."""
    everything = [Command((), "", parser()), *commands()]
    cases = []
    for command in everything:
        path = "".join(f"{word}/" for word in command.words)
        subcommands = _subcommands(command.grammar)
        offered = sorted(subcommands.choices) if subcommands is not None else []
        offered += [name for action in command.options for name in action.option_strings if name.startswith("--")]
        cases.append(f'        {path or chr(39) * 2}) offered="{" ".join([*offered, "--help"])}" ;;')
    paths = "|".join("/".join(command.words) for command in commands())
    return COMPLETION.format(paths=paths, cases="\n".join(cases))


PAGES = {"rockfill.1": command_page, "rockfill.toml.5": configuration_page, "completion": completion}

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
