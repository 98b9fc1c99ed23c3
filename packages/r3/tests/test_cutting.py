from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from papercore.errors import ConfigError
from papercore.tiny import byte_tokenizer, word_tokenizer
from r3.config import CutConfig, PromptConfig
from r3.cutting import cut_points, encode, encode_all, find_cuts, starts, within
from r3.demos import Demo, Encoded, Start
from r3.prompting import target_ids
from r3.steps import segments
from r3.tasks import compose
from r3.testing import gsm8k_rows
from r3.verifiers import verifier_for

CORPUS = [
    "He has 9 eggs.\nHe sells 4 eggs at $2.50 each.\n\nThat is 10 dollars.\n#### 10",
    "    x = 9 - 4\n    return x * 2\n",
    "我有苹果。你有三个!\n\t答 5 🙂🙂 naïve café ▁ ok",
] * 30
PIECES = [
    *("He has 9 eggs.", " That is 2", "\n", "\n\n", ". ", ".\n", " ", "  ", "\t", "x = (1,\n 2)\n"),
    *(
        "我有苹果。",
        "🙂",
        "👨‍👩‍👧",
        "é",
        "e\u0301",
        "▁",
        "Mr. Fox",
        "3.5",
        "### ",
        "\r\n",
        "\u00a0",
        "١",
    ),
]


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """Real tokenizers, made or trained here."""
    if kind == "bytes":
        return byte_tokenizer()
    if kind == "words":
        return word_tokenizer(["He", "has", "9", "eggs.", "####", "10", "我有苹果。", "🙂"])
    if kind == "unigram":
        return metaspace_unigram()
    return byte_bpe(across="across" in kind, trims="trims" in kind)


def byte_bpe(*, across: bool, trims: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE; `across` merges over line breaks, `trims` keeps blanks off spans."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not across)
    inner.post_processor = processors.ByteLevel(trim_offsets=trims)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=8 if across else None,
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def metaspace_unigram() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "<eos>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>")


EXACT = ["bytes", "bpe", "bpe-across", "bpe-trims"]
ALL = [*EXACT, "words", "unigram"]
RULES = ["lines", "sentences", "tokens", "code-lines", "regex"]


def cut_by(rule: str, **more) -> CutConfig:
    return CutConfig(rule=rule, regex=r"[.,]\s*|(?=\n)" if rule == "regex" else None, **more)


def demo_of(target: str, answer_at: int, gold: str = "4") -> Demo:
    return Demo(id="1", question="How many?", target=target, gold=gold, answer_at=answer_at)


def encoded_with(tokenizer, target: str, answer_at: int, cut: CutConfig, task="gsm8k") -> Encoded:
    return encode(demo_of(target, answer_at), tokenizer, PromptConfig(), cut, task)


def prefixes(one: Encoded, tokenizer) -> list[str]:
    return [
        tokenizer.decode(one.target[:cut], clean_up_tokenization_spaces=False) for cut in one.cuts
    ]


TARGETS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TARGETS, st.data())
@pytest.mark.parametrize("kind", ALL)
def test_prefix_and_rest_are_the_demonstration(kind, target, data):
    tokenizer = tokenizer_of(kind)
    answer_at = data.draw(st.integers(0, len(target)))
    cut = cut_by(data.draw(st.sampled_from(RULES)), tail=data.draw(st.integers(1, 3)))
    one = encoded_with(tokenizer, target, answer_at, cut)
    whole = tokenizer(target, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert one.target == (*whole, tokenizer.eos_token_id)
    assert one.cuts[0] == 0
    assert list(one.cuts) == sorted(set(one.cuts))
    assert one.cuts[-1] <= max(0, len(whole) - 1)  # something beside the end is generated
    for at in one.cuts:
        assert [*one.target[:at], *one.target[at:-1]] == whole
        if kind in EXACT and "\ufffd" not in target:
            prefix, rest = tokenizer.decode(whole[:at]), tokenizer.decode(whole[at:])
            assert prefix + rest == target  # no character is split
            assert len(prefix) <= answer_at


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TARGETS, st.data())
@pytest.mark.parametrize("kind", ["bytes", "bpe", "bpe-across"])
def test_cuts_are_the_first_clean_ones_behind_each_step(kind, target, data):
    tokenizer = tokenizer_of(kind)
    answer_at = data.draw(st.integers(0, len(target)))
    rule = data.draw(st.sampled_from(RULES))
    ids, spans = target_ids(tokenizer, target)
    found = cut_points(target, spans[:-1], answer_at=answer_at, cut=cut_by(rule))

    # by decoding alone: how much text each clean number of tokens stands for
    clean = {0: 0}
    for num in range(1, len(ids)):
        prefix = tokenizer.decode(ids[:num])
        if prefix + tokenizer.decode(ids[num:-1]) == target and "\ufffd" not in prefix:
            clean[num] = len(prefix)
    if "\ufffd" in target:
        return
    ends = clean.values() if rule == "tokens" else segments(target, rule, cut_by(rule).regex)
    expected = {0}
    for end in ends:
        num = min((num for num, reach in clean.items() if reach >= end), default=None)
        if end <= answer_at and num is not None and clean[num] <= answer_at:
            expected |= {num} if clean[num] < len(target) else set()
    assert set(found) == expected


