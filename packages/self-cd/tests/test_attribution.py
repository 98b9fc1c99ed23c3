import pytest
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
)
from transformers.masking_utils import eager_mask

from papercore.errors import DataError, ModelError
from papercore.testing import tiny_model
from papercore.testing.models import SHAPE
from papercore.tiny import seeded
from self_cd.attribution import Explained, attribution_records
from self_cd.config import PromptConfig
from self_cd.flow import NAME, information_flow, recorded_attention
from self_cd.focus import find_words, locate
from self_cd.items import Item
from self_cd.mini_model import make_tokenizer
from self_cd.perplexity import continuation_nll
from self_cd.prompts import Prompter
from self_cd.testing import chat_model, chat_tokenizer

CONTEXT = tuple(torch.randint(3, 250, (21,), generator=torch.Generator().manual_seed(0)).tolist())
TARGET = (7, 40, 9)
KINDS = ("llama", "llama-gqa", "mistral", "qwen3", "gpt2", "gemma2")


def make(kind):
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=259,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            initializer_range=0.2,
            scale_attn_by_inverse_layer_idx=True,
            bos_token_id=None,
            eos_token_id=None,
        )
        return seeded(GPT2LMHeadModel, config, 0).double()
    if kind == "gemma2":
        config = Gemma2Config(
            **SHAPE, sliding_window=16, attn_logit_softcapping=2.0, query_pre_attn_scalar=8
        )
        return seeded(Gemma2ForCausalLM, config, 0).double()
    return exact(tiny_model(kind).double())


