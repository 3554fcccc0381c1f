"""The grammar of ``rockfill models``, ``runtime`` and ``hub``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    Remote = Callable[[argparse.ArgumentParser], None]


def add_models(commands: Any, remote: Remote) -> None:
    """``rockfill models …``"""
    models = commands.add_parser("models", help="models: what there is to be had, fetch, choose, remove")
    actions = models.add_subparsers(dest="models_command", metavar="COMMAND", required=True)

    def action(name: str, function: str, what: str, description: str = "", *, json: bool = True) -> Any:
        parser = actions.add_parser(name, help=what, description=description or None)
        if json:
            parser.add_argument("--json", action="store_true", help="print the result as JSON")
        remote(parser)
        parser.set_defaults(run=("models", function))
        return parser

    action("list", "list_models", "the models that are here; * is the chosen one")
    action("catalogue", "catalogue", "the models that Rockfill suggests")
    variants = action(
        "variants",
        "variants",
        "what a repository offers, and what of it runs here",
        "List the model files of a repository on the Hub: * is the recommended one, x marks what can't run here.",
    )
    variants.add_argument("repository", metavar="REPOSITORY", help="USER/NAME, or a name of the catalogue")
    variants.add_argument("--revision", metavar="R", help="a branch, tag or commit (default: the newest)")
    for name, what, description in (
        ("pull", "fetch a model", "Fetch a variant; goes on where an earlier attempt ended."),
        ("use", "choose the model to run", "Run a model that is here, or one that is fetched first."),
    ):
        fetch = action(name, name, what, description)
        fetch.add_argument("model", metavar="MODEL", help="a name of the catalogue, or USER/NAME on the Hub")
        fetch.add_argument("--variant", metavar="QUANTISATION-OR-FILE", help="which one (default: the recommended one)")
        fetch.add_argument("--revision", metavar="R", help="a branch, tag or commit (default: the newest)")
        fetch.add_argument("--tokenizer", metavar="REPOSITORY", help="where the tokenizer is, if it is elsewhere")
        fetch.add_argument(
            "--accept-licence", action="store_true", help="say that you have read and accept the licence"
        )
        fetch.add_argument(
            "--force",
            action="store_true",
            help="fetch it though it can't run here; it may stop the machine if it is run",
        )
    action("downloads", "downloads", "what is being fetched or was left unfinished")
    cancel = action("cancel", "cancel", "end a download; what has come is kept")
    cancel.add_argument("download", metavar="DOWNLOAD", help="as `rockfill models downloads` names it")
    cancel.add_argument("--discard", action="store_true", help="throw away what has come")
    for name, what in (("show", "all that is known of a model"), ("verify", "compare a model with what was installed")):
        action(name, name, what).add_argument(
            "model", metavar="MODEL", nargs="?", default="", help="default: the chosen one"
        )
    remove = action("rm", "remove", "remove models that Rockfill installed", json=False)
    remove.add_argument("models", metavar="MODEL", nargs="+")
    bring_in = action("import", "bring_in", "copy a model from a file, as for a board without a network")
    bring_in.add_argument("path", metavar="FILE-OR-DIR", help="a .rkllm or .gguf file, or a directory with one")
    bring_in.add_argument(
        "--tokenizer", metavar="REPOSITORY-OR-DIR", help="where its tokenizer.json is (default: beside it)"
    )
    bring_in.add_argument("--name", metavar="NAME", help="what to call it (default: what its file's name says)")


def add_runtimes(actions: Any, remote: Remote) -> None:
    """``rockfill runtime …``, beside what it has already."""

    def action(name: str, function: str, what: str) -> Any:
        parser = actions.add_parser(name, help=what)
        remote(parser)
        parser.set_defaults(run=("runtimes", function))
        return parser

    action("list", "list_runtimes", "the runtimes that are here, and which one is run").add_argument(
        "--json", action="store_true", help="print it as JSON"
    )
    action("install", "install", "fetch a release of the vendor's, or install a file").add_argument(
        "what", metavar="VERSION-OR-FILE", nargs="?", help="default: the one that runs most models"
    )
    action("use", "use", "run every model with one version").add_argument(
        "version", metavar="VERSION", help='a version that is here; "auto" takes what suits each model'
    )
    action("rm", "remove", "remove a runtime that Rockfill installed").add_argument("version", metavar="VERSION")


def add_hub(commands: Any, remote: Remote) -> None:
    """``rockfill hub …``"""
    hub = commands.add_parser("hub", help="the account on the Hugging Face Hub")
    actions = hub.add_subparsers(dest="hub_command", metavar="COMMAND", required=True)
    for name, what in (
        ("login", "store an access token, for models that are given to accounts only (asked for, or read from stdin)"),
        ("logout", "forget it"),
    ):
        parser = actions.add_parser(name, help=what)
        remote(parser)
        parser.set_defaults(run=("models", name))
