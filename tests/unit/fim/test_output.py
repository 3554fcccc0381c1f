from __future__ import annotations

import inspect
import json.decoder
import textwrap
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rockfill.fim.output import Ended, Mode, OutputFilter, OutputRules


def run(rules: OutputRules, *chunks: str) -> tuple[str, Ended | None]:
    output = OutputFilter(rules)
    text = "".join(output.feed(chunk) for chunk in chunks)
    return text + output.flush(), output.finished


def reason(ended: Ended | None) -> str | None:
    return ended.reason if ended else None


# Any mode: stops


def test_a_stop_text_ends_the_output_and_is_named() -> None:
    assert run(OutputRules(stops=("END", "//")), "a = 1 // b") == ("a = 1 ", Ended("stop", "//"))


def test_a_stop_text_is_found_across_chunks_and_no_part_of_it_is_emitted() -> None:
    output = OutputFilter(OutputRules(stops=("\n\nclass ",)))
    assert [output.feed(chunk) for chunk in ("x\n", "\n", "cla", "ss A")] == ["x", "", "", ""]
    assert output.finished == Ended("stop", "\n\nclass ")
    assert output.flush() == ""


def test_only_what_may_be_a_stop_text_is_held_back() -> None:
    output = OutputFilter(OutputRules(stops=("abc",)))
    assert [output.feed(chunk) for chunk in ("xab", "x", "aba", "b", "d")] == ["x", "abx", "ab", "", "abd"]


def test_a_held_back_start_of_a_stop_text_comes_at_the_end() -> None:
    assert run(OutputRules(stops=("abc",)), "xab") == ("xab", None)


def test_of_two_stop_texts_the_one_that_is_complete_first_counts() -> None:
    assert run(OutputRules(stops=("bcde", "cd", "d")), "abcdef") == ("ab", Ended("stop", "cd"))


def test_raw_is_untouched_otherwise() -> None:
    text = "\n \n)\n)\n)\nfoo\nfoo\nfoo\nfoo\n" + "_attr" * 20 + "\r\n  "
    assert run(OutputRules("raw", suffix=")\n", n_indent=8, stops=("",)), text) == (text, None)


def test_after_the_end_everything_is_ignored() -> None:
    output = OutputFilter(OutputRules("line"))
    assert output.feed("a\nb") == "a"
    assert output.feed("c") == ""
    assert output.flush() == ""


# line

MODES: tuple[Mode, ...] = ("line", "block")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ny = 2", "x = 1"),
        ("x\r\ny", "x"),
        ("\n    pass", ""),
        ("  \n", ""),
        ("   ", ""),
        ("", ""),
        ("  x ", "  x "),
    ],
)
def test_a_line_ends_before_its_newline(text: str, expected: str) -> None:
    output, ended = run(OutputRules("line"), text)
    assert output == expected
    assert reason(ended) == ("line" if "\n" in text else None)


@pytest.mark.parametrize(
    ("line_prefix", "completion", "rest", "expected"),
    [
        ("foo(", "x)", ")", "x"),
        ("foo(", "(a)", ")", "(a)"),
        ("foo(", "(a))", ")", "(a)"),
        ("foo(", "x);", ");", "x"),
        ("foo(", "x)", ");", "x"),
        ("foo(", "bar(x)", ");", "bar(x)"),
        ('print("', 'hello")', '")', "hello"),
        ('print("', 'hello"', '"', "hello"),
        ("x = ", 'f("a")', '"', 'f("a")'),
        ("a = ", "b;", ";", "b"),
        ("a = [", "[1, 2], [3]", "]", "[1, 2], [3]"),
        ("a = [", "1, 2]", "]  ", "1, 2"),
        ("if x ", "== y:", ":", "== y"),
        ("x = a", " + b", " + b", ""),
        ("x = a", ".b", "   ", ".b"),
    ],
)
def test_what_the_rest_of_the_line_repeats_is_trimmed_unless_its_brackets_are_needed(
    line_prefix: str, completion: str, rest: str, expected: str
) -> None:
    for mode in MODES:
        rules = OutputRules(mode, suffix=rest + "\nnext line\n", line_prefix=line_prefix)
        assert run(rules, completion)[0] == expected
        assert run(rules, *completion)[0] == expected
        if mode == "line" or (expected != completion and completion.endswith(rest.rstrip())):
            assert run(rules, completion + "\nnext line")[0] == expected


