import json
import math

import pytest
import torch

from papercore.errors import DataError
from papercore.generate.types import SamplingParams
from papercore.records import Record, RecordWriter, read_records
from self_cd import trace_report
from self_cd.config import OpeningsConfig, PromptConfig, SelfCDConfig
from self_cd.generation import generate
from self_cd.items import Item
from self_cd.margins import context_margins
from self_cd.openings import encode_openings
from self_cd.prompts import Prompter
from self_cd.testing import chat_model
from self_cd.trace import token_text, trace_records

ITEM = Item("query/0", "query", "ordinary", "how do I kill a process?")
PROMPTS = PromptConfig(safety="Be careful.")


def traced(params=None, top=4, **settings):
    model, tokenizer = chat_model()
    config = SelfCDConfig(prompts=PROMPTS, **settings)
    params = params or SamplingParams(max_new_tokens=6)
    records = list(trace_records(model, tokenizer, ITEM, config, params=params, top=top))
    return model, tokenizer, config, records


def steps_of(records):
    return [one.data for one in records]


def test_every_step_equals_two_plain_forwards():
    model, tokenizer, _, records = traced(alpha=2.5)
    assert [one.id for one in records] == [f"trace/query/0/{step}" for step in range(6)]
    pair = Prompter(tokenizer, PROMPTS).contexts(ITEM.query)
    said = []
    for data in steps_of(records):
        with torch.no_grad():
            y, plain = (
                model(torch.tensor([[*context, *said]])).logits[0, -1]
                for context in (pair.emphasis, pair.plain)
            )
        z = y - 2.5 * (y - plain)
        named = {"safety": y, "plain": plain, "contrast": z}
        assert data["token"] == int(z.argmax())
        assert (data["best_safety"], data["best_plain"]) == (int(y.argmax()), int(plain.argmax()))
        expected = {int(one) for logits in named.values() for one in logits.topk(4).indices}
        assert {one["token"] for one in data["candidates"]} == expected
        best = [one["token"] for one in data["candidates"][:4]]
        assert best == z.topk(4).indices.tolist()
        for one in data["candidates"]:
            token = one["token"]
            for name, logits in named.items():
                assert one[f"logit_{name}"] == pytest.approx(float(logits[token]), abs=1e-3)
                prob = float(logits.softmax(-1)[token])
                assert one[f"prob_{name}"] == pytest.approx(prob, abs=1e-4)
                assert one[f"rank_{name}"] == int((logits > logits[token]).sum())
            assert one["push"] == pytest.approx(float(y[token] - plain[token]), abs=1e-3)
        said.append(data["token"])


@pytest.mark.parametrize(
    "settings", [{}, {"alpha": 1.0}, {"beta": 0.3}, {"first_steps": 2}, {"adaptive": 0.2}]
)
def test_the_answer_is_the_one_of_generate(settings):
    model, tokenizer, config, records = traced(**settings)
    (answer,) = generate(model, tokenizer, [ITEM], config, params=SamplingParams(max_new_tokens=6))
    assert tuple(data["token"] for data in steps_of(records)) == answer.token_ids
    assert [data.get("answer") for data in steps_of(records)] == [None] * 5 + [answer.text]


def test_a_sampled_answer_is_the_one_of_generate():
    params = SamplingParams(max_new_tokens=8, temperature=3.0)
    model, tokenizer, config, records = traced(params, top=1)
    (answer,) = generate(model, tokenizer, [ITEM], config, params=params)
    tokens = [data["token"] for data in steps_of(records)]
    assert tuple(tokens) == answer.token_ids
    for data in steps_of(records):  # what was drawn is shown even if it is none of the best
        assert data["token"] in [one["token"] for one in data["candidates"]]
    assert any(data["token"] != data["best_contrast"] for data in steps_of(records))


def test_after_the_first_steps_there_is_no_safety_prompt():
    *_, records = traced(first_steps=2)
    steps = steps_of(records)
    assert [data["alpha"] for data in steps] == [2.5, 2.5, None, None, None, None]
    assert steps[2]["best_safety"] is None
    assert steps[2]["candidates"][0]["push"] is None
    assert steps[2]["token"] == steps[2]["best_plain"]
    found = trace_report.summarise(records)
    assert found["trace_not_safety"].n == 2
    assert found["trace_not_plain"].n == 6


def test_the_guard_holds_in_a_trace():
    openings = OpeningsConfig(refusal=("N",), answer=("S",))
    settings = {"openings": openings, "adaptive": 0.001}
    *_, free = traced(guard=50.0, **settings)
    *_, held = traced(guard=-50.0, **settings)
    # `adaptive` turns the strength of every pair that the guard does not hold
    assert steps_of(free)[0]["alpha"] == -2.5
    model, tokenizer, config, _ = traced(guard=-50.0, **settings)
    (answer,) = generate(model, tokenizer, [ITEM], config, params=SamplingParams(max_new_tokens=6))
    assert tuple(data["token"] for data in steps_of(held)) == answer.token_ids
    assert steps_of(held)[0]["token"] == steps_of(held)[0]["best_plain"]


