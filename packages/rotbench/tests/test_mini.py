import json
from collections import Counter

import pytest

from papercore.config import MiniConfig, RunFlags
from papercore.records import read_records
from papercore.runs import Run
from rotbench import mini, mini_report
from rotbench.cases import HALVES, LEVELS
from rotbench.claims import CLAIMS

CELLS = [(level, half) for level in LEVELS for half in HALVES[level]]


def perform(folder, *, resume=False, **settings):
    config = MiniConfig(quick=True, **settings)
    flags = RunFlags(resume=resume)
    with Run.open(folder, config, flags, package="rotbench", version="1.0.0", verb="mini") as run:
        mini.run(run, config)
    return read_records(folder / "records.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quick run."""
    folder = tmp_path_factory.mktemp("mini") / "run"
    return folder, perform(folder)


def texts(records, model):
    return {
        record.id.removeprefix(f"{model}/"): record.data["text"]
        for record in records
        if record.id.startswith(f"{model}/")
    }


def test_the_full_plan_asks_200_queries_in_every_cell():
    tasks = mini.test_tasks(0, mini.NUM_QUERIES)
    counted = Counter((task.case.key.level, task.case.key.half) for task in tasks)
    assert counted == dict.fromkeys(CELLS, 200)
    assert len({task.name for task in tasks}) == len(tasks)
    assert len({task.case.key.query for task in tasks}) == 200


def test_a_query_is_the_same_at_every_level():
    asked = {}
    for task in mini.test_tasks(1, 5):
        assert asked.setdefault(task.case.key.query, task.case.query) == task.case.query
        assert (task.case.origin is None) == (task.case.key.level == "clean")


def test_a_quick_run_records_every_answer_of_both_models(finished):
    _, records = finished
    answers = [record for record in records if record.id.startswith(("clean-only/", "rottuned/"))]
    assert len(answers) == 2 * len(CELLS) * mini.QUICK_QUERIES
    assert all(record.status == "ok" for record in answers)
    for record in answers:
        assert record.id == "{model}/first/{level}/{half}/{index:03d}".format(**record.data)
        assert set(record.data["fixed"]) == {"ts", "pi", "cf"}
        assert record.data["fixed"]["ts"] <= (record.data["name"] == record.data["gold"])


def test_every_bar_of_the_claims_is_measured(finished):
    _, records = finished
    measured = mini_report.summarise(records)
    assert {bar.metric for claim in CLAIMS for bar in claim.bars} <= set(measured)


def test_training_and_test_texts_are_disjoint_and_complete(finished):
    _, records = finished
    hashes = {"train": set(), "test": set()}
    for record in records:
        if record.id.startswith("data/"):
            hashes[record.data["split"]].update(record.data["content_hashes"])
    assert len(hashes["test"]) == len(CELLS) * mini.QUICK_QUERIES
    assert len(hashes["train"]) > 60
    assert not hashes["train"] & hashes["test"]


def test_both_models_have_the_same_budget(finished):
    _, records = finished
    budgets = {r.data["method"]: r.data for r in records if r.id.startswith("budget/")}
    assert {name: budget["role"] for name, budget in budgets.items()} == {
        "clean-only": "baseline",
        "rottuned": "method",
    }
    ours, theirs = budgets["rottuned"], budgets["clean-only"]
    assert (ours["steps"], ours["tuning"]) == (theirs["steps"], theirs["tuning"])
    assert abs(ours["tokens"] - theirs["tokens"]) < 0.02 * ours["tokens"]
    assert theirs["because"]


def test_a_run_killed_between_any_two_records_resumes_to_the_same(finished, tmp_path):
    folder, records = finished
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("config.json", "env.json"):
        (torn / name).write_bytes((folder / name).read_bytes())
    middle = len(lines) // 2
    (torn / "records.jsonl").write_bytes(b"".join(lines[:middle]) + lines[middle][:9])
    resumed = perform(torn, resume=True)
    assert sorted(resumed, key=lambda r: r.id) == sorted(records, key=lambda r: r.id)
    assert mini_report.summarise(resumed) == mini_report.summarise(records)
    assert perform(torn, resume=True) == resumed, "a finished run adds nothing"


def test_the_ablation_takes_the_noise_out_of_training_and_nothing_else(finished, tmp_path):
    _, records = finished
    ablated = perform(tmp_path / "run", ablate=True)
    assert texts(ablated, "rottuned") == texts(ablated, "clean-only")
    assert texts(ablated, "clean-only") == texts(records, "clean-only")
    hashes = {r.id: r.data["content_hashes"] for r in ablated if r.id.startswith("data/")}
    assert hashes["data/train/rottuned"] == hashes["data/train/clean-only"]
    effects = {bar.metric for c in CLAIMS if c.kind == "effect" for bar in c.bars}
    gains = {name: e for name, e in mini_report.summarise(ablated).items() if "minus_clean" in name}
    assert {e.value for e in gains.values()} == {0.0}
    assert effects & set(gains)


def test_another_seed_is_another_run(finished, tmp_path):
    _, records = finished
    other = perform(tmp_path / "run", seed=1)
    golds = [[r.data["gold"] for r in some if "gold" in r.data] for some in (records, other)]
    assert golds[0] != golds[1]


def test_quick_models_are_not_kept(model_cache, tmp_path):
    perform(tmp_path / "run")
    assert not list(model_cache.rglob("*.safetensors"))
    notes = json.loads((tmp_path / "run" / "env.json").read_text())["notes"]
    assert notes == {"device": "cpu", "dtype": "float32", "model_from_cache": False}
