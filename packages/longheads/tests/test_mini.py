import json
from collections import Counter

import pytest

from longheads import mini, report
from papercore.config import MiniConfig, RunFlags
from papercore.records import read_records
from papercore.runs import Run

CELLS = sum(len(multiples) for multiples in mini.QUICK_PLAN.cells.values())


def perform(folder, *, resume=False, **settings):
    config = MiniConfig(quick=True, **settings)
    flags = RunFlags(resume=resume)
    with Run.open(folder, config, flags, package="longheads", version="1.0.0", verb="mini") as run:
        mini.run(run, config)
    return read_records(folder / "records.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quick run."""
    folder = tmp_path_factory.mktemp("mini") / "run"
    return folder, perform(folder)


def answers(records, reader, multiple):
    prefix = f"{reader}/{multiple}x/"
    return {
        r.id.removeprefix(prefix): (r.data["predicted"], r.data["finders"])
        for r in records
        if r.id.startswith(prefix)
    }


def test_the_full_plan_asks_200_questions_per_cell_and_measures_every_bar():
    plan = mini.FULL_PLAN
    assert plan.documents * mini.QUESTIONS >= 200
    assert plan.multiples == [1, 2, 4, 8, 16, 32]
    measured = {f"{reader}_{m}x" for reader, cells in plan.cells.items() for m in cells}
    assert {"full_1x", "full_16x", "full_32x", "longheads_1x", "longheads_8x"} <= measured
    assert {"longheads_16x", "longheads_32x", "random_16x", "oracle_8x"} <= measured


def test_a_quick_run_records_every_question_of_every_reader(finished):
    _, records = finished
    kinds = Counter(record.id.partition("/")[0] for record in records)
    assert kinds["same"] == mini.QUICK_PLAN.documents
    questions = [record for record in records if "correct" in record.data]
    assert len(questions) == CELLS * mini.QUICK_PLAN.documents * mini.QUESTIONS
    assert all(record.status == "ok" for record in records)
    for record in questions:
        assert record.data["correct"] == (record.data["predicted"] == record.data["expected"])


def test_all_readers_answer_the_same_questions(finished):
    _, records = finished
    asked = {}
    for record in records:
        if "correct" in record.data:
            question = record.id.partition("/")[2]
            said = (record.data["key"], record.data["expected"], record.data["depth"])
            assert asked.setdefault(question, said) == said


def test_training_and_test_texts_are_disjoint_and_complete(finished):
    _, records = finished
    data = [record.data for record in records if record.id.startswith("data/")]
    hashes = {"train": set(), "test": set()}
    for part in data:
        hashes[part["split"]].update(part["content_hashes"])
    assert len(hashes["test"]) == mini.QUICK_PLAN.documents * len(mini.QUICK_PLAN.multiples)
    assert len(hashes["train"]) > 40
    assert not hashes["train"] & hashes["test"]


def test_all_readers_have_the_same_budget(finished):
    _, records = finished
    budgets = [record.data for record in records if record.id.startswith("budget/")]
    assert {budget["method"] for budget in budgets} == set(mini.FULL_PLAN.cells)
    assert [b["method"] for b in budgets if b["role"] == "method"] == ["longheads"]
    assert len({(b["steps"], b["tokens"]) for b in budgets}) == 1
    assert all(bool(b["tuning"]) != ("because" in b) for b in budgets)


def test_a_run_killed_between_any_two_records_resumes_to_the_same(finished, tmp_path):
    folder, records = finished
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("config.json", "env.json"):
        (torn / name).write_bytes((folder / name).read_bytes())
    middle = len(lines) // 2 + 3  # inside a batch
    (torn / "records.jsonl").write_bytes(b"".join(lines[:middle]) + lines[middle][:9])
    resumed = perform(torn, resume=True)
    assert sorted(resumed, key=lambda r: r.id) == sorted(records, key=lambda r: r.id)
    assert report.summarise(resumed) == report.summarise(records)
    done = perform(torn, resume=True)
    assert done == resumed, "a finished run adds nothing"


def test_the_ablation_replaces_the_choice_by_chance_and_nothing_else(finished, tmp_path):
    _, records = finished
    ablated = perform(tmp_path / "run", ablate=True)
    assert answers(ablated, "longheads", 2) == answers(ablated, "random", 2)
    assert answers(records, "longheads", 2) != answers(records, "random", 2)
    for reader in set(mini.QUICK_PLAN.cells) - {"longheads"}:
        assert answers(ablated, reader, 2) == answers(records, reader, 2)


def test_another_seed_is_another_run(finished, tmp_path):
    _, records = finished
    other = perform(tmp_path / "run", seed=1)
    assert answers(other, "full", 2) != answers(records, "full", 2)


def test_quick_models_are_not_kept(model_cache, tmp_path):
    perform(tmp_path / "run")
    assert not list(model_cache.rglob("*.safetensors"))
    notes = json.loads((tmp_path / "run" / "env.json").read_text())["notes"]
    assert notes == {"device": "cpu", "dtype": "float32", "model_from_cache": False}


def test_a_run_leaves_a_text_to_try(finished):
    folder, _ = finished
    words = (folder / "notes.txt").read_text().split()
    answer = (folder / "answer.txt").read_text().strip()
    assert len(words) == 8000
    question = words[-1]
    places = [place for place, word in enumerate(words[:-1]) if word == question]
    assert {words[place + 1] for place in places} == {answer}
