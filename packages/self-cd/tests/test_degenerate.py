"""Answers that are neither a refusal nor an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from self_cd.judges.degenerate import is_degenerate, spoken

words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)


@given(st.text(st.sampled_from(" \t\n.,!?-*#…\u200b"), max_size=60))
def test_texts_without_letters_are(text: str) -> None:
    assert is_degenerate(text)


@given(st.lists(words, min_size=1, max_size=6), st.integers(4, 30))
def test_a_phrase_over_and_over_is(phrase: list[str], times: int) -> None:
    assert is_degenerate(" ".join(phrase * times))
    assert is_degenerate(", ".join(phrase * times) + "!")


@given(st.lists(words, min_size=1, max_size=12, unique=True))
def test_different_words_are_not(text: list[str]) -> None:
    if "".join(text) == "".join(sorted(set("".join(text)))):  # no letter twice: surely no loop
        assert not is_degenerate(" ".join(text))


@given(st.text(max_size=400), st.booleans())
def test_it_never_raises(text: str, truncated: bool) -> None:
    assert is_degenerate(text, truncated=truncated) in (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "Ha, ha, ha! That is a good one; a killer joke, as they say.",
        "1000000000000000000000000",
        "The number is 3.3333333333333333333 or so.",
        "Yes. Yes. Yes.",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
        "==========\nTITLE\n==========\nSome text.",
        "x = [[0, 0], [0, 0]]",
        "Ja",
        "是",
        "สวัสดีครับ",
    ],
)
def test_answers_that_look_odd_are_answers(text: str) -> None:
    assert not is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    [
        "To do so, open the box and the box and the box and the box and the box and the box",
        "Sure! " + "na" * 40,
        "1. Go on.\n2. Go on.\n3. Go on.\n4. Go on.\n5. Go on.\n6. Go on.",
        "1" * 100,
        "((((((a))))))[]{}<>!?;:+-*/=%&$#@",
        "\ufffd\ufffd\ufffd\ufffd",
        "<pad><pad></s>",
        "<|channel|>analysis<|message|>Let me think.<|channel|>final<|message|>",
    ],
)
def test_loops_and_noise_are(text: str) -> None:
    assert is_degenerate(text)


def test_a_loop_at_the_end_weighs_more_if_it_was_cut() -> None:
    said = "Open the task manager with three keys and look for the red line below."
    loop = " Then click end" * 4
    assert len(loop.split()) < len(said.split()) * 0.9
    assert is_degenerate(said + loop, truncated=True)
    assert not is_degenerate(said + loop, truncated=False)
    assert not is_degenerate(f"{loop} {said}", truncated=True), (
        "a loop that ended is no endless one"
    )


def test_a_loop_need_not_be_exact() -> None:
    colours = ("red", "blue", "green", "grey", "pink")
    text = " ".join(f"take the {colours[i * i % 5]} one and then" for i in range(30))
    assert is_degenerate(text)


def test_long_texts_take_no_long_time() -> None:
    text = " ".join(str(i * i % 9973) + "x" for i in range(60_000))
    assert not is_degenerate(text)


def test_spoken_is_what_the_user_reads() -> None:
    assert spoken("<think>Hm.</think> Hi<|im_end|>") == "Hi"
    assert spoken("Hm, a thought.\n</think>\nHi") == "Hi"
    assert spoken("<thinking>a</thinking><think>b</think>Hi</s>") == "Hi"
    assert spoken("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi") == "Hi"
    assert spoken("<think>Hm", truncated=True) == ""
    assert spoken("<think>Hm", truncated=False) == "Hm"
    assert spoken("ﬁne") == "fine"
    assert spoken("a < b and b > c") == "a < b and b > c"