def exact(model):
    """With norms in float64: those of transformers compute in float32, whatever the weights are."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                other = torch.nn.RMSNorm(len(norm.weight), norm.variance_epsilon).double()
                other.weight = norm.weight
                setattr(parent, name, other)
    return model


def loss_of(logits):
    return torch.nn.functional.cross_entropy(
        logits[0, len(CONTEXT) - 1 :], torch.tensor(TARGET), reduction="mean"
    )


def read():
    return torch.tensor([[*CONTEXT, *TARGET[:-1]]])


@pytest.mark.parametrize("kind", KINDS)
def test_flow_equals_gradients_of_eager_attention(kind):
    model = make(kind)
    found = information_flow(model, CONTEXT, TARGET)
    model.set_attn_implementation("eager")
    with torch.enable_grad():
        out = model(read(), output_attentions=True, use_cache=False)
        loss = loss_of(out.logits)
        slopes = torch.autograd.grad(loss, out.attentions)
    last = len(CONTEXT) - 1
    for layer, (probs, slope) in enumerate(zip(out.attentions, slopes, strict=True)):
        expected = (probs * slope).sum(1).abs()[0, last, : last + 1]
        torch.testing.assert_close(found.from_LT[layer], expected.detach(), rtol=0, atol=1e-6)
    assert found.loss == pytest.approx(
        float(loss.detach()), abs=1e-6
    )  # eager has its softmax in float32
    assert float(found.from_LT.max()) > 1e-4  # or zeros would do


def perturbed_loss(model, layer, head, token, step):
    """The loss if one attention probability of one head, at the last token, is larger by a step."""

    def attend(module, query, key, value, attention_mask, scaling=None, **options):
        groups = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(groups, 1) for one in (key, value))
        scores = query @ key.mT * scaling
        probs = (scores + attention_mask).softmax(-1)
        if module.layer_idx == layer:
            probs[0, head, len(CONTEXT) - 1, token] += step
        return (probs @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("self_cd_perturbed", attend)
    AttentionMaskInterface.register("self_cd_perturbed", eager_mask)
    model.set_attn_implementation("self_cd_perturbed")
    with torch.no_grad():
        return float(loss_of(model(read(), use_cache=False).logits))


@pytest.mark.parametrize("kind", ["llama-gqa", "mistral"])
def test_flow_equals_finite_differences(kind):
    model, step = make(kind), 1e-5
    found = information_flow(model, CONTEXT, TARGET)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(read(), output_attentions=True, use_cache=False).attentions
    for layer in range(2):
        for token in (6, 13, 20):
            total = 0.0
            for head in range(4):
                prob = float(attentions[layer][0, head, len(CONTEXT) - 1, token])
                up, down = (
                    perturbed_loss(model, layer, head, token, sign * step) for sign in (1, -1)
                )
                total += prob * (up - down) / (2 * step)
            assert float(found.from_LT[layer, token]) == pytest.approx(abs(total), abs=1e-7)


def test_tokens_outside_of_a_sliding_window_have_no_flow():
    found = information_flow(make("mistral"), CONTEXT, TARGET)  # 21 tokens, a window of 16
    assert float(found.from_LT[:, :5].abs().max()) == 0.0
    assert bool((found.from_LT[:, 5:] > 0).any(-1).all())


def test_low_precision_is_computed_in_float32():
    model = tiny_model("llama-gqa", initializer_range=0.1)
    exact = information_flow(model, CONTEXT, TARGET)
    with recorded_attention(model.to(torch.bfloat16)) as recorder:
        model(read(), use_cache=False)
    assert {probs.dtype for probs in recorder.probs_BHSS.values()} == {torch.float32}
    rough = information_flow(model, CONTEXT, TARGET)
    assert rough.loss == pytest.approx(exact.loss, abs=0.05)


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama-gqa")
    weights = list(model.parameters())
    weights[0].requires_grad_(False)
    before = model.config._attn_implementation
    information_flow(model, CONTEXT, TARGET)
    assert model.config._attn_implementation == before
    assert [one.requires_grad for one in weights] == [False] + [True] * (len(weights) - 1)
    assert all(one.grad is None for one in weights)
    with pytest.raises(RuntimeError, match=NAME), recorded_attention(model):
        raise RuntimeError(model.config._attn_implementation)
    assert model.config._attn_implementation == before
    assert weights[1].requires_grad


def test_flow_is_found_where_gradients_are_switched_off():
    model = tiny_model("llama-gqa")
    expected = information_flow(model, CONTEXT, TARGET)
    with torch.no_grad():
        found = information_flow(model, CONTEXT, TARGET)
    assert torch.equal(found.from_LT, expected.from_LT)


def test_attention_with_sinks_is_refused():
    config = GptOssConfig(**{**SHAPE, "num_local_experts": 2, "num_experts_per_tok": 1})
    model = seeded(GptOssForCausalLM, config, 0)
    with pytest.raises(ModelError, match="s_aux"):
        information_flow(model, CONTEXT, TARGET)
    assert model.config._attn_implementation != NAME


def test_nothing_to_explain_is_refused():
    model = tiny_model("llama")
    with pytest.raises(DataError, match="empty"):
        information_flow(model, CONTEXT, ())
    with pytest.raises(DataError, match="empty"):
        information_flow(model, (), TARGET)


# where the words are


def item(query="How do I KILL a killer process?", focus="kill", **changes):
    return Item("x/1", "x", "harmless", query, focus=focus, **changes)


def characters(tokenizer, located, places):
    return "".join(located.texts[place] for place in places)


@pytest.mark.parametrize("context", ["plain", "safety"])
def test_the_focus_is_found_in_the_question_alone(context):
    tokenizer = chat_tokenizer()
    prompter = Prompter(tokenizer, PromptConfig(safety="Never kill anybody. kill kill"))
    asked = item("Do I kill it, and Kill again?")
    found = locate(tokenizer, prompter, asked, context)
    assert found.ids == prompter.context(asked.query, context)
    assert characters(tokenizer, found, found.focus) == "killKill"
    assert characters(tokenizer, found, found.others) == "Do I  it, and  again?"
    places = sorted((*found.focus, *found.others))
    assert places == list(range(places[0], places[0] + len(asked.query)))


def test_turns_and_the_template_hold_no_focus():
    tokenizer = chat_tokenizer()
    prompter = Prompter(tokenizer, PromptConfig(safety="Careful."))
    asked = item("user", focus="user", turns=(("the user", "a user"),))
    found = locate(tokenizer, prompter, asked, "safety")
    assert characters(tokenizer, found, found.focus) == "user"
    assert found.others == ()
    assert found.focus[-1] == len(found.ids) - 2  # the mark of the answer follows


def test_letters_of_several_bytes_are_several_tokens():
    tokenizer = chat_tokenizer()
    prompter = Prompter(tokenizer, PromptConfig(safety="Careful."))
    found = locate(tokenizer, prompter, item("a tötet b", focus="Tötet"), "plain")
    assert len(found.focus) == len("tötet".encode())
    assert bytes(found.ids[place] for place in found.focus) == bytes(
        tokenizer("tötet")["input_ids"]
    )


@pytest.mark.parametrize(
    ("text", "focus", "expected"),
    [
        ("kill and skill", "kill", ["kill"]),
        ("killing and skill", "kill", ["kill"]),
        ("skill", "kill", ["kill"]),
        ("Kill  the process", "kill the", ["Kill  the"]),
        ("a.b axb", "a.b", ["a.b"]),
        ("nothing", "kill", []),
    ],
)
def test_words_before_parts_of_words(text, focus, expected):
    assert [text[low:high] for low, high in find_words(text, focus)] == expected


def test_words_of_the_miniature():
    tokenizer = make_tokenizer()
    prompter = Prompter(tokenizer, PromptConfig(safety="SAFE SAFE SAFE SAFE"))
    asked = item("how do I kill process ?", focus="kill")
    for context in ("plain", "safety"):
        found = locate(tokenizer, prompter, asked, context)
        assert [found.texts[place] for place in found.focus] == ["kill"]
        assert [found.texts[place] for place in found.others] == ["how", "do", "I", "process", "?"]


@pytest.mark.parametrize("focus", [None, "  ", "burn"])
def test_a_question_without_its_focus_is_refused(focus):
    tokenizer = chat_tokenizer()
    prompter = Prompter(tokenizer, PromptConfig(safety="Careful."))
    with pytest.raises(DataError, match="focus"):
        locate(tokenizer, prompter, item(focus=focus), "plain")


# records


def test_records_by_hand():
    model, tokenizer = chat_model()
    prompter = Prompter(tokenizer, PromptConfig(safety="Careful."))
    asked = item("Do I kill it?")
    bare = Item("x/2", "x", "harmful", "Why?")
    how = Explained(target="refusal", target_tok=3, refusal="I cannot.")
    records = list(attribution_records(model, tokenizer, prompter, [asked, bare], how))
    assert [(one.id, one.status) for one in records] == [
        ("flow/x/1/plain", "ok"),
        ("ppl/x/1/plain", "ok"),
        ("flow/x/2/plain", "skipped"),
        ("ppl/x/2/plain", "ok"),
        ("flow/x/1/safety", "ok"),
        ("ppl/x/1/safety", "ok"),
        ("flow/x/2/safety", "skipped"),
        ("ppl/x/2/safety", "ok"),
    ]
    target = tuple(tokenizer("I cannot.")["input_ids"])
    ids = prompter.context(asked.query, "safety")
    flow = information_flow(model, ids, target[:3]).from_LT
    start = ids.index(tokenizer("D")["input_ids"][0], len(ids) - 15)
    question = flow[:, start : start + 13]
    focus, rest = question[:, 5:9], torch.cat([question[:, :5], question[:, 9:]], dim=1)
    data = records[4].data
    assert (data["focus_tok"], data["others_tok"]) == (4, 9)
    assert data["focus"] == pytest.approx(focus.mean(1).tolist())
    assert data["others"] == pytest.approx(rest.mean(1).tolist())
    assert data["share"] == pytest.approx((focus.sum(1) / question.sum(1)).tolist())
    assert data["map"][1] == pytest.approx(question[1].tolist())
    assert (data["focus_places"], "".join(data["tokens"])) == ([5, 6, 7, 8], "Do I kill it?")
    assert records[5].data["nll"] == pytest.approx(
        list(continuation_nll(model, [ids], target)[0]), abs=1e-5
    )


def test_the_models_own_answer_is_explained():
    model, tokenizer = chat_model()
    prompter = Prompter(tokenizer, PromptConfig(safety="Careful."))
    asked = item("Do I kill it?")
    how = Explained(target_tok=2)
    records = {r.id: r for r in attribution_records(model, tokenizer, prompter, [asked], how)}
    for context in ("plain", "safety"):
        ids = list(prompter.context(asked.query, context))
        target = []
        for _ in range(2):
            with torch.no_grad():
                target.append(int(model(torch.tensor([ids + target])).logits[0, -1].argmax()))
        expected = information_flow(model, ids, target)
        assert records[f"flow/x/1/{context}"].data["loss"] == pytest.approx(expected.loss, abs=1e-5)


def test_what_cannot_be_measured_has_a_record_with_an_error():
    model, tokenizer = chat_model()
    prompter = Prompter(tokenizer, PromptConfig(safety="Careful."))
    items = [
        item("Do I kill it?"),
        Item("x/2", "x", "harmful", "no such word", focus="kill"),
        Item("x/3", "x", "harmful", "kill " * 200, focus="kill"),
        Item("x/4", "x", "harmful", " ", focus="kill"),
    ]
    records = list(attribution_records(model, tokenizer, prompter, items))
    wrong = {one.id: one.error for one in records if one.status == "error"}
    assert len(records) == 16
    assert "does not hold its focus" in wrong["flow/x/2/plain"]
    assert "ppl/x/2/plain" not in wrong
    assert "more than the context of 512" in wrong["ppl/x/3/plain"]
    assert "flow/x/3/safety" in wrong
    assert "empty" in wrong["flow/x/4/plain"]
