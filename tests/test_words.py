"""What an error says to somebody who mistyped a name."""

from __future__ import annotations

from kerastoolkit._words import did_you_mean, near_misses


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
