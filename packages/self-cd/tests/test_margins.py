import itertools
import math

import pytest
import torch

from papercore.errors import ConfigError, DataError
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer, tiny_llama, word_tokenizer
from self_cd.config import OpeningsConfig
from self_cd.contexts import Contexts
from self_cd.margins import context_margins, refusal_margins, side_margins
from self_cd.openings import Form, Openings, answer_ids, encode_openings

KINDS = ("llama", "llama-gqa", "mistral", "qwen3")
WORDS = ("<s>", "ask", "SAFE", "how", "kill", "fog", "sorry", "cannot", "help", "sure", "to", "do")


def words():
    return word_tokenizer(WORDS)


def ids(count, seed):
    chosen = torch.randint(3, 250, (count,), generator=torch.Generator().manual_seed(seed))
    return tuple(chosen.tolist())


def pairs(*lengths):
    return [Contexts(ids(n + 7, seed=n), ids(n, seed=n + 1)) for n in lengths]


def logprob(model, context, continuation):
    """One plain forward per token, without a cache or a batch."""
    total = 0.0
    for place, token in enumerate(continuation):
        read = torch.tensor([[*context, *continuation[:place]]])
        with torch.no_grad():
            total += float(model(read, use_cache=False).logits[0, -1].log_softmax(-1)[token])
    return total


def brute_margin(model, context, openings):
    """Sums over forms, none of which goes on from another one."""
    total = {"refusal": 0.0, "answer": 0.0}
    for form in openings.forms:
        total[form.side] += math.exp(logprob(model, context, form.ids))
    return math.log(total["refusal"]) - math.log(total["answer"])


@pytest.mark.parametrize("kind", KINDS)
def test_margins_equal_plain_forwards_token_by_token(kind):
    model, tokenizer = tiny_model(kind).double(), byte_tokenizer()
    config = OpeningsConfig(refusal=("No", "Not I", "Sorry"), answer=("Yes", "1.", "Su"))
    mine = pairs(5, 23, 11)
    found = refusal_margins(model, tokenizer, mine, config)
    openings = encode_openings(tokenizer, config)
    for place, pair in enumerate(mine):
        expected = [
            brute_margin(model, context, openings) for context in (pair.plain, pair.emphasis)
        ]
        assert float(found.plain_B[place]) == pytest.approx(expected[0], abs=1e-6)
        assert float(found.emphasis_B[place]) == pytest.approx(expected[1], abs=1e-6)
        assert float(found.push()[place]) == pytest.approx(expected[1] - expected[0], abs=1e-6)


def test_one_token_openings_are_a_difference_of_logits():
    tokenizer = words()
    model = tiny_llama(len(tokenizer), initializer_range=0.3)
    config = OpeningsConfig(refusal=("sorry",), answer=("sure",))
    pair = Contexts(emphasis=(0, 1, 2, 3, 4, 5), plain=(0, 1, 3, 4, 5))
    found = refusal_margins(model, tokenizer, [pair], config)
    for context, margin in ((pair.plain, found.plain_B), (pair.emphasis, found.emphasis_B)):
        with torch.no_grad():
            logits = model(torch.tensor([context])).logits[0, -1]
        expected = float(logits[6] - logits[9])
        assert float(margin[0]) == pytest.approx(expected, abs=1e-5)


def test_several_one_token_openings_are_summed():
    tokenizer = words()
    model = tiny_llama(len(tokenizer), initializer_range=0.3)
    config = OpeningsConfig(refusal=("sorry", "cannot"), answer=("sure", "to", "do"))
    context = (0, 1, 3, 4)
    margin = context_margins(model, [context], encode_openings(tokenizer, config))
    with torch.no_grad():
        logits = model(torch.tensor([context])).logits[0, -1]
    expected = logits[[6, 7]].logsumexp(0) - logits[[9, 10, 11]].logsumexp(0)
    assert float(margin[0]) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_and_order_change_nothing(kind, batch_size):
    model, tokenizer = tiny_model(kind).double(), byte_tokenizer()
    config = OpeningsConfig(refusal=("No", "Sorry"), answer=("Yes", "1."))
    openings = encode_openings(tokenizer, config)
    contexts = [ids(n, seed=n) for n in (4, 31, 1, 17)]
    whole = context_margins(model, contexts, openings, batch_size=batch_size)
    single = torch.cat([context_margins(model, [one], openings) for one in contexts])
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-6)
    turned = context_margins(model, contexts[::-1], openings, batch_size=batch_size)
    torch.testing.assert_close(turned.flip(0), whole, rtol=0, atol=1e-6)


# forms


