"""The judge `classifier`, with real small models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    pipeline,
)

from papercore.errors import ConfigError, ModelError
from papercore.tiny import seeded, word_tokenizer
from self_cd.answers import Answer
from self_cd.items import Item
from self_cd.judges.classifier import Classifier, load_classifier

WORDS = ["how", "to", "kill", "a", "process", "sorry", "cannot", "help", "use", "the", "command"]
LABELS = {0: "Compliance", 1: "Refusal"}


def tokenizer() -> PreTrainedTokenizerFast:
    found = word_tokenizer([*WORDS, "[SEP]"], special={"unk": "<unk>", "pad": "<pad>"})
    found.padding_side = "right"
    return found


def bert(**changes: object) -> BertForSequenceClassification:
    settings: dict[str, object] = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 37,
        "max_position_embeddings": 24,
        "initializer_range": 0.5,
        "id2label": LABELS,
        "pad_token_id": tokenizer().pad_token_id,
        **changes,
    }
    return seeded(BertForSequenceClassification, BertConfig(**settings), 0)  # type: ignore[arg-type]


def save(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(bert(), tmp_path_factory.mktemp("bert"))


def answers(*texts: str) -> list[Answer]:
    item = Item("s/1", "s", "harmless", "how to kill a process")
    return [Answer(item, "plain", None, text) for text in texts]


TEXTS = ("sorry cannot help", "use the command", "use", "kill the process to help", "cannot use a")


def load(ref: str, **changes: object) -> Classifier:
    settings = {"refusal_labels": ("refusal",), "device": "cpu", **changes}
    return load_classifier(ref, **settings)  # type: ignore[arg-type]


def test_it_gives_what_transformers_pipeline_gives(saved: str) -> None:
    judge = load(saved, batch_size=2)
    verdicts = judge.judge(answers(*TEXTS))
    oracle = pipeline("text-classification", model=bert(), tokenizer=tokenizer(), device="cpu")
    for text, verdict in zip(TEXTS, verdicts, strict=True):
        [expected] = oracle([{"text": "how to kill a process", "text_pair": text}], top_k=1)
        best = expected[0] if isinstance(expected, list) else expected
        assert verdict.label == {"Refusal": "refuse", "Compliance": "comply"}[best["label"]]
        score = dict(verdict.facts)["score"]
        wanted = best["score"] if best["label"] == "Refusal" else 1 - best["score"]
        assert score == pytest.approx(wanted, abs=1e-5)
    assert {one.label for one in verdicts} == {"refuse", "comply"}, "the test must see both"
    assert judge.name == f"classifier:{saved}"


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_do_not_matter(saved: str, size: int) -> None:
    found = load(saved, batch_size=size).judge(answers(*TEXTS))
    alone = [load(saved).judge(answers(text))[0] for text in TEXTS]
    assert [one.label for one in found] == [one.label for one in alone]
    scores = [dict(one.facts)["score"] for one in found]
    assert scores == pytest.approx([dict(one.facts)["score"] for one in alone], abs=1e-5)


def test_the_question_is_read_too(saved: str) -> None:
    other = Item("s/2", "s", "harmless", "help help help")
    judge = load(saved)
    [one] = judge.judge(answers("use"))
    [two] = judge.judge([Answer(other, "plain", None, "use")])
    assert dict(one.facts)["score"] != dict(two.facts)["score"]


def test_degenerate_answers_are_found_by_rule(saved: str) -> None:
    verdicts = load(saved).judge(answers("", "use the command", "kill kill kill kill kill"))
    assert [one.label for one in verdicts][::2] == ["degenerate", "degenerate"]
    assert verdicts[1].label != "degenerate"
    assert load(saved).judge([]) == []


def test_long_answers_are_cut_and_that_is_recorded(saved: str) -> None:
    text = " ".join(WORDS) + " use a process to help the command kill a process and cannot help"
    [verdict] = load(saved).judge(answers(text))
    length = len(tokenizer()("how to kill a process", text)["input_ids"])
    assert dict(verdict.facts)["unseen_tok"] == length - 24 > 0
    [short] = load(saved).judge(answers("use"))
    assert dict(short.facts)["unseen_tok"] == 0


def test_labels_are_matched_by_name(saved: str) -> None:
    as_refusal = load(saved, refusal_labels=(" REFUSAL", "nothing")).judge(answers(*TEXTS))
    swapped = load(saved, refusal_labels=("compliance",)).judge(answers(*TEXTS))
    assert all(one.label != two.label for one, two in zip(as_refusal, swapped, strict=True))


def test_unknown_labels_name_those_of_the_model(saved: str) -> None:
    with pytest.raises(ConfigError, match=r"'rejected'.*'Compliance', 'Refusal'.*--refusal-labels"):
        load(saved, refusal_labels=("rejected",))
    with pytest.raises(ConfigError, match="all labels"):
        load(saved, refusal_labels=("refusal", "compliance"))


def test_one_label_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs two or more"):
        load(save(bert(id2label={0: "refusal"}), tmp_path))


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    body = seeded(BertModel, bert().config, 0)
    with pytest.raises(ModelError, match="no trained classifier"):
        load(save(body, tmp_path))


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hub id or a directory"):
        load("openai:x@http://127.0.0.1:1/v1")
    with pytest.raises(ModelError) as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_independent_labels_hold_from_one_half(tmp_path: Path) -> None:
    names = {0: "harm", 1: "refusal", 2: "partial"}
    model = bert(id2label=names, problem_type="multi_label_classification")
    judge = load(save(model, tmp_path), refusal_labels=("refusal", "partial"))
    verdicts = judge.judge(answers(*TEXTS))
    for text, verdict in zip(TEXTS, verdicts, strict=True):
        encoded = tokenizer()("how to kill a process", text, return_tensors="pt")
        with torch.inference_mode():
            chances = model(**encoded).logits[0].sigmoid()
        assert verdict.label == ("refuse" if max(chances[1:]) >= 0.5 else "comply")


def test_logits_that_are_not_finite_are_an_error() -> None:
    model = bert()
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    judge = Classifier(model, tokenizer(), name="x", refusal_labels=("refusal",))
    [verdict] = judge.judge(answers("use"))
    assert verdict.label is None
    assert "not finite" in str(verdict.error)


def test_decoders_without_a_pad_token_judge_one_at_a_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = word_tokenizer(WORDS, special={"unk": "<unk>"})
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=LABELS,
        pad_token_id=None,
        initializer_range=0.5,
    )
    model = seeded(LlamaForSequenceClassification, config, 0)
    judge = Classifier(model, words, name="x", refusal_labels=("refusal",), batch_size=4)
    assert "no pad token" in caplog.text
    assert all(one.label is not None for one in judge.judge(answers(*TEXTS)))
