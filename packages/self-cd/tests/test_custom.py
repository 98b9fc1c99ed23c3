from functools import partial

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
    StopStringCriteria,
    TextStreamer,
)

from papercore.errors import ConfigError, GenerationError, ModelError
from papercore.testing.models import assert_close, tiny_model
from papercore.tiny import byte_tokenizer
from self_cd import contrastive_decode
from self_cd.contexts import Contexts
from self_cd.contrast import combine

TOK = 12


def padded(rows: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def contrasted(model: PreTrainedModel, pairs: list[Contexts], **kwargs):
    ids, mask = padded([pair.plain for pair in pairs])
    emphasis_ids, emphasis_mask = padded([pair.emphasis for pair in pairs])
    settings = {
        "attention_mask": mask,
        "custom_generate": contrastive_decode,
        "emphasis_ids": emphasis_ids,
        "emphasis_mask": emphasis_mask,
        "max_new_tokens": TOK,
        "pad_token_id": 0,
    }
    return model.generate(ids, **settings | kwargs)


def guided(model: PreTrainedModel, pair: Contexts, alpha: float = 2.5, **kwargs):
    ids, other = torch.tensor([pair.plain]), torch.tensor([pair.emphasis])
    settings = {
        "attention_mask": torch.ones_like(ids),
        "negative_prompt_ids": other,
        "negative_prompt_attention_mask": torch.ones_like(other),
        "guidance_scale": alpha,
        "max_new_tokens": TOK,
        "pad_token_id": 0,
    }
    return model.generate(ids, **settings | kwargs)


def new_tokens(output: Tensor, count: int = TOK) -> list[list[int]]:
    return output[:, -count:].tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.5, 4.0])
@pytest.mark.parametrize("kind", ["llama-gqa", "mistral", "gpt2", "gemma2", "lfm2"])
def test_greedy_tokens_are_those_of_the_guidance_path(kind, alpha, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(4)
    found = contrasted(model, pairs, alpha=alpha)
    assert new_tokens(found) == [new_tokens(guided(model, pair, alpha))[0] for pair in pairs]
    ids, _ = padded([pair.plain for pair in pairs])
    assert torch.equal(found[:, : ids.shape[1]], ids)


def test_rows_without_padding_need_no_masks() -> None:
    model = tiny_model()
    ids, other = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[7, 8, 1, 2], [7, 8, 3, 4]])
    found = model.generate(
        ids,
        custom_generate=contrastive_decode,
        emphasis_ids=other,
        max_new_tokens=TOK,
        pad_token_id=0,
        attention_mask=torch.ones_like(ids),
    )
    pairs = [
        Contexts(tuple(e), tuple(p)) for e, p in zip(other.tolist(), ids.tolist(), strict=True)
    ]
    assert torch.equal(found, contrasted(model, pairs))


def test_sampling_draws_as_generate_does(make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    sampling = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.9}
    torch.manual_seed(5)
    found = contrasted(model, [pair], **sampling)
    torch.manual_seed(5)
    assert torch.equal(found, guided(model, pair, **sampling))