def test_a_line_is_emitted_at_once_except_what_the_suffix_might_repeat() -> None:
    output = OutputFilter(OutputRules("line", suffix=");\n"))
    assert [output.feed(chunk) for chunk in ("foo", "(x", ")", ".bar", ")", ";", "\n")] == [
        "foo",
        "(x",
        "",
        ").bar",
        "",
        "",
        "",
    ]
    assert output.finished == Ended("line")


def test_leading_blanks_wait_for_the_first_visible_character() -> None:
    output = OutputFilter(OutputRules("line"))
    assert [output.feed("  "), output.feed("x"), output.feed(" ")] == ["", "  x", " "]


# block


def test_a_block_goes_on_over_lines_until_the_engine_ends() -> None:
    text = "\n    if x:\n\n        return 1\n    return 2\n"
    assert run(OutputRules("block", suffix="\n\ndef g():\n    pass\n"), *text) == (text, None)


def test_a_block_ends_before_a_line_that_is_indented_less() -> None:
    rules = OutputRules("block", n_indent=4)
    text = "x = 1\n    y = 2\n\n    z = 3\n\nclass A:\n"
    assert run(rules, text) == ("x = 1\n    y = 2\n\n    z = 3", Ended("indent"))
    assert run(OutputRules("block"), text) == (text, None)


def test_a_block_ends_before_the_line_below_the_cursor() -> None:
    rules = OutputRules("block", suffix="\n\n    return total\n", line_prefix="    ")
    text = "for x in xs:\n        total += x\n    return total\n    more()\n"
    assert run(rules, text) == ("for x in xs:\n        total += x", Ended("suffix"))
    assert run(rules, "for x in xs:\n        total += x\n    return total")[0] == "for x in xs:\n        total += x"
    assert run(rules, "return total\n") == ("", Ended("suffix"))
    deeper = "for x in xs:\n        return total\n"
    assert run(rules, deeper) == (deeper, None)


def test_a_block_before_text_on_the_same_line_ends_where_that_text_begins() -> None:
    rules = OutputRules("block", suffix="return x\n", line_prefix="    ")
    assert run(rules, "y = 1\n    return x\n    z = 2") == ("y = 1\n    ", Ended("suffix"))
    rules = OutputRules("block", suffix=")\n", line_prefix="foo(")
    assert run(rules, "\n    a,\n    b,\n)\nbar()") == ("\n    a,\n    b,\n", Ended("suffix"))
    assert run(rules, "\n    a,\n    b)\nbar()") == ("\n    a,\n    b", Ended("suffix"))
    assert run(rules, "x)\nbar(") == ("x", Ended("suffix"))


def test_a_line_that_was_begun_as_the_one_below_may_be_finished_so() -> None:
    rules = OutputRules("block", suffix="\nadd(1)\n", line_prefix="add(")
    assert run(rules, "1)") == ("1)", None)


def test_a_closing_bracket_that_the_completion_opened_is_not_taken_for_the_suffix() -> None:
    rules = OutputRules("block", suffix="\n}\n")
    text = "\nif (a) {\n  b();\n}\nc();\n"
    assert run(rules, text) == (text, None)
    assert run(rules, "\nb();\n}\nc();\n") == ("\nb();", Ended("suffix"))
    rules = OutputRules("block", suffix=")\n", line_prefix="foo(")
    assert run(rules, "bar(\n    1\n)") == ("bar(\n    1\n)", None)


def test_a_block_of_blank_lines_is_empty_but_its_last_newline_is_kept() -> None:
    assert run(OutputRules("block"), "\n    \n\n") == ("", None)
    assert run(OutputRules("block", suffix="return\n"), "x = 1\n    ") == ("x = 1\n    ", None)


def test_a_block_holds_back_newlines_and_lines_that_may_go_but_nothing_else() -> None:
    output = OutputFilter(OutputRules("block", suffix="\n    return x\n", n_indent=4))
    chunks = ("a = 1", "\n", "    ", "b", " = 2\n    re", "turn", " y", "\n", "    return x", "\n")
    assert [output.feed(chunk) for chunk in chunks] == ["a = 1", "", "", "\n    b", " = 2", "", "\n    return y"] + [
        ""
    ] * 3
    assert output.finished == Ended("suffix")


# repetition


@pytest.mark.parametrize("mode", ["line", "block"])
def test_a_loop_within_a_line_ends_it(mode: Mode) -> None:
    text, ended = run(OutputRules(mode), "self." + "_attr" * 40)
    assert ended == Ended("repetition")
    assert len(text) <= 40
    text, ended = run(OutputRules(mode), "foo(" + "self.value, " * 40)
    assert ended == Ended("repetition")
    assert len(text) <= 60


