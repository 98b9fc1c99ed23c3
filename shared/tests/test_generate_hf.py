"""The transformers backend against plain `model.generate`, one prompt at a time."""

import copy
import math
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from papercore.errors import GenerationError, ModelError
from papercore.generate import (
    Completion,
    Generator,
    ImagePart,
    Message,
    Request,
    SamplingParams,
    TextPart,
)
from papercore.generate.decoding import RowSampler
from papercore.generate.hf import HFGenerator
from papercore.generate.texts import cut_at_stop
from papercore.testing import TINY, assert_close, tiny_model
from papercore.testing.fixtures import one_thread  # noqa: F401
from papercore.tiny import byte_tokenizer, word_tokenizer

# Without an end-of-sequence token, so that only the tests of it meet one.
TOKENIZER = byte_tokenizer(special={"pad": "<|pad|>", "bos": "<|bos|>", "unk": "<|unk|>"})
PROMPTS = ["a", "hello there", "xyzzy plugh and more text than the others have", "q" * 20, "zz top"]


def requests(prompts=PROMPTS, **params):
    shared = SamplingParams(**{"max_new_tokens": 7, **params})
    return [Request(id=f"r{i}", prompt=one, params=shared) for i, one in enumerate(prompts)]


def alone(model, token_ids, max_new_tokens):
    """Greedy tokens of one prompt by plain `model.generate`."""
    ids = torch.tensor([token_ids])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=0,
    )
    return tuple(output[0, len(token_ids) :].tolist())


def ids_of(prompt):
    return TOKENIZER(prompt)["input_ids"]


def test_it_is_a_generator():
    assert isinstance(HFGenerator(tiny_model(), TOKENIZER), Generator)


@pytest.mark.parametrize("kind", sorted(TINY))
@pytest.mark.parametrize("batch_size", [1, 2, "auto"])
def test_greedy_batches_equal_single_prompts(kind, batch_size):
    model = tiny_model(kind)
    completions = HFGenerator(model, TOKENIZER, batch_size=batch_size).generate(requests())
    assert [one.id for one in completions] == [f"r{i}" for i in range(len(PROMPTS))]
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert completion.token_ids == alone(model, ids_of(prompt), 7)
        assert completion.text == TOKENIZER.decode(completion.token_ids, skip_special_tokens=True)
        assert completion.finish_reason == "length"
        assert completion.usage.prompt_tokens == len(ids_of(prompt))
        assert completion.usage.completion_tokens == 7


def test_each_request_keeps_its_own_length():
    model = tiny_model()
    mixed = [
        Request(id=str(length), prompt=prompt, params=SamplingParams(max_new_tokens=length))
        for prompt, length in zip(PROMPTS, [9, 1, 4, 2, 6], strict=True)
    ]
    for request, completion in zip(
        mixed, HFGenerator(model, TOKENIZER).generate(mixed), strict=True
    ):
        assert completion.token_ids == alone(
            model, ids_of(request.prompt), request.params.max_new_tokens
        )


def test_token_ids_equal_the_prompt_that_they_encode():
    generator = HFGenerator(tiny_model(), TOKENIZER)
    params = SamplingParams(max_new_tokens=5)
    by_ids = [Request(id="i", token_ids=tuple(ids_of(one)), params=params) for one in PROMPTS]
    by_text = requests(max_new_tokens=5)
    assert [one.token_ids for one in generator.generate(by_ids)] == [
        one.token_ids for one in generator.generate(by_text)
    ]


def test_logprobs_are_those_of_the_model():
    model = tiny_model("qwen3")
    for params in ({}, {"temperature": 0.7, "top_k": 20}):
        completions = HFGenerator(model, TOKENIZER).generate(requests(logprobs=True, **params))
        for prompt, completion in zip(PROMPTS, completions, strict=True):
            ids = torch.tensor([[*ids_of(prompt), *completion.token_ids]])
            log_probs = model(ids).logits[0].log_softmax(-1)
            start = len(ids_of(prompt)) - 1
            expected = [log_probs[start + i, t] for i, t in enumerate(completion.token_ids)]
            assert_close(torch.tensor(completion.logprobs), torch.stack(expected), atol=1e-4)


def test_logprobs_only_when_asked():
    assert HFGenerator(tiny_model(), TOKENIZER).generate(requests())[0].logprobs is None


def test_mixed_requests_do_not_disturb_each_other():
    generator = HFGenerator(tiny_model(), TOKENIZER)
    mixed = [*requests(), *requests(temperature=1.0, seed=3, logprobs=True, top_p=0.9)]
    together = generator.generate(mixed)
    separately = [generator.generate([one])[0] for one in mixed]
    assert [one.token_ids for one in together] == [one.token_ids for one in separately]
    assert [one.logprobs is None for one in together] == [True] * 5 + [False] * 5