def test_an_opening_of_the_other_side_is_taken_out_of_its_start():
    tokenizer = words()
    config = OpeningsConfig(
        refusal=("sorry cannot",), answer=("sorry", "sorry cannot help", "sure")
    )
    openings = encode_openings(tokenizer, config)
    shown = [(one.text, one.parent) for one in openings.forms]
    assert shown == [("sorry", None), ("sure", None), ("sorry cannot", 0), ("sorry cannot help", 2)]
    logprobs = torch.tensor([[0.5, 0.2, 0.3, 0.1]]).log()
    # refusals: 0.3 without the 0.1 that is an answer; answers: 0.5 - 0.3, 0.2 and 0.1
    assert float(side_margins(logprobs, openings)[0]) == pytest.approx(
        math.log(0.2 / 0.5), abs=1e-6
    )


def test_every_answer_belongs_to_the_longest_opening_that_it_begins_with():
    tokenizer = words()
    model = tiny_llama(len(tokenizer), initializer_range=0.3).double()
    config = OpeningsConfig(
        refusal=("sorry cannot", "sorry sorry sorry"),
        answer=("sorry", "sorry cannot help", "sure", "sorry to"),
    )
    side = dict.fromkeys(config.refusal, "refusal") | dict.fromkeys(config.answer, "answer")
    context = (0, 1, 3, 4)
    vocabulary = range(len(tokenizer))
    total = {"refusal": 0.0, "answer": 0.0}
    answers = torch.tensor(list(itertools.product(vocabulary, repeat=3)))
    read = torch.cat([torch.tensor([context]).expand(len(answers), -1), answers], dim=1)
    with torch.no_grad():
        logprobs = model(read).logits[:, 3:6].log_softmax(-1)
    probs = logprobs.gather(-1, answers[:, :, None]).sum((1, 2)).exp()
    for answer, prob in zip(answers.tolist(), probs.tolist(), strict=True):
        text = tokenizer.decode(answer)
        starts = [one for one in side if f"{text} ".startswith(f"{one} ")]
        if starts:
            total[side[max(starts, key=len)]] += prob
    expected = math.log(total["refusal"] / total["answer"])
    found = context_margins(model, [context], encode_openings(tokenizer, config))
    assert float(found[0]) == pytest.approx(expected, abs=1e-9)


def test_an_opening_of_its_own_side_adds_nothing():
    tokenizer = words()
    short = encode_openings(tokenizer, OpeningsConfig(refusal=("sorry",), answer=("sure",)))
    both = OpeningsConfig(refusal=("sorry cannot", "sorry"), answer=("sure", "sure to do"))
    assert [one.ids for one in encode_openings(tokenizer, both).forms] == [
        one.ids for one in short.forms
    ]


def test_a_start_that_rounding_leaves_nothing_of_is_no_opening():
    openings = Openings(
        (
            Form("answer", (1,), "I"),
            Form("answer", (2,), "Sure"),
            Form("refusal", (1, 3), "I cannot", parent=0),
        )
    )
    logprobs = torch.tensor([[-1.0, -3.0, -1.0 + 1e-7]])
    assert float(side_margins(logprobs, openings)[0]) == pytest.approx(2.0, abs=1e-5)


def test_a_space_at_the_end_is_left_out_and_one_in_front_is_tried():
    openings = encode_openings(byte_tokenizer(), OpeningsConfig(refusal=("No",), answer=("To ",)))
    texts = {(one.side, bytes(one.ids)) for one in openings.forms}
    tokenizer = byte_tokenizer()
    expected = {
        (side, bytes(tokenizer(text)["input_ids"]))
        for side, text in (
            ("refusal", "No"),
            ("refusal", " No"),
            ("answer", "To"),
            ("answer", " To"),
        )
    }
    assert texts == expected


def test_equal_tokens_on_both_sides_are_refused_by_name():
    config = OpeningsConfig(refusal=("sorry",), answer=("sure", " sorry"))
    with pytest.raises(ConfigError, match=r"refusal 'sorry' and the answer ' sorry'"):
        encode_openings(words(), config)


def test_a_word_that_the_model_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="'I cannot' holds a word"):
        encode_openings(words(), OpeningsConfig())


def test_an_empty_context_is_refused():
    tokenizer = words()
    model = tiny_llama(len(tokenizer))
    openings = encode_openings(tokenizer, OpeningsConfig(refusal=("sorry",), answer=("sure",)))
    with pytest.raises(DataError, match="no tokens"):
        context_margins(model, [()], openings)


GLUED = (
    "{% for m in messages %}{{ '[' + m.role + ']' + (' ' if m.role == 'assistant' else '') "
    "+ m.content }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def test_answers_are_written_as_the_template_writes_them():
    tokenizer = byte_tokenizer()
    bare = tokenizer("No.")["input_ids"]
    assert list(answer_ids(tokenizer, "No.")) == bare
    tokenizer.chat_template = GLUED
    assert list(answer_ids(tokenizer, "No.")) == tokenizer(" No.")["input_ids"]
    # a template that puts something else in front of an answer says nothing about the space
    tokenizer.chat_template = GLUED.replace("(' ' if", "(' <think> ' if")
    assert list(answer_ids(tokenizer, "No.")) == bare
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert list(answer_ids(tokenizer, "No.")) == bare
