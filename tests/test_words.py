"""What an error says to somebody who mistyped a name, and text that is shown and not obeyed."""

from __future__ import annotations

import pytest

from kerastoolkit._words import did_you_mean, near_misses, printable, quoted


def test_near_misses_pass_over_letter_case_and_punctuation() -> None:
    assert near_misses("TARGET", ["target", "other"]) == ["target"]
    assert near_misses("mobilenet_v2", ["MobileNet", "MobileNetV2"], n=1) == ["MobileNetV2"]
    assert near_misses("zzz", ["target"]) == []


def test_of_names_that_differ_in_punctuation_the_one_written_alike_is_named() -> None:
    assert near_misses("early_stoping", ["EarlyStopping", "early_stopping"]) == ["early_stopping"]
    assert near_misses("EarlyStoping", ["EarlyStopping", "early_stopping"]) == ["EarlyStopping"]


def test_columns_may_have_numbers_for_names() -> None:
    assert near_misses(1990, [1991, "year"]) == ["1991"]


def test_the_sentence_is_left_out_where_nothing_is_near() -> None:
    assert did_you_mean("hiden", ["hidden", "epochs"]) == " Did you mean 'hidden'?"
    assert did_you_mean("zzz", ["hidden", "epochs"]) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),  # the same in one character
        ("a\nb\rc\td\0", r"a\nb\rc\td\x00"),
        ("line\u2028break\x85", r"line\u2028break\x85"),
        ("\u202egnp.exe\u202c\u2066x\u2069", r"\u202egnp.exe\u202c\u2066x\u2069"),
        ("\ufeffpay\u200bload", r"\ufeffpay\u200bload"),
        ("half \ud800, tag \U000e0041", r"half \ud800, tag \U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_spelt_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(printable(text)) == shown
    assert quoted(text) == f"'{shown}'"


@pytest.mark.parametrize(
    "text",
    ["", "plain", "$5\\n", "日本語", "עברית", "می\u200cخواهم", "👩\u200d🔬", "a\u00a0b", "co\u00adoperate", "\ue000"],
)
def test_text_of_any_language_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_lines_are_kept_where_they_are_asked_for() -> None:
    assert printable("one\ntwo\x1b", keep="\n") == "one\ntwo\\x1b"
    assert printable(3.5) == "3.5"