def test_several_answers_of_each_question(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(2)
    rows: list[int] = []
    model.register_forward_hook(
        lambda _, __, given, ___: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    found = contrasted(model, pairs, do_sample=True, num_return_sequences=3, alpha=1.0)
    assert max(rows[:3]) == 4, "each question is read once"
    assert rows[-1] == 12
    assert found.shape[0] == 6
    assert len({tuple(row) for row in new_tokens(found)}) == 6
    greedy = contrasted(model, pairs)
    ids, mask = padded([pair.plain for pair in pairs])
    times = model.generate(  # greedy answers do not differ, so this is how they would be repeated
        ids.repeat_interleave(2, 0),
        attention_mask=mask.repeat_interleave(2, 0),
        custom_generate=contrastive_decode,
        emphasis_ids=padded([pair.emphasis for pair in pairs])[0],
        emphasis_mask=padded([pair.emphasis for pair in pairs])[1],
        max_new_tokens=TOK,
        pad_token_id=0,
    )
    assert torch.equal(times, greedy.repeat_interleave(2, 0))


def test_processors_act_on_the_contrast(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(2)
    seen: list[Tensor] = []

    class Ban(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            seen.append(scores.clone())
            scores[:, :128] = -torch.inf  # in place, as some do
            return scores

    ban = LogitsProcessorList([Ban()])
    found = contrasted(model, pairs, logits_processor=ban, suppress_tokens=[200])
    assert (found[:, -TOK:] >= 128).all()
    expected = [
        new_tokens(guided(model, pair, logits_processor=ban, suppress_tokens=[200]))[0]
        for pair in pairs
    ]
    assert new_tokens(found) == expected
    assert not any(scores.isnan().any() for scores in seen)
    out = contrasted(
        model, pairs, logits_processor=ban, return_dict_in_generate=True, output_logits=True
    )
    assert all(logits.isfinite().all() for logits in out.logits), "what it writes stays its own"


def test_ends_and_padding_of_rows_that_ended(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(3)
    whole = new_tokens(contrasted(model, pairs))
    eos = [whole[0][3], whole[1][6]]
    found = new_tokens(contrasted(model, pairs, eos_token_id=eos, pad_token_id=258))
    for row, answer in zip(found, whole, strict=True):
        end = next((place for place, token in enumerate(answer) if token in eos), TOK - 1)
        assert row[: end + 1] == answer[: end + 1]
        assert set(row[end + 1 :]) <= {258}


def test_stopping_criteria(make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    whole = new_tokens(contrasted(model, [pair]))[0]
    place = next(place for place, token in enumerate(whole) if 32 < token < 127)
    stop = StopStringCriteria(byte_tokenizer(), chr(whole[place]))
    found = contrasted(model, [pair], stopping_criteria=StoppingCriteriaList([stop]))
    assert found[0, len(pair.plain) :].tolist() == whole[: place + 1]


def test_scores_and_logits_are_returned(make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    out = contrasted(
        model,
        [pair],
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        repetition_penalty=1.2,
    )
    assert len(out.scores) == len(out.logits) == TOK
    with torch.no_grad():
        y, plain = (model(torch.tensor([ids])).logits[:, -1] for ids in (pair.emphasis, pair.plain))
    assert_close(out.logits[0], combine(y, plain, torch.tensor([2.5])), atol=1e-4)
    assert not torch.equal(out.scores[-1], out.logits[-1])
    assert [int(one.argmax()) for one in out.scores] == new_tokens(out.sequences)[0]
    short = contrasted(model, [pair], return_dict_in_generate=True)
    assert short.scores is None
    assert short.logits is None


class _Spy(TextStreamer):
    def __init__(self) -> None:
        super().__init__(byte_tokenizer())
        self.got: list[list[int]] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        self.got.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("way", ["argument", "bound"])
def test_streamers(way: str, make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    spy = _Spy()
    if way == "argument":
        found = contrasted(model, [pair], stream_to=spy)
        assert spy.got.pop(0) == list(pair.plain)
    else:
        bound = partial(contrastive_decode, streamer=spy)
        found = contrasted(model, [pair], custom_generate=bound)
    assert spy.got == [[token] for token in new_tokens(found)[0]]
    assert spy.ended == 1


def test_extensions(make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    ids = torch.tensor([pair.plain])
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOK)
    assert torch.equal(contrasted(model, [pair], alpha=4.0, beta=1.0), plain)
    begun = contrasted(model, [pair], first_steps=4)
    later = begun[:, : len(pair.plain) + 4]
    rest = model.generate(later, attention_mask=torch.ones_like(later), max_new_tokens=TOK - 4)
    assert torch.equal(begun, rest)
    assert torch.equal(later, contrasted(model, [pair])[:, : len(pair.plain) + 4])
    same = Contexts(pair.plain, pair.plain)
    out = contrasted(model, [same], adaptive=0.5, return_dict_in_generate=True, output_logits=True)
    assert torch.equal(out.sequences, plain)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"emphasis_ids": None}, "needs emphasis_ids"),
        ({"emphasis_ids": torch.ones(3, 4).long(), "emphasis_mask": None}, "do not fit 2 rows"),
        ({"emphasis_mask": torch.ones(2, 3).long()}, "the mask of the emphasis_ids has shape"),
        ({"num_beams": 2}, "it is no beam_search"),
        ({"prompt_lookup_num_tokens": 3}, "it is no assisted_generation"),
        ({"cache_implementation": "static"}, "cache_implementation='static'"),
        ({"use_cache": False}, "use_cache=False"),
        ({"guidance_scale": 2.0}, "guidance_scale is a second contrast"),
        ({"return_dict_in_generate": True, "output_attentions": True}, "output_attentions"),
        ({"max_new_tokens": 500}, "tokens of emphasis_ids and 500 new ones do not fit"),
    ],
)
def test_what_cannot_be_had_with_a_contrast(kwargs, reason, make_pairs) -> None:
    with pytest.raises(GenerationError, match=reason) as caught:
        contrasted(tiny_model(), make_pairs(2), **kwargs)
    assert "\n" not in str(caught.value)


def test_right_padding_is_refused(make_pairs) -> None:
    pairs = make_pairs(2)
    ids, mask = padded([pair.emphasis for pair in pairs])
    assert int(mask.sum()) < mask.numel()
    with pytest.raises(GenerationError, match="emphasis_ids are not padded on the left"):
        contrasted(tiny_model(), pairs, emphasis_ids=ids.flip(1), emphasis_mask=mask.flip(1))


def test_a_cache_that_was_filled_elsewhere_is_refused(make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    cache = model(torch.tensor([pair.plain[:2]])).past_key_values
    with pytest.raises(GenerationError, match="past_key_values hold tokens"):
        contrasted(model, [pair], past_key_values=cache)


def test_settings_and_models_are_checked(make_pairs) -> None:
    with pytest.raises(ConfigError, match="alpha: -1"):
        contrasted(tiny_model(), make_pairs(1), alpha=-1.0)
    with pytest.raises(ModelError, match="training mode"):
        contrasted(tiny_model().train(), make_pairs(1))