def test_sampling_follows_its_seed():
    generator = HFGenerator(tiny_model(), TOKENIZER)

    def tokens(generator=generator, **params):
        return [one.token_ids for one in generator.generate(requests(temperature=1.0, **params))]

    assert tokens(seed=1) == tokens(seed=1)
    assert tokens(seed=1) != tokens(seed=2)
    assert tokens() == tokens()
    assert tokens() != tokens(HFGenerator(tiny_model(), TOKENIZER, seed=1))


def test_sampled_tokens_have_the_distribution_of_the_model():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    num_rows = 4000
    params = [SamplingParams(temperature=2.0, top_k=3, top_p=0.99)] * num_rows
    sampler = RowSampler(params, range(num_rows), torch.device("cpu"))
    scores = sampler(torch.zeros(num_rows, 1).long(), probs.log().expand(num_rows, 4))
    share = scores.argmax(-1).bincount(minlength=4) / num_rows
    expected = probs[:3].sqrt() / probs[:3].sqrt().sum()
    assert_close(share[:3], expected, atol=4 * math.sqrt(0.25 / num_rows))
    assert share[3] == 0


@pytest.mark.parametrize(
    ("params", "allowed"),
    [({"top_k": 2}, {0, 1}), ({"top_p": 0.6}, {0, 1}), ({"top_p": 0.3}, {0}), ({}, {0, 1, 2, 3})],
)
def test_truncation_keeps_the_right_tokens(params, allowed):
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(300, 4)
    settings = [SamplingParams(temperature=1.0, **params)] * 300
    sampler = RowSampler(settings, range(300), torch.device("cpu"))
    taken = sampler(torch.zeros(300, 1).long(), logits).argmax(-1)
    assert set(taken.tolist()) == allowed


def test_a_stop_string_ends_the_text_before_it():
    model = tiny_model()
    free = HFGenerator(model, TOKENIZER).generate(requests(max_new_tokens=20))
    text = free[1].text
    stop = text[3:5]
    stopped = HFGenerator(model, TOKENIZER).generate(
        requests(max_new_tokens=20, stop=(stop, "@@@"))
    )
    assert stopped[1].text == text[: text.index(stop)]
    assert stopped[1].finish_reason == "stop"
    assert len(stopped[1].token_ids) < 20
    assert stopped[1].token_ids == free[1].token_ids[: len(stopped[1].token_ids)]
    assert stopped[1].usage.completion_tokens == len(stopped[1].token_ids)


def test_the_earliest_stop_string_cuts():
    assert cut_at_stop("one two three", ["three", "two"]) == "one "
    assert cut_at_stop("one", ["two"]) == "one"


def test_end_of_sequence_ends_its_row_only():
    model = tiny_model()
    free = HFGenerator(model, TOKENIZER).generate(requests())
    eos = free[0].token_ids[2]
    other = free[3].token_ids[1]
    model.generation_config.eos_token_id = [eos, other]
    ended = HFGenerator(model, TOKENIZER).generate(requests())
    first = free[0].token_ids.index(eos)
    assert ended[0].token_ids == free[0].token_ids[: first + 1]
    assert ended[0].finish_reason == "stop"
    for before, after in zip(free, ended, strict=True):
        assert after.token_ids == before.token_ids[: len(after.token_ids)]
        assert (after.finish_reason == "stop") == bool({eos, other} & {*before.token_ids})


def test_generation_defaults_of_the_model_are_put_aside_and_back():
    model = tiny_model()
    plain = HFGenerator(model, TOKENIZER).generate(requests())
    own = GenerationConfig(repetition_penalty=5.0, do_sample=True, temperature=3.0, max_length=3)
    model.generation_config = own
    assert HFGenerator(model, TOKENIZER).generate(requests()) == plain
    assert model.generation_config is own


def test_too_long_prompts_fail_alone():
    model = tiny_model(max_position_embeddings=30)
    prompts = ["short", "x" * 30, "y" * 27]
    completions = HFGenerator(model, TOKENIZER).generate(requests(prompts, max_new_tokens=5))
    assert [one.finish_reason for one in completions] == ["length", "error", "length"]
    assert "30 tokens" in completions[1].error
    assert [len(one.token_ids) for one in completions] == [5, 0, 3]
    longer = HFGenerator(model, TOKENIZER, max_context=100)
    assert longer.generate(requests(prompts))[1].finish_reason == "length"


def test_empty_prompts_and_foreign_tokens_fail_alone():
    odd = [
        Request(id="empty", prompt=""),
        Request(id="foreign", token_ids=(1, 259)),
        Request(id="negative", token_ids=(-1,)),
        Request(id="good", prompt="fine", params=SamplingParams(max_new_tokens=2)),
    ]
    completions = HFGenerator(tiny_model(), TOKENIZER).generate(odd)
    assert [one.finish_reason for one in completions] == ["error", "error", "error", "length"]
    assert "259" in completions[1].error


