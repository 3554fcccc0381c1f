"""The page's pure modules, table by table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.browser.driving import address

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.appliance import Appliance


def run(page: Page, appliance: Appliance, module: str, expression: str, argument: object = None) -> Any:
    """What `expression` gives, with the exports of `module` as ``m`` and `argument` as ``x``."""
    page.goto(address(appliance))
    return page.evaluate(
        f"""async (x) => {{
            const base = document.querySelector('script[type=module]').src.replace('main.js', '');
            const m = await import(base + {json.dumps(module)});
            return {expression};
        }}""",
        argument,
    )


REST_CASES = [
    # offered so far, still streaming, the text at the cursor in place of the "|" of "(|)", what is left
    ("abc", True, "", "abc"),
    ("abc", False, "ab", "c"),
    ("abc", False, "abc", ""),
    ("abc", False, "abcd", None),
    ("abc", True, "abcd", ""),  # ahead of the stream: the next piece tells
    ("", True, "a", None),
    ("abc", True, "b", None),
    ("a\nb", True, "a\n", "b"),
]
WORDS = [
    ("return a + b", "return"),
    (" a + b", " a"),
    (" += b", " +="),
    ("\n    größe_2 = 1", "\n    größe_2"),
    ("()", "()"),
    ("  ", "  "),
]


def test_what_is_left_of_an_offer_and_its_first_word(page: Page, shared: Appliance) -> None:
    rests = run(
        page,
        shared,
        "offer.js",
        """x.map(([text, streaming, typed]) =>
            Object.assign(new m.Offer("(", ")"), { text, streaming }).rest(`(${typed})`, 1 + typed.length))""",
        REST_CASES,
    )
    assert rests == [left for *_, left in REST_CASES]
    words = run(page, shared, "offer.js", "x.map(m.firstWord)", [text for text, _ in WORDS])
    assert words == [word for _, word in WORDS]


SAID = [
    ("m.bytes(3_580_000_000)", "3.58 GB"),
    ("m.bytes(512)", "512 B"),
    ("m.memory(4 * 1024 ** 3)", "4 GiB"),
    ("m.hertz(2_400_000_000)", "2.4 GHz"),
    ("m.milliseconds(1234)", "1.23 s"),
    ("m.milliseconds(999.6)", "1,000 ms"),
    ("m.percent(0)", "0 %"),
    ("m.percent(null)", "–"),
    ("m.short(undefined)", "–"),
    ("m.short(10.37)", "10.4"),
    ("m.duration(75)", "75 s"),
    ("m.duration(3600 * 2 + 300)", "2 h 5 min"),
    ("m.duration(3 * 86400)", "3 days"),
    ("m.plural(1, 'token')", "1 token"),
    ("m.plural(1200, 'token')", "1,200 tokens"),
]


def test_figures_in_words(page: Page, shared: Appliance) -> None:
    got = run(page, shared, "words.js", f"[{', '.join(call for call, _ in SAID)}]")
    assert got == [said for _, said in SAID]


def test_scores_in_words(page: Page, shared: Appliance) -> None:
    tasks = {"name": "tasks", "count": 1033, "passed": 0.281, "exact": 0.215, "similarity": 0.7, "loops": 0}
    lines = {**tasks, "name": "whole lines", "count": 1, "passed": None, "exact": 1}
    results = [{"runtime": "R", "evaluation": {"questions": "Q", "scores": [tasks, lines]}}]
    said = "28.1 % ± 1.4 of 1,033 tasks right, 21.5 % ± 1.3 exact; 100.0 % ± 0.0 of 1 whole lines exact"
    lines_of = run(page, shared, "scores.js", "[m.scoreLines(x), m.scoreLines([])]", results)
    assert lines_of == [[f"Measured with R on Q: {said}"], []]


def test_the_pauses_between_attempts_grow_to_a_limit_and_are_spread(page: Page, shared: Appliance) -> None:
    pauses = run(page, shared, "backoff.js", "[0, 1, 2, 3, 9].map((n) => m.pauseMs(n, 0.5))")
    assert pauses == [500, 1000, 2000, 4000, 15000]
    assert run(page, shared, "backoff.js", "[m.pauseMs(0, 0), m.pauseMs(0, 1)]") == [375, 625]


def test_silence_is_asked_about_before_it_counts(page: Page, shared: Appliance) -> None:
    said = run(
        page,
        shared,
        "backoff.js",
        "x.map(([silentMs, askedMs]) => m.watch({ silentMs, askedMs })).map(({ act, againMs }) => [act, againMs])",
        [[9_000, None], [10_000, None], [14_000, 4_000], [15_000, 5_000]],
    )
    assert said == [["nothing", 1_000], ["ask", 5_000], ["nothing", 1_000], ["give up", None]]


def test_columns_keep_what_a_figure_was_and_leave_gaps_as_gaps(page: Page, shared: Appliance) -> None:
    got = run(
        page,
        shared,
        "figures.js",
        """(() => {
            const columns = new m.Columns(900);
            columns.replace({ time_s: [100, 101, 500], "npu.load_percent.0": [1, null, 3] });
            columns.add(500, { "queue.depth": 9 });
            columns.add(501, { "npu.load_percent": [4, 5], "ddr.freq_hz": null });
            return [columns.times, columns.values("npu.load_percent.0"), columns.values("npu.load_percent.1"),
                columns.parts("npu.load_percent"), columns.values("ddr.freq_hz")];
        })()""",
    )
    assert got == [
        [100, 101, 102, 500, 501],
        [1, None, None, 3, 4],
        [None, None, None, None, 5],
        ["0", "1"],
        [None] * 5,
    ]


NAMES = [("a.py", [], "a.py"), ("a.py", ["a.py", "a-2.py"], "a-3.py"), (".env", [".env"], ".env-2")]


def test_names_of_files_are_made_different(page: Page, shared: Appliance) -> None:
    asked = [[name, taken] for name, taken, _ in NAMES]
    assert run(page, shared, "tabs.js", "x.map((names) => m.freeName(...names))", asked) == [free for *_, free in NAMES]


def test_every_language_that_is_known_by_an_ending_is_there(page: Page, shared: Appliance) -> None:
    loaded = run(
        page,
        shared,
        "tabs.js",
        """(await Promise.all([...new Set(m.ENDINGS.values())].map(async (language) =>
            typeof (await import(`${base}vendor/language-${language}.js`)).default()))).length""",
    )
    assert loaded > 20