TARGET = "He has 9 eggs.\nHe sells 4. That is 5.\n#### 5"


def test_steps_by_hand():
    tokenizer = byte_tokenizer()
    at = TARGET.index("####")
    for rule, expected in {
        "lines": ["", "He has 9 eggs.\n", "He has 9 eggs.\nHe sells 4. That is 5.\n"],
        "sentences": [
            "",
            "He has 9 eggs.\n",
            "He has 9 eggs.\nHe sells 4.",
            "He has 9 eggs.\nHe sells 4. That is 5.\n",
        ],
        "tokens": [TARGET[:end] for end in range(at + 1)],
        "auto": ["", "He has 9 eggs.\n", "He has 9 eggs.\nHe sells 4. That is 5.\n"],
    }.items():
        one = encoded_with(tokenizer, TARGET, at, CutConfig(rule=rule))
        assert prefixes(one, tokenizer) == expected
    one = encoded_with(tokenizer, TARGET, at, CutConfig(rule="regex", regex="eggs"))
    assert prefixes(one, tokenizer) == ["", "He has 9 eggs"]


def test_more_steps_can_be_left_to_generate():
    tokenizer = byte_tokenizer()
    found = [
        len(encoded_with(tokenizer, TARGET, 38, CutConfig(rule="sentences", tail=tail)).cuts)
        for tail in (1, 2, 3, 4, 9)
    ]
    assert found == [4, 3, 2, 1, 1]


def spans_of(*words: str) -> list[tuple[int, int]]:
    reach = [0]
    for word in words:
        reach.append(reach[-1] + len(word))
    return list(pairwise(reach))


def test_token_over_a_boundary_goes_into_the_prefix():
    text = "a.\n\nb.\n#### 4"
    spans = spans_of("a", ".\n", "\nb", ".\n", "####", " 4")
    found = find_cuts(text, spans, answer_at=7, cut=CutConfig(rule="lines"))
    assert found.points == (0, 3, 4)  # the step ends after 4 characters, the token after 5
    assert (found.moved, found.behind) == (1, 0)


def test_token_into_the_answer_drops_the_boundary():
    text = "a.\nb.\n#### 4"
    spans = spans_of("a", ".\n", "b", ".", "\n####", " 4")
    found = find_cuts(text, spans, answer_at=6, cut=CutConfig(rule="lines"))
    assert found.points == (0, 2)
    assert (found.moved, found.behind) == (1, 1)


def test_boundaries_in_one_token_are_one_cut():
    text = "a\nb\nc\n#### 4"
    found = find_cuts(
        text, spans_of("a\nb\n", "c\n", "####", " 4"), answer_at=6, cut=CutConfig(rule="lines")
    )
    assert found.points == (0, 1, 2)
    assert (found.moved, found.met) == (1, 1)


def test_character_of_several_tokens_is_not_split():
    tokenizer = byte_tokenizer()
    demo = demo_of("a🙂b #### 4", 4)
    encoded, counts = encode_all(
        [demo], tokenizer, PromptConfig(), CutConfig(rule="tokens"), "gsm8k"
    )
    assert encoded[0].cuts == (0, 1, 5, 6, 7)  # the face has four bytes
    assert (counts["moved"], counts["met"]) == (0, 0)


def test_boundary_before_a_character_that_begins_inside_a_token():
    text = "a 🙂b #### 4"
    spans = [(0, 1), (1, 3), (2, 3), (3, 4), (4, 9), (9, 11)]  # the blank and half of the face
    found = find_cuts(text, spans, answer_at=5, cut=CutConfig(rule="regex", regex="a "))
    assert (found.points, found.moved) == ((0, 3), 1)