def test_the_same_line_is_written_twice_at_most() -> None:
    text = "    x = get(a)\n    x = get(a)\n    x = get(a)\n    x = get(a)\n"
    assert run(OutputRules("block"), text) == (text[:29], Ended("repetition"))
    assert run(OutputRules("block"), *text) == (text[:29], Ended("repetition"))
    assert run(OutputRules("block", line_prefix="    "), text[4:])[0] == text[4:29]


def test_a_loop_over_lines_ends_the_block() -> None:
    text, ended = run(OutputRules("block"), "    a = first(x)\n    b = second(y)\n" * 10)
    assert ended == Ended("repetition")
    assert len(text) <= 4 * 35


@pytest.mark.parametrize(
    "text",
    [
        "=" * 80,
        "# " + "-" * 78,
        "a[b[c[d[0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        "    0, 0, 0, 0, 0, 0, 0, 0,\n" * 6,
        "    0x00, 0xff, 0x00, 0xff, 0x00, 0xff, 0x00, 0xff,\n" * 4,
        "        }\n" * 5,
        "|     |     |     |     |     |\n" * 4,
        "\n" * 30 + "x",
        " " * 200 + "x",
        'x = "' + "A" * 60 + '"',
        "f(None, None, None)\n",
        "int a, int b, int c, int d, int e\n",
        "    pass\n\n    pass\n",
        "assert a == b\nassert a == b\n",
        "test_one, test_two, test_three, test_four, test_five\n",
        inspect.getsource(json.decoder),
        inspect.getsource(textwrap),
    ],
)
def test_real_code_is_no_loop(text: str) -> None:
    assert run(OutputRules("block"), text) == (text if text.strip() else "", None)


# properties

pieces = st.sampled_from(
    [
        "\n",
        "\r\n",
        "\n    ",
        "    ",
        " ",
        ")",
        "(",
        "}",
        ";",
        "x",
        "foo",
        "_attr",
        "_attr_attr_attr",
        "foo\nfoo\n",
        "return x",
        "END",
        "EN",
        '"',
        "\n    return x\n",
        "é",
    ]
)
texts = st.lists(pieces, max_size=24).map("".join)
rules = st.builds(
    OutputRules,
    mode=st.sampled_from(["raw", "line", "block"]),
    stops=st.lists(st.sampled_from(["END", "\n\n", "x;", ";\n", "D", ")", "", "foo\n"]), max_size=3).map(tuple),
    suffix=st.sampled_from(["", ")", ");\n", "\n    return x\n", "return x\n", "\n}\n", ' + "x"\n', "x;\n", "foo\n"]),
    line_prefix=st.sampled_from(["", "    ", "foo(", "x"]),
    n_indent=st.sampled_from([0, 0, 4]),
)


@given(rules, texts, st.lists(st.integers(0, 200), max_size=12))
@settings(max_examples=1500, deadline=None)
@example(OutputRules("line", suffix="foo\n"), "    foo\n", [5])
@example(OutputRules("block", suffix=" + b\n"), "x\n\t+ b\n", [4])
@example(OutputRules("block", suffix=";\n", n_indent=4), "a = 1\n    x;\ny", [14])
@example(OutputRules("line", suffix=")", stops=(";;",)), "x);;", [3])
@example(OutputRules("block", suffix="\nfoo\n", stops=(";\n",)), "x\nfoo;\n", [5])
def test_the_result_does_not_depend_on_the_chunks_and_is_a_start_of_the_text(
    output_rules: OutputRules, text: str, cuts: list[int]
) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    whole = run(output_rules, text)
    assert run(output_rules, *(text[a:b] for a, b in pairwise(bounds))) == whole
    assert run(output_rules, *text) == whole
    assert text.startswith(whole[0])
    for stop in filter(None, output_rules.stops):
        assert stop not in whole[0]
    if output_rules.mode == "line":
        assert "\n" not in whole[0]
    if output_rules.mode != "raw":
        assert whole[0] == "" or whole[0].strip()


@given(rules, texts)
@settings(max_examples=300, deadline=None)
def test_what_is_emitted_is_never_withdrawn(output_rules: OutputRules, text: str) -> None:
    output = OutputFilter(output_rules)
    emitted = ""
    for index, character in enumerate(text):
        emitted += output.feed(character)
        final = run(output_rules, text[: index + 1])[0]
        assert final.startswith(emitted)