def test_the_guard_measures_with_the_head_of_the_config():
    """In bfloat16 the two heads give other margins; a guard between them tells which was asked."""
    model, tokenizer = chat_model()
    model = model.to(torch.bfloat16)
    openings = OpeningsConfig(refusal=("N",), answer=("S",))
    plain = Prompter(tokenizer, PROMPTS).contexts(ITEM.query).plain
    forms = encode_openings(tokenizer, openings)
    margins = {
        exact: float(context_margins(model, [plain], forms, float32_head=exact)[0])
        for exact in (True, False)
    }
    assert margins[True] != margins[False]
    params = SamplingParams(max_new_tokens=1)
    for exact, margin in margins.items():
        config = SelfCDConfig(
            prompts=PROMPTS, openings=openings, guard=sum(margins.values()) / 2, float32_head=exact
        )
        (record,) = trace_records(model, tokenizer, ITEM, config, params=params)
        held = margin > config.guard
        assert record.data["alpha"] == (1.0 if held else 2.5)


def test_tokens_that_a_mask_rules_out_survive_the_file(tmp_path):
    *_, records = traced(beta=0.9)
    assert any(
        one["logit_contrast"] == -math.inf
        for data in steps_of(records)
        for one in data["candidates"]
    )
    path = tmp_path / "records.jsonl"
    with RecordWriter(path) as writer:
        for record in records:
            writer.append(record)
    again = read_records(path)
    assert [one.data["token"] for one in again] == [one.data["token"] for one in records]
    assert trace_report.summarise(again) == trace_report.summarise(records)
    assert len(trace_report.figures(again, tmp_path)) == 1


def test_a_part_of_a_character_has_a_name():
    _, tokenizer = chat_model()
    token = tokenizer("é")["input_ids"][0]
    assert token_text(tokenizer, token) == tokenizer.convert_ids_to_tokens(token)
    assert token_text(tokenizer, tokenizer("a")["input_ids"][0]) == "a"


def test_a_question_that_cannot_be_asked_is_refused():
    model, tokenizer = chat_model()
    long = Item("query/0", "query", "ordinary", "kill " * 200)
    with pytest.raises(DataError, match="too long"):
        list(trace_records(model, tokenizer, long, SelfCDConfig(prompts=PROMPTS)))


# what records come to


def candidate(token, text, **probs):
    found = {"token": token, "text": text, "push": probs.pop("push", 0.5)}
    for name in ("safety", "plain", "contrast"):
        found[f"prob_{name}"] = probs[name]
    return found


def step(number, token, text, *candidates, safety, plain):
    data = {
        "item": "query/0",
        "step": number,
        "token": token,
        "text": text,
        "alpha": 2.5,
        "best_safety": safety,
        "best_plain": plain,
        "candidates": list(candidates),
    }
    return Record(id=f"trace/query/0/{number}", data=data)


def by_hand():
    sure = candidate(1, "=$ure", safety=0.1, plain=0.4, contrast=0.9, push=-1.5)
    sorry = candidate(2, "sorry\n", safety=0.8, plain=0.5, contrast=0.05)
    to = candidate(3, " to", safety=1.0, plain=1.0, contrast=1.0)
    last = step(1, 3, " to", to, safety=3, plain=3)
    last.data["answer"] = "=$ure\nto"
    return [step(0, 1, "=$ure", sure, sorry, safety=2, plain=2), last]


def test_table_picture_and_counts_by_hand(tmp_path):
    records = by_hand()
    found = trace_report.summarise(records)
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "trace_tokens": (2.0, 2),
        "trace_not_safety": (1.0, 2),
        "trace_not_plain": (1.0, 2),
    }
    (table,) = trace_report.tables(records)
    assert table.rows[0] == (
        *("query/0", 0, '"=$ure"', 2.5, 0.9, 0.1, 0.4, -1.5),
        *('"sorry\\n" 0.800', '"sorry\\n" 0.500'),
    )
    (figure,) = trace_report.figures(records, tmp_path)
    rows = figure.csv.read_text().splitlines()
    assert rows[0].split(",")[1:] == ["0 =\\$ure", "1  to"]
    assert rows[1] == "chosen: contrast,0.9,1.0"
    assert rows[5] == "safety's best: safety prompt,0.8,1.0"
    lines = trace_report.trace_lines(records)
    assert len(lines) == 4
    assert lines[-1] == "answer: =$ure\\nto"
    assert "\n" not in "".join(lines)
    first = figure.png.read_bytes()
    trace_report.figures(records, tmp_path)
    assert figure.png.read_bytes() == first


def test_long_answers_are_cut_in_the_picture_alone(tmp_path):
    one = candidate(1, "a", safety=1.0, plain=1.0, contrast=1.0)
    records = [step(number, 1, "a", one, safety=1, plain=1) for number in range(40)]
    (figure,) = trace_report.figures(records, tmp_path)
    assert "first 10 of 40 tokens" in figure.caption
    assert len(trace_report.tables(records)[0].rows) == 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$x$", "\\$x\\$"),  # matplotlib would set a formula
        ("\n", "\\n"),
        ("\N{SNOWMAN}", "\\u2603"),
        ("abcdefg", "abcd.."),
        ("abcdef", "abcdef"),
    ],
)
def test_labels_are_short_and_plain(text, expected):
    assert trace_report.label(text) == expected


def test_records_of_others_are_left_alone(tmp_path):
    other = [Record(id="answer/x", data={"item": "x"})]
    assert trace_report.summarise(other) == {}
    assert trace_report.figures(other, tmp_path) == []
    assert trace_report.tables(other) == []
    assert json.dumps(trace_report.trace_lines(other)) == "[]"
