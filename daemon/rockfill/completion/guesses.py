"""Which requests are guesses: for what would follow an offer that nobody has taken yet. Pure.

Editors send them as soon as they have shown an offer, so as to have the next one ready (llama.vim, autoload/llama.vim;
llama.vscode, src/completion.ts). Two offers out of three are not taken, and llama.vim asks for nothing else meanwhile:
on an engine that needs a second for a line, a guess costs more than it brings.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

# Nobody reads an offer and takes it in this time; llama.vscode asks at once.
AT_ONCE_S = 0.05

# An engine that writes two lines, of some twelve tokens each, in the time that a first token may take is fast enough to
# guess with: the next line is there before the present one has been read.
FAST_TOKENS = 25.0

_OFFERS_KEPT = 16
_CLIENTS_KEPT = 256
_TAIL_CHARS = 240


@dataclass(frozen=True, slots=True)
class Offer:
    """What was offered `at_s`: how the text before the cursor would end if it were taken, and the time it was given."""

    ends: tuple[str, ...]
    predict_s: float | None
    at_s: float


class Guesses:
    """Remembers the last offers made to each client. Times are seconds on any one clock."""

    def __init__(self) -> None:
        self._offers: OrderedDict[str, deque[Offer]] = OrderedDict()

    def offered(
        self, client: str, prefix: str, text: str, suffix: str, *, predict_s: float | None, at_s: float
    ) -> None:
        """`text` was offered between `prefix` and `suffix`. Blank text is no offer."""
        if not text.strip():
            return
        taken = prefix[-_TAIL_CHARS:] + text.rstrip("\n")
        # llama.vim takes the rest of the line for a part of the offer.
        ends = (taken[-_TAIL_CHARS:], (taken + suffix.partition("\n")[0])[-_TAIL_CHARS:])
        self._offers.setdefault(client, deque(maxlen=_OFFERS_KEPT)).append(Offer(ends, predict_s, at_s))
        self._offers.move_to_end(client)
        if len(self._offers) > _CLIENTS_KEPT:
            self._offers.popitem(last=False)

    def is_guess(self, client: str, prefix: str, *, predict_s: float | None, at_s: float) -> bool:
        """Whether `client` can't know yet that somebody wants a text after `prefix`.

        It is so where that is the end of an offer, and the offer was made only now, or is allowed more time than the
        offer was: whoever waits gets little, a guess has time.
        """
        for offer in self._offers.get(client, ()):
            at_once = at_s - offer.at_s < AT_ONCE_S
            has_time = predict_s is not None and offer.predict_s is not None and predict_s > offer.predict_s
            if (at_once or has_time) and any(_same_end(prefix, end) for end in offer.ends):
                return True
        return False


def _same_end(text: str, end: str) -> bool:
    """Editors send windows of a document, so that either may begin later than the other."""
    return bool(text) and (text.endswith(end) or (len(text) < len(end) and end.endswith(text)))