def test_no_requests_give_no_completions():
    assert HFGenerator(tiny_model(), TOKENIZER).generate([]) == []


def test_padding_may_be_any_token():
    words = [f"w{i}" for i in range(20)]
    tokenizer = word_tokenizer(words, special={"unk": "<unk>"})
    model = tiny_model(vocab_size=21)
    prompts = ["w0", "w1 w2 w3", "w3 w0"]
    completions = HFGenerator(model, tokenizer).generate(requests(prompts))
    for prompt, completion in zip(prompts, completions, strict=True):
        assert completion.token_ids == alone(model, tokenizer(prompt)["input_ids"], 7)


class Failing:
    """A model's `generate` that fails for some batches, and counts the sizes it was given."""

    def __init__(self, model, fails):
        self.inner, self.fails, self.sizes = model.generate, fails, []

    def __call__(self, input_ids, **kwargs):
        self.sizes.append(len(input_ids))
        if (error := self.fails(input_ids)) is not None:
            raise error
        return self.inner(input_ids=input_ids, **kwargs)


def test_out_of_memory_halves_the_batch_for_good(monkeypatch):
    model = tiny_model()
    expected = HFGenerator(model, TOKENIZER).generate(requests(PROMPTS * 2))

    def fails(ids):
        return torch.OutOfMemoryError("CUDA out of memory. Tried") if len(ids) > 3 else None

    failing = Failing(model, fails)
    monkeypatch.setattr(model, "generate", failing)
    generator = HFGenerator(model, TOKENIZER, batch_size=8)
    assert generator.generate(requests(PROMPTS * 2)) == expected
    assert failing.sizes == [8, 4, 2, 2, 4, 2, 2, 2]
    generator.generate(requests())
    assert failing.sizes[8:] == [2, 2, 1]


def test_a_request_that_breaks_the_backend_fails_alone(monkeypatch):
    model = tiny_model()
    expected = HFGenerator(model, TOKENIZER).generate(requests())
    failing = Failing(model, lambda ids: ValueError("bad") if (ids == ord("z")).any() else None)
    monkeypatch.setattr(model, "generate", failing)
    completions = HFGenerator(model, TOKENIZER).generate(requests())
    broken = [i for i, prompt in enumerate(PROMPTS) if "z" in prompt]
    assert [i for i, one in enumerate(completions) if one.error] == broken
    assert completions[broken[0]].error == "ValueError: bad"
    assert [completions[i] for i in (0, 1, 3)] == [expected[i] for i in (0, 1, 3)]


def test_errors_of_ours_pass_through(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model, "generate", Failing(model, lambda ids: ModelError("not proved")))
    with pytest.raises(ModelError, match="not proved"):
        HFGenerator(model, TOKENIZER).generate(requests())


def test_logits_that_are_not_finite_are_an_error():
    model = tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[ord("q")] = math.nan
    completions = HFGenerator(model, TOKENIZER).generate(requests())
    assert completions[3].finish_reason == "error"
    assert "finite" in completions[3].error
    assert completions[0].finish_reason == "length"


TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def chat_tokenizer():
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def chat(*messages):
    return Request(id="c", messages=messages, params=SamplingParams(max_new_tokens=4))


def test_messages_go_through_the_chat_template(chat_tokenizer):
    model = tiny_model()
    request = chat(
        Message(role="system", content="be brief"),
        Message(role="user", content=(TextPart(text="hi "), TextPart(text="you"))),
    )
    completion = HFGenerator(model, chat_tokenizer).generate([request])[0]
    expected = alone(model, ids_of("[system]be brief[user]hi you[assistant]"), 4)
    assert completion.token_ids == expected


def test_a_chat_that_the_template_refuses_fails_alone(chat_tokenizer):
    bad, good = chat(Message(role="tool", content="x")), chat(Message(role="user", content="x"))
    completions = HFGenerator(tiny_model(), chat_tokenizer).generate([bad, good])
    assert [one.finish_reason for one in completions] == ["error", "length"]
    assert "no tools" in completions[0].error


def test_messages_without_a_template_are_refused():
    with pytest.raises(GenerationError, match="no chat template"):
        HFGenerator(tiny_model(), TOKENIZER).generate([chat(Message(role="user", content="x"))])


def test_images_are_refused_by_a_model_of_text(chat_tokenizer):
    message = Message(role="user", content=(ImagePart(path=Path("cat.png")),))
    with pytest.raises(GenerationError, match=r"reads no images.*cat\.png"):
        HFGenerator(tiny_model(), chat_tokenizer).generate([chat(message)])


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(GenerationError, match="at least 1"):
        HFGenerator(tiny_model(), TOKENIZER, batch_size=0)


def test_completions_are_plain_data():
    completion = HFGenerator(tiny_model(), TOKENIZER).generate(requests(["a"], logprobs=True))[0]
    assert Completion.model_validate_json(completion.model_dump_json()) == completion
