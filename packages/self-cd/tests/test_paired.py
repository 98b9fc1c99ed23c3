from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from papercore.errors import ModelError
from papercore.testing.models import assert_close, tiny_model
from papercore.tiny import seeded
from self_cd.contexts import Contexts
from self_cd.growing import SPARE_TOK
from self_cd.head import Float32Head
from self_cd.paired import Paired

KINDS = ("llama", "llama-gqa", "llama-yarn", "mistral", "qwen3", "gpt2", "gemma2", "lfm2")
ATOL = 5e-5  # logits have a standard deviation of about 1


@torch.no_grad()
def alone(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits after each row, read alone: no batch, no padding, no cache."""
    ids = [torch.tensor([list(row)]) for row in rows]
    read = [model(input_ids=one, use_cache=False).logits[0, -1] for one in ids]
    return torch.stack(read).float()


def assert_same(paired: Paired, model: PreTrainedModel, pairs: Sequence[Contexts]) -> None:
    assert paired.emphasis_BV is not None
    assert_close(paired.emphasis_BV, alone(model, [one.emphasis for one in pairs]), atol=ATOL)
    assert_close(paired.plain_BV, alone(model, [one.plain for one in pairs]), atol=ATOL)


def longer(pairs: Sequence[Contexts], tokens: Sequence[int]) -> list[Contexts]:
    return [
        Contexts((*one.emphasis, token), (*one.plain, token))
        for one, token in zip(pairs, tokens, strict=True)
    ]


def count_calls(model: PreTrainedModel) -> list[int]:
    """Token places of every forward pass from now on."""
    calls: list[int] = []
    model.register_forward_hook(
        lambda _, __, given, ___: calls.append(given["input_ids"].numel()), with_kwargs=True
    )
    return calls


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_context_gets_the_logits_that_it_gets_alone(kind, share, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(4)
    paired = Paired(model, pairs, share_prefix=share)
    assert_same(paired, model, pairs)
    for tokens in ([7, 8, 9, 7], [3, 3, 2, 1], [9, 1, 9, 1]):
        paired.step(torch.tensor(tokens))
        pairs = longer(pairs, tokens)
        assert_same(paired, model, pairs)


@pytest.mark.parametrize("kind", ["llama-gqa", "mistral", "gpt2"])
def test_contexts_that_share_nothing_or_almost_all(kind: str) -> None:
    model = tiny_model(kind)
    for pairs in (
        [Contexts((1, 2, 3), (4,)), Contexts((5, 6), (7, 8, 9, 10))],  # plain may be the longer
        [Contexts((1, 2, 3), (1, 2, 3)), Contexts((1, 2, 3), (1, 2, 3))],
        [Contexts((1,), (2,))],
        [Contexts(tuple(range(30)), tuple(range(29))), Contexts((*range(29), 9), (*range(3),))],
    ):
        assert_same(Paired(model, pairs), model, pairs)


def test_one_pass_per_step_for_all_contexts(make_pairs) -> None:
    model = tiny_model()
    calls = count_calls(model)
    paired = Paired(model, make_pairs(3))
    calls.clear()
    before = paired.forwards
    for _ in range(5):
        paired.step(torch.tensor([1, 2, 3]))
    assert calls == [6] * 5
    assert paired.forwards == before + 5


def test_a_shared_system_prompt_is_read_once(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(8, system=60, most=10)
    calls = count_calls(model)
    shared = Paired(model, pairs)
    assert shared.prefilled_tok == sum(calls)
    # both prefixes, then 16 rows of a question: 60 tokens of prompt in eight rows are spared
    assert shared.prefilled_tok <= (60 + 3) + 3 + 16 * 10
    assert Paired(model, pairs, share_prefix=False).prefilled_tok >= 16 * (60 + 3)


@pytest.mark.parametrize("kind", ["llama-gqa", "mistral", "gemma2"])
def test_the_cache_grows_beyond_its_spare_columns(kind, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(2)
    paired = Paired(model, pairs)
    for step in range(SPARE_TOK * 2 + 5):
        tokens = [step % 7, step % 11]
        paired.step(torch.tensor(tokens))
        pairs = longer(pairs, tokens)
    assert_same(paired, model, pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_leave_and_change_places(kind, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(5)
    paired = Paired(model, pairs)
    paired.keep([4, 0, 2])
    pairs = [pairs[4], pairs[0], pairs[2]]
    assert_same(paired, model, pairs)
    for tokens in ([1, 2, 3], [4, 5, 6]):
        paired.step(torch.tensor(tokens))
        pairs = longer(pairs, tokens)
    assert_same(paired, model, pairs)
    paired.keep([1])
    paired.step(torch.tensor([9]))
    assert_same(paired, model, longer(pairs[1:2], [9]))


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_repeated_side_by_side(kind, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(2)
    paired = Paired(model, pairs)
    paired.repeat(3)
    assert len(paired) == 6
    copies = [one for one in pairs for _ in range(3)]
    assert_same(paired, model, copies)
    paired.step(torch.tensor([1, 2, 3, 4, 5, 6]))
    assert_same(paired, model, longer(copies, [1, 2, 3, 4, 5, 6]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_contexts_go_on_alone(kind, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(3)
    calls = count_calls(model)
    paired = Paired(model, pairs)
    paired.step(torch.tensor([1, 2, 3]))
    paired.drop_emphasis()
    paired.drop_emphasis()  # twice is once
    assert paired.emphasis_BV is None
    plain = [one.plain for one in longer(pairs, [1, 2, 3])]
    assert_close(paired.plain_BV, alone(model, plain), atol=ATOL)
    calls.clear()
    paired.step(torch.tensor([4, 5, 6]))
    paired.keep([2, 0])
    paired.repeat(2)
    paired.step(torch.tensor([7, 8, 9, 1]))
    assert calls == [3, 4]
    rows = [(*plain[2], 6, 7), (*plain[2], 6, 8), (*plain[0], 4, 9), (*plain[0], 4, 1)]
    assert_close(paired.plain_BV, alone(model, rows), atol=ATOL)


def test_padding_that_nobody_needs_is_dropped(make_pairs) -> None:
    model = tiny_model()
    masks: list[object] = []
    model.register_forward_pre_hook(
        lambda _, __, given: masks.append(given.get("attention_mask")), with_kwargs=True
    )
    paired = Paired(model, make_pairs(1))
    paired.step(torch.tensor([1]))
    assert masks[-1] is not None
    paired.drop_emphasis()
    paired.step(torch.tensor([1]))
    assert masks[-1] is None, "without padding attention needs no mask"


# the output head in float32


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_head_of_a_low_precision_model_is_computed_in_float32(kind, dtype, make_pairs) -> None:
    model, pairs = tiny_model(kind).to(dtype), make_pairs(1)
    paired = Paired(model, pairs, share_prefix=False)
    states: list[Tensor] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    Paired(model, pairs, share_prefix=False, float32_head=False)
    handle.remove()
    logits = linear(states[0][:, -1].float(), head.weight.float())
    cap = getattr(model.config, "final_logit_softcapping", None)
    expected = logits if cap is None else cap * (logits / cap).tanh()
    assert paired.emphasis_BV is not None
    assert_close(torch.cat([paired.emphasis_BV, paired.plain_BV]), expected, atol=1e-6)
    assert not torch.equal(paired.plain_BV, paired.plain_BV.to(dtype).float()), "it was rounded"


def test_without_it_the_logits_keep_the_rounding_of_the_model(make_pairs) -> None:
    model = tiny_model("llama").bfloat16()
    plain_BV = Paired(model, make_pairs(1), float32_head=False).plain_BV
    assert plain_BV.dtype == torch.float32
    assert torch.equal(plain_BV, plain_BV.bfloat16().float())


def test_nothing_of_the_head_stays_in_the_model(make_pairs) -> None:
    model = tiny_model("llama", tie_word_embeddings=True).bfloat16()
    weight = model.lm_head.weight
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        before = model(ids).logits
        paired = Paired(model, make_pairs(2))
        paired.step(torch.tensor([1, 2]))
        assert torch.equal(model(ids).logits, before)
    assert model.lm_head.weight is weight is model.get_input_embeddings().weight
    assert not model.lm_head._forward_hooks
    assert not model.lm_head._forward_pre_hooks


def test_the_head_is_computed_once() -> None:
    model = tiny_model("llama").bfloat16()
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].numel()))
    Paired(model, [Contexts((1, 2), (2,))])
    assert set(rows) == {0}, "nothing is left for the product in low precision"


def test_the_head_is_given_back_after_an_error() -> None:
    model = tiny_model("llama").bfloat16()
    with pytest.raises(IndexError), Float32Head(model).attached():
        model(torch.tensor([[100_000]]))
    assert not model.lm_head._forward_hooks


def test_a_bias_of_the_head_counts() -> None:
    model = tiny_model("llama").bfloat16()
    model.lm_head.bias = nn.Parameter(torch.full((259,), 5.0).bfloat16())
    plain_BV = Paired(model, [Contexts((1, 2), (2,))]).plain_BV
    model.lm_head.bias = None
    bare_BV = Paired(model, [Contexts((1, 2), (2,))]).plain_BV
    assert_close(plain_BV - bare_BV, torch.full((1, 259), 5.0))


def test_a_head_of_another_kind_is_told_of_once(caplog) -> None:
    class Quantised(nn.Linear):
        pass

    model = tiny_model("llama").bfloat16()
    head = Quantised(32, 259, bias=False, dtype=torch.bfloat16)
    model.set_output_embeddings(head)
    for _ in range(2):
        assert Paired(model, [Contexts((1, 2), (2,))]).plain_BV.dtype == torch.float32
    (record,) = caplog.records
    assert record.message == (
        "LlamaForCausalLM: its output head (Quantised) cannot be computed in float32; the logits "
        "keep their rounding"
    )


# models that are refused


def test_models_that_cannot_read_pairs_are_refused() -> None:
    small = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2}
    mamba = seeded(MambaForCausalLM, MambaConfig(**small), 0)
    recurrent = seeded(
        RecurrentGemmaForCausalLM,
        RecurrentGemmaConfig(**small, num_attention_heads=2, intermediate_size=32, lru_width=16),
        0,
    )
    t5 = seeded(
        T5ForConditionalGeneration,
        T5Config(vocab_size=64, d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2),
        0,
    )
    for model, reason in (
        (mamba, "keeps its state outside"),
        (recurrent, "keeps its state outside"),
        (t5, "is an encoder-decoder"),
        (tiny_model().train(), r"call model\.eval\(\)"),
    ):
        with pytest.raises(ModelError, match=reason) as caught:
            Paired(model, [Contexts((1, 2), (2,))])
        assert "\n" not in str(caught.value)