def test_whole_demonstration_is_no_prefix():
    cut = CutConfig(rule="regex", regex=r"\.")
    assert cut_points("3.5\n", [(0, 3)], answer_at=3, cut=cut) == (0,)
    assert cut_points("3.5\n", [(0, 2), (2, 3)], answer_at=3, cut=cut) == (0, 1)


def test_blanks_without_a_span_have_the_one_that_is_left_out():
    tokenizer = tokenizer_of("bpe-trims")
    text = "a  b\n#### 4"
    assert target_ids(tokenizer, text).spans[:4] == ((0, 1), (2, 2), (3, 3), (3, 4))
    one = encoded_with(tokenizer, text, 5, CutConfig(rule="tokens"))
    assert prefixes(one, tokenizer) == ["", "a", "a ", "a  ", "a  b", "a  b\n"]


def test_words_without_blanks_in_their_spans():
    tokenizer = tokenizer_of("words")
    text = "He has 9 eggs. #### 10"
    one = encoded_with(tokenizer, text, 15, CutConfig(rule="tokens"))
    assert one.cuts == (0, 1, 2, 3, 4)
    assert encoded_with(tokenizer, text, 15, CutConfig(rule="sentences")).cuts == (0, 4)


def test_no_prefix_states_an_answer():
    text = "He has 9.\nSo the answer is 5.\nI am sure.\nYes.\n#### 5"
    tokenizer = byte_tokenizer()
    at = text.index("####")
    demo = demo_of(text, at, "5")
    encoded, counts = encode_all(
        [demo], tokenizer, PromptConfig(), CutConfig(rule="lines"), "gsm8k"
    )
    assert prefixes(encoded[0], tokenizer) == ["", "He has 9.\n"]
    assert counts["leaking"] == 3
    tokens, _ = encode_all([demo], tokenizer, PromptConfig(), CutConfig(rule="tokens"), "gsm8k")
    assert max(map(len, prefixes(tokens[0], tokenizer))) == len("He has 9.\nSo the answer i")


@pytest.mark.parametrize("target", ["", "#### 4", "4"])
def test_demonstration_without_rationale_is_a_bare_question(target):
    one = encoded_with(byte_tokenizer(), target, 0, CutConfig())
    assert one.cuts == (0,)
    assert starts([one], CutConfig()) == [Start(0, 0, 0, 0.0, weight=5)]


def test_answer_at_the_very_end_leaves_something_to_generate():
    one = encoded_with(byte_tokenizer(), "one\ntwo\n", 8, CutConfig(rule="lines"))
    assert one.cuts == (0, 4)


def test_one_line_is_cut_at_tokens_only_where_the_task_chose_lines():
    text = "He has 9. That is 4."
    tokenizer = byte_tokenizer()
    demos = [demo_of(text, 10), demo_of(TARGET, 38)]
    encoded, counts = encode_all(demos, tokenizer, PromptConfig(), CutConfig(), "gsm8k")
    assert [len(one.cuts) for one in encoded] == [11, 3]
    assert counts["uniform"] == 1
    encoded, counts = encode_all(demos, tokenizer, PromptConfig(), CutConfig(rule="lines"), "gsm8k")
    assert [len(one.cuts) for one in encoded] == [1, 3]
    assert (counts["uniform"], counts["only_question"]) == (0, 1)
    encoded, counts = encode_all(demos[:1], tokenizer, PromptConfig(), CutConfig(), "boardgame")
    assert [len(one.cuts) for one in encoded] == [2]  # its own rule is sentences


def test_counts_of_all_demonstrations():
    demos = [demo_of(TARGET, 38), demo_of("#### 4", 0)]
    _, counts = encode_all(demos, byte_tokenizer(), PromptConfig(), CutConfig(), "gsm8k")
    assert {name: count for name, count in counts.items() if count} == {
        "demos": 2,
        "cuts": 4,
        "only_question": 1,
    }
    assert set(counts) >= {"moved", "met", "behind", "leaking", "uniform"}


def test_bad_regex_is_refused():
    with pytest.raises(ConfigError, match="is no regular expression"):
        encoded_with(byte_tokenizer(), TARGET, 38, CutConfig(rule="regex", regex="("))


