"""The grammar of ``rockfill open`` and ``rockfill token``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    Remote = Callable[[argparse.ArgumentParser], None]

SCOPES = ("read", "complete", "control", "admin")  # those of access.tokens, which takes long to import


def add_entrance(commands: Any, token: argparse.ArgumentParser, remote: Remote) -> None:
    """The grammar: ``open``, and what `token` can do beside printing the primary one."""
    opening = commands.add_parser(
        "open",
        help="print a link that signs a browser in",
        description="Print a link that signs one browser in, once, within ten minutes.",
    )
    remote(opening)
    opening.set_defaults(run=("entrance", "open_link"))

    actions = token.add_subparsers(dest="token_command", metavar="COMMAND")
    add = actions.add_parser("add", help="make a token for somebody", description="Make a token and print it, once.")
    add.add_argument("name", metavar="NAME", help="whom or what it is for, such as home-assistant")
    add.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        default=[],
        help="what it is good for; may be given again (default: read and complete)",
    )
    revoke = actions.add_parser("revoke", help="make a token worthless")
    revoke.add_argument("name", metavar="NAME")
    listed = actions.add_parser("list", help="the tokens that were made")
    for command, function in ((add, "token_add"), (listed, "token_list"), (revoke, "token_revoke")):
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        remote(command)
        command.set_defaults(run=("entrance", function))
