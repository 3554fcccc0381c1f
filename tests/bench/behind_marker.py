"""``python -m tests.bench.behind_marker``: whether the bundled model goes on as well from what somebody has typed when
that stands behind the marker for the middle, as `fim.growth` puts it, as when it stands in the prefix.

At places of a replay, the same text once in the one way and once in the other: how often the rest of the line comes out
right, and how often the next word or sign. By how the text ends, since that is what matters.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter

from rockfill.fim.context import Context
from rockfill.fim.prompt import fit, render
from rockfill.llama.session import LlamaSession
from rockfill.paths import bundled_models
from rockfill.prompting import Prompter
from rockfill.session import Sampling
from tests.bench.replay import WORTH_CHARS, replay
from tests.bench.typing import sources

PROMPT_TOKENS = 400
MOST_TYPED_CHARS = 40
NEXT = re.compile(r"\w+|[^\w\s]")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.behind_marker", description=__doc__)
    parser.add_argument("--places", type=int, default=600)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--order", choices=("psm", "spm"), default="psm", help="psm is where it matters (the default)")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    session = LlamaSession(str(bundled_models() / "rockfill-tiny" / "rockfill-tiny-q8_0.gguf"), threads=1)
    prompter = Prompter(session, "rockfill", arguments.order)
    work = replay(sources(), arguments.seed, 160)
    places = [event for event in work.events if len((work.rest(event) or "").strip()) >= WORTH_CHARS]
    places = [event for event in places if event.kind == "key" and len(event.typed) > 1]
    right: Counter[tuple[str, str, str]] = Counter()
    for event in chance.sample(places, min(arguments.places, len(places))):
        site, rest = work.sites[event.site], work.rest(event) or ""
        text, typed = site.head + event.typed, chance.randint(1, min(MOST_TYPED_CHARS, len(event.typed)))
        kind = ending(event.typed[-1], rest[0])
        for where, count in (("in the prefix", 0), ("behind the marker", typed)):
            said = completion(session, prompter, text[: len(text) - count], text[len(text) - count :], site.tail)
            right[kind, where, "places"] += 1
            right[kind, where, "lines"] += said.partition("\n")[0].rstrip() == rest.rstrip()
            right[kind, where, "next"] += NEXT.findall(said)[:1] == NEXT.findall(rest)[:1]
    for kind, where in sorted({(kind, where) for kind, where, _ in right}):
        places_, lines, following = (right[kind, where, what] for what in ("places", "lines", "next"))
        sys.stdout.write(f"{kind:16} {where:18} {places_} places: {following} next words right, {lines} lines\n")
    session.close()
    return 0


def ending(last: str, following: str) -> str:
    if last in " \t":
        return "after a space"
    return "within a word" if _in_word(last) and _in_word(following) else "between words"


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def completion(session: LlamaSession, prompter: Prompter, prefix: str, typed: str, suffix: str) -> str:
    family, order = prompter._family, prompter.order
    assert family is not None
    assert order is not None
    fitted = fit(family, order, Context(prefix, suffix), PROMPT_TOKENS, prompter._count, allow_unverified=True)
    ids = prompter._to_ids(render(family, order, fitted.context, allow_unverified=True))
    ids += prompter.tokenize(typed)
    said: list[str] = []
    session.generate(
        ids, Sampling(), 40, prompter.stop_ids, lambda text, _: said.append(text), lambda: "\n" in "".join(said)
    )
    return "".join(said)


if __name__ == "__main__":
    sys.exit(main())