def with_steps(num: int, *, tail: int = 1) -> Encoded:
    """A demonstration of `num` steps of 10 tokens each, the answer among them."""
    cuts = tuple(10 * step for step in range(max(1, num - tail + 1)))
    return Encoded(demo_of("", 0), (1, 2, 3), (0,) * (10 * num) + (9,), cuts)


@pytest.mark.parametrize(
    ("steps", "shares", "expected"),
    [
        # what the official data have (spec 2.2): GSM8K in words, M=5
        (1, 5, {0: 5}),
        (2, 5, {0: 2, 1: 3}),
        (3, 5, {0: 1, 1: 2, 2: 2}),
        (4, 5, {0: 1, 1: 1, 2: 2, 3: 1}),  # cut 2 twice as often
        (5, 5, {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}),
        (6, 5, {0: 1, 1: 1, 2: 1, 4: 1, 5: 1}),
        (7, 5, {0: 1, 1: 1, 3: 1, 4: 1, 6: 1}),
        # programs: the same, see test_programs; other numbers of states
        (6, 4, {0: 1, 1: 1, 3: 1, 4: 1}),
        (8, 4, {0: 1, 2: 1, 4: 1, 6: 1}),
        (1, 1, {0: 1}),
        (9, 1, {0: 1}),
        (10, 5, {0: 1, 2: 1, 4: 1, 6: 1, 8: 1}),
    ],
)
def test_states_are_where_official_data_have_them(steps, shares, expected):
    found = starts([with_steps(steps)], CutConfig(states=shares))
    assert {one.cut // 10: one.weight for one in found} == expected
    assert [one.depth for one in found] == list(range(len(expected)))
    assert [one.share for one in found] == [pytest.approx(at / steps) for at in expected]


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 4))
def test_shares_of_a_demonstration_are_always_m(steps, shares, tail):
    one = with_steps(steps, tail=tail)
    found = starts([one], CutConfig(states=shares, tail=tail))
    assert sum(state.weight for state in found) == shares
    assert found[0].cut == 0
    assert [state.cut for state in found] == sorted({state.cut for state in found})
    for k, cut in enumerate(sorted(cut for s in found for cut in [s.cut] * s.weight)):
        # the nearest step to T * k / M, if enough are left behind it
        exact = max(steps, tail) * k / shares
        nearest = min(range(max(steps, tail) + 1), key=lambda step: (abs(step - exact), step))
        assert cut == 10 * min(nearest, len(one.cuts) - 1)


def test_all_boundaries_can_be_states():
    found = starts([with_steps(3), with_steps(1)], CutConfig(states="all"))
    assert [(one.demo, one.cut, one.depth, one.weight) for one in found] == [
        *((0, 0, 0, 1), (0, 10, 1, 1), (0, 20, 2, 1)),
        (1, 0, 0, 1),
    ]


def test_states_without_room_are_dropped_and_counted():
    encoded = [with_steps(5), with_steps(2)]
    states = starts(encoded, CutConfig())
    kept, dropped = within(states, encoded, 3 + 20 + 1)
    assert [(one.demo, one.cut) for one in kept] == [(0, 0), (0, 10), (0, 20), (1, 0), (1, 10)]
    assert dropped == 2
    assert within(states, encoded, 3 + 20)[1] == 3
    assert within(states, encoded, 3) == ([], 7)


@pytest.mark.parametrize("kind", ["bytes", "bpe", "bpe-across"])
def test_word_problems_are_cut_between_lines_and_judged_as_a_whole(kind):
    tokenizer, verifier = tokenizer_of(kind), verifier_for("gsm8k")
    demos = []
    for number, row in enumerate(gsm8k_rows(40)):
        rationale, _, gold = row["answer"].rpartition("#### ")
        target, answer_at = compose("gsm8k", rationale, gold)
        demos.append(Demo(str(number), row["question"], target, gold, answer_at))
    encoded, counts = encode_all(demos, tokenizer, PromptConfig(), CutConfig(), "gsm8k")
    assert counts["leaking"] == counts["uniform"] == 0
    for one in encoded:
        assert len(one.cuts) == one.demo.target.count("\n") + 1
        for cut, prefix in zip(one.cuts, prefixes(one, tokenizer), strict=True):
            rest = tokenizer.decode(one.target[cut:-1])
            assert verifier.verify(prefix + rest, one.demo.gold).correct
            assert verifier.verify(prefix, one.demo.gold).parsed is None
