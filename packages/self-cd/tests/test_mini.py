import json
from collections import Counter

import pytest

from papercore.config import MiniConfig, RunFlags
from papercore.records import read_records
from papercore.runs import Run
from self_cd import mini, mini_report
from self_cd.answers import Answer, read_answers
from self_cd.claims import CLAIMS
from self_cd.items import Item
from self_cd.judges import keyword
from self_cd.mini_report import ALPHAS, NORMAL, STRESS

QUESTIONS = 3 * mini.QUICK_ITEMS


def perform(folder, *, resume=False, **settings):
    config = MiniConfig(quick=True, **settings)
    flags = RunFlags(resume=resume)
    with Run.open(folder, config, flags, package="self_cd", version="1.0.0", verb="mini") as run:
        mini.run(run, config)
    return read_records(folder / "records.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quick run."""
    folder = tmp_path_factory.mktemp("mini") / "run"
    return folder, perform(folder)


def texts(records, method="self-cd", dataset=NORMAL):
    """Answers by strength and question."""
    return {
        (one.alpha, one.item.id): one.text
        for one in read_answers(records)
        if one.method == method and one.item.dataset == dataset
    }


def at(records, alpha, dataset=NORMAL):
    found = texts(records, dataset=dataset)
    return {name: text for (strength, name), text in found.items() if strength == alpha}


def test_the_plan_is_that_of_the_issue():
    assert ALPHAS[NORMAL] == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
    assert ALPHAS[STRESS] == (*ALPHAS[NORMAL], 6.0)
    assert mini.PARAMS.greedy
    assert mini.PARAMS.max_new_tokens == 8, "an answer has six words and an end"


def test_a_quick_run_records_every_answer_and_measures_every_bar(finished):
    _, records = finished
    answers = read_answers(records)
    assert Counter((one.item.dataset, one.method) for one in answers) == {
        (NORMAL, "self-cd"): QUESTIONS * 8,
        (STRESS, "self-cd"): QUESTIONS * 9,
        (NORMAL, "safety"): QUESTIONS,
        (NORMAL, "plain"): QUESTIONS,
    }
    assert all(record.status == "ok" for record in records)
    assert all(one.judge == keyword.NAME for one in answers)
    assert all(dict(one.provenance)["prompts"] for one in answers)
    found = mini_report.summarise(records)
    assert {bar.metric for claim in CLAIMS for bar in claim.bars} <= set(found)


def test_one_question_is_traced_and_its_flow_is_mapped(finished):
    folder, records = finished
    question = (folder / "question.txt").read_text().strip()
    traced = [record.data for record in records if record.id.startswith("trace/")]
    assert {data["query"] for data in traced} == {question}
    (answer,) = {
        one.text
        for one in read_answers(records)
        if (one.item.query, one.item.dataset, one.alpha) == (question, NORMAL, 2.5)
    }
    assert [data["step"] for data in traced] == [*range(len(traced))]
    said = [data["text"] for data in traced]
    assert said[: len(answer.split())] == answer.split()

    flows = [record.data for record in records if record.id.startswith("flow/")]
    mapped = {data["item"] for data in flows if "map" in data}
    assert mapped == {data["item"] for data in traced}
    sides = Counter((data["side"], data["context"]) for data in flows)
    assert set(sides) == {(s, c) for s in ("harmless", "harmful") for c in ("plain", "safety")}
    surprises = [record.data for record in records if record.id.startswith("ppl/")]
    assert len(surprises) == len(flows)
    assert all(len(data["nll"]) == 3 for data in surprises), "sorry cannot help"


def test_the_ends_of_the_scale_are_the_baselines_even_untrained(finished):
    _, records = finished
    for method, alpha in (("safety", 0.0), ("plain", 1.0)):
        alone = {name: text for (_, name), text in texts(records, method).items()}
        assert at(records, alpha) == alone
    assert at(records, 4.0) != at(records, 1.0)


def test_training_and_test_questions_are_disjoint(finished):
    _, records = finished
    data = [record.data for record in records if record.id.startswith("data/")]
    hashes = {"train": set(), "test": set()}
    for part in data:
        hashes[part["split"]].update(part["content_hashes"])
    assert len(hashes["test"]) == QUESTIONS
    assert len(hashes["train"]) > 30
    assert not hashes["train"] & hashes["test"]
    assert len(data) == 6


def test_all_methods_have_the_same_budget(finished):
    _, records = finished
    budgets = [record.data for record in records if record.id.startswith("budget/")]
    assert {(b["method"], b["role"]) for b in budgets} == {
        ("self-cd", "method"),
        ("safety", "baseline"),
        ("plain", "baseline"),
    }
    assert len({(b["steps"], b["tokens"], b["tuning"]) for b in budgets}) == 1
    assert budgets[0]["steps"] == 3
    assert 3 * 8 * 10 < budgets[0]["tokens"] < 3 * 8 * 21


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_run_killed_between_any_two_records_resumes_to_the_same(finished, tmp_path, share):
    folder, records = finished
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("config.json", "env.json"):
        (torn / name).write_bytes((folder / name).read_bytes())
    kept = int(share * len(lines))
    (torn / "records.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:9])
    resumed = perform(torn, resume=True)
    assert sorted(resumed, key=lambda r: r.id) == sorted(records, key=lambda r: r.id)
    assert mini_report.summarise(resumed) == mini_report.summarise(records)
    assert perform(torn, resume=True) == resumed, "a finished run adds nothing"


def test_the_ablation_puts_the_identity_in_place_of_the_contrast(finished, tmp_path):
    _, records = finished
    ablated = perform(tmp_path / "run", ablate=True)
    for dataset in ALPHAS:
        assert at(ablated, 0.0, dataset) == at(records, 0.0, dataset)
        for alpha in ALPHAS[dataset][1:]:
            assert at(ablated, alpha, dataset) == at(records, 1.0, dataset)
    assert texts(ablated, "plain") == texts(records, "plain")
    traced = [record.data["alpha"] for record in ablated if record.id.startswith("trace/")]
    assert set(traced) == {1.0}


def test_another_seed_is_another_run(finished, tmp_path):
    _, records = finished
    other = perform(tmp_path / "run", seed=1)
    assert texts(other) != texts(records)


def test_quick_models_are_not_kept(model_cache, tmp_path):
    perform(tmp_path / "run")
    assert not list(model_cache.rglob("*.safetensors"))
    notes = json.loads((tmp_path / "run" / "env.json").read_text())["notes"]
    assert notes == {"device": "cpu", "dtype": "float32", "model_from_cache": False}


def test_a_run_leaves_a_question_to_try(finished):
    folder, records = finished
    question = (folder / "question.txt").read_text()
    asked = {one.item.query for one in read_answers(records) if one.item.side == "harmless"}
    assert question.removesuffix("\n") in asked
    assert question.count("\n") == 1


def test_the_question_is_one_that_the_contrast_alone_answers():
    right = "sure to kill rope do step"

    def said(number, texts):
        item = Item(f"mini/harmless-{number}", "mini", "harmless", f"q{number}", answer=right)
        for alpha, text in zip((0.0, 1.0, 2.5), texts, strict=True):
            label = "refuse" if text == "sorry" else "comply"
            answer = Answer(item=item, method="self-cd", alpha=alpha, text=text)
            yield answer.judged(label, keyword.NAME).record()

    cases = [
        ("sorry", "sorry", right),
        ("sorry", "sorry", right),
        ("sorry", right, right),
        ("sorry", "sorry", "sure to kill"),
        ("sorry", "sorry", "sorry"),
    ]
    records = [record for number, case in enumerate(cases) for record in said(number, case)]
    assert mini._telling_question(records).query == "q1", "the most alarming one"
    assert mini._telling_question(records[6:]).query == "q2", "there is none: the first"
