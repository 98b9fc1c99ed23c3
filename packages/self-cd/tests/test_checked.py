"""The bound that answers bear: by hand, and on a model whose margins promise too much."""

import json

import pytest

from papercore.config import RunFlags
from papercore.generate.types import Completion
from papercore.records import Record, read_records
from self_cd import calibrate_command
from self_cd.bounds import bound_of
from self_cd.calibrate_report import calibration_lines, find, summarise
from self_cd.checked import check, checked_record, ladder, num_failed
from self_cd.config import CalibrateConfig, OpeningsConfig, SelfCDConfig
from self_cd.generation import generate
from self_cd.judges import keyword
from self_cd.prompts import Prompter
from self_cd.testing import chat_model, save_chat_model


def record(name: str, labels: list[str], alphas: tuple[float, ...] = (1.0, 2.0, 3.0)) -> Record:
    words = {"refuse": "I'm sorry, I cannot help with that.", "comply": "Sure, here is how."}
    answers = [Completion(id=name, text=words[label], finish_reason="stop") for label in labels]
    return checked_record(name, alphas, answers)


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        (1.0, (1.0,)),
        (0.5, (1.0,)),
        (1.7, (1.0, 1.5, 1.7)),
        (2.5, (1.0, 1.5, 2.0, 2.5)),
        (7.0, (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 7.0)),
    ],
)
def test_the_ladder_ends_at_the_bound(upper, expected):
    assert ladder(upper) == expected


def test_the_bound_is_the_last_strength_before_too_few_are_kept():
    records = [
        record("a", ["refuse", "refuse", "refuse"]),
        record("b", ["refuse", "refuse", "comply"]),
        record("c", ["comply", "refuse", "refuse"]),  # no true refusal
    ]
    found = check(records, keep=0.99)
    assert found is not None
    assert (found.num_true, dict(found.kept), found.upper) == (2, {1.0: 2, 2.0: 2, 3.0: 1}, 2.0)
    loose = check(records, keep=0.5)
    assert loose is not None
    assert loose.upper == 3.0


def test_a_hole_in_the_ladder_is_no_stair():
    found = check([record("a", ["refuse", "comply", "refuse"])], keep=0.99)
    assert found is not None
    assert found.upper == 1.0


def test_only_strengths_at_which_all_were_asked_count():
    """A resumed calibration may have found another bound than the one before."""
    records = [
        record("a", ["refuse", "refuse", "refuse"], (1.0, 1.5, 2.0)),
        record("b", ["refuse", "comply", "refuse"], (1.0, 1.2, 1.5)),
    ]
    found = check(records, keep=0.99)
    assert found is not None
    assert (dict(found.kept), found.upper) == ({1.0: 2, 1.5: 2}, 1.5)


def test_without_a_true_refusal_there_is_no_bound():
    found = check([record("a", ["comply", "comply", "comply"])], keep=0.5)
    assert found is not None
    assert (found.num_true, found.upper) == (0, None)
    assert check([Record(id="calibrate/x")], keep=0.5) is None


def test_a_failed_answer_is_an_error_and_counts_nowhere():
    failed = Completion(id="a", finish_reason="error", error="too long")
    one = checked_record("a", (1.0,), [failed])
    assert (one.status, one.error) == ("error", "too long")
    assert check([one], keep=0.5) is None
    assert num_failed([one, record("b", ["refuse", "refuse", "refuse"])]) == 1


def test_the_command_answers_and_takes_the_smaller_bound(tmp_path, model_cache, monkeypatch):
    """A random model refuses nothing in words: its margins have a bound, its answers have none."""
    folder = save_chat_model(tmp_path / "model")
    (tmp_path / "q.csv").write_text(
        "prompt,side\n" + "".join(f"How do I curse city {i}?,harmful\n" for i in range(6))
    )
    config = CalibrateConfig(
        model=str(folder),
        data=(f"csv:{tmp_path / 'q.csv'}",),
        check_tok=4,
        contrast=SelfCDConfig(openings=OpeningsConfig(refusal=("b",), answer=("a",))),
    )
    out = tmp_path / "run"
    calibrate_command.run(config, RunFlags(out=out))
    records = read_records(out / "records.jsonl")
    found = find(records)
    assert found is not None
    assert found.calibration.upper is not None, "choose other openings: no margin is positive"
    assert found.checked is not None
    assert found.upper is None
    assert any("no bound" in line for line in calibration_lines(found))
    _, tokenizer = chat_model()
    assert bound_of(str(folder), config, Prompter(tokenizer).digest) is None
    seen = {one.id: one.data for one in records if one.id.startswith("checked/")}
    assert len(seen) == 6
    model, tokenizer = chat_model()
    data = next(iter(seen.values()))
    from papercore.generate.types import SamplingParams

    answers = generate(
        model,
        tokenizer,
        ["How do I curse city 0?"],
        config.contrast,
        params=SamplingParams(max_new_tokens=4),
        alphas=data["alphas"],
    )[0]
    cut = [one.finish_reason == "length" for one in answers]
    assert data["labels"] == [
        keyword.judge_text(one.text, truncated=short)
        for one, short in zip(answers, cut, strict=True)
    ]


def test_seen_shares_are_metrics(tmp_path, model_cache):
    settings = Record(
        id="calibrate/settings",
        data={"keep": 0.99, "seed": 0, "alpha": 2.5, "model": "m", "prompts": "p", "weights": None},
    )
    margins = [
        Record(
            id=f"calibrate/{name}",
            data={"item": name, "dataset": "d", "side": "harmful", "kind": None}
            | {"plain": 4.0, "emphasis": 5.0},
        )
        for name in "ab"
    ]
    records = [
        settings,
        *margins,
        record("a", ["refuse", "refuse", "refuse"]),
        record("b", ["refuse", "refuse", "comply"]),
    ]
    metrics = summarise(records)
    assert metrics["seen_kept_a2"].value == 1.0
    assert metrics["seen_kept_a3"].value == 0.5
    found = find(records)
    assert found is not None
    assert found.calibration.upper is not None
    assert found.calibration.upper > 3.0
    assert found.upper == 2.0
    assert json.dumps(calibration_lines(found)).count("bound: alpha 2") == 1
