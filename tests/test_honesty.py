"""Five ways in which a reproduction could fool its reader, and that none of ours does.

Each test uses the full miniature of seed 0. It is run once per session (fixture `miniature` in
conftest.py), then once more with the trained model from the cache, and once with the method
replaced by its identity. docs/adding-a-package.md describes the records that are read here.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

HOUR_S = 3600
"""A full miniature may use four minutes of CPU, and a loaded machine stretches that."""

REBUILT = ("summary.json", "claims.json", "report.html")


def records(run, prefix: str) -> list[dict[str, object]]:
    lines = (run.out / "records.jsonl").read_text("utf-8").splitlines()
    every = [json.loads(line) for line in lines]
    return [record["data"] for record in every if record["id"].startswith(prefix)]


def claims(run) -> list[dict[str, object]]:
    return json.loads((run.out / "claims.json").read_text("utf-8"))["claims"]


def statuses(run) -> dict[str, str]:
    return {verdict["claim"]["id"]: verdict["status"] for verdict in claims(run)}


def summary(run) -> dict[str, object]:
    document = json.loads((run.out / "summary.json").read_text("utf-8"))
    return {key: value for key, value in document.items() if key != "timing"}


@pytest.mark.slow
@pytest.mark.timeout(HOUR_S)
def test_seed_0_holds_every_claim(package, miniature):
    run = miniature(package)
    assert run.code == 0, run.shown
    assert set(statuses(run).values()) == {"held"}


@pytest.mark.slow
@pytest.mark.timeout(HOUR_S)
def test_recheck_rebuilds_the_same_bytes_from_the_records(package, miniature, command, tmp_path):
    run = miniature(package)
    copy = tmp_path / "run"
    shutil.copytree(run.out, copy)
    for name in REBUILT:
        (copy / name).unlink()
    shutil.rmtree(copy / "figures")

    done = command(package.name, "report", copy, timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = [f"figures/{path.name}" for path in (run.out / "figures").iterdir()]
    assert figures
    for name in (*REBUILT, *figures):
        assert (copy / name).read_bytes() == (run.out / name).read_bytes(), name
    done = command(package.name, "report", copy, "--recheck", timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr

    document = json.loads((copy / "summary.json").read_text("utf-8"))
    next(iter(document["metrics"].values()))["value"] = 0.123456789
    (copy / "summary.json").write_text(json.dumps(document), "utf-8")
    done = command(package.name, "report", copy, "--recheck", timeout_s=600)
    assert done.returncode == 1, "a number that was changed by hand was not noticed"
    assert "summary" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(HOUR_S)
def test_without_the_method_the_effects_are_missed(package, miniature):
    run = miniature(package, "--ablate")
    effects = {v["claim"]["id"]: v["status"] for v in claims(run) if v["claim"]["kind"] == "effect"}
    assert effects
    assert set(effects.values()) == {"missed"}, effects
    assert run.code == 3, run.shown


@pytest.mark.slow
@pytest.mark.timeout(HOUR_S)
def test_training_and_test_data_share_nothing(package, miniature):
    hashes: dict[str, set[str]] = {"train": set(), "test": set()}
    for data in records(miniature(package), "data/"):
        hashes[data["split"]].update(data["content_hashes"])
    assert hashes["train"]
    assert hashes["test"]
    assert all(re.fullmatch(r"[0-9a-f]{16,}", h) for split in hashes.values() for h in split)
    assert not hashes["train"] & hashes["test"]


@pytest.mark.slow
@pytest.mark.timeout(HOUR_S)
def test_baselines_had_the_same_budget(package, miniature):
    budgets = records(miniature(package), "budget/")
    methods = [b for b in budgets if b["role"] == "method"]
    baselines = [b for b in budgets if b["role"] == "baseline"]
    assert methods, "no record budget/<method> with role method"
    assert baselines, "no record budget/<method> with role baseline"
    for key in ("steps", "tokens", "tuning"):
        most = max(method[key] for method in methods)
        poor = [b["method"] for b in baselines if b[key] < most and not b.get("because")]
        assert not poor, f"{poor} had less {key} than the method and no reason says why"


@pytest.mark.slow
@pytest.mark.timeout(HOUR_S)
def test_a_cold_cache_and_a_warm_one_give_the_same_verdicts(package, miniature):
    cold, warm = miniature(package), miniature(package, "--seed", "0")
    assert statuses(cold) == statuses(warm)
    assert claims(cold) == claims(warm)
    assert summary(cold) == summary(warm)


# The checks themselves must be able to fail: each is shown a run that cheats.


@dataclass(frozen=True)
class Cheat:
    """A run folder made by hand, in the shape that `miniature` returns."""

    out: Path
    code: int = 0
    shown: str = ""


def cheating_run(folder: Path, *, data=(), verdicts=(), code=0, numbers=None) -> Cheat:
    folder.mkdir()
    lines = [json.dumps({"id": key, "status": "ok", "data": fields}) for key, fields in data]
    (folder / "records.jsonl").write_text("\n".join(lines))
    listed = [{"claim": {"id": i, "kind": kind}, "status": status} for i, kind, status in verdicts]
    (folder / "claims.json").write_text(json.dumps({"claims": listed}))
    (folder / "summary.json").write_text(json.dumps({"timing": 1.0, "metrics": numbers or {}}))
    return Cheat(folder, code)


def test_a_missed_claim_is_noticed(tmp_path):
    run = cheating_run(tmp_path / "run", verdicts=[("c", "effect", "missed")], code=3)
    with pytest.raises(AssertionError):
        test_seed_0_holds_every_claim(None, lambda package: run)


@pytest.mark.parametrize("status", ["held", "not_measured"])
def test_an_effect_without_its_method_is_noticed(tmp_path, status):
    verdicts = [("a", "effect", "missed"), ("b", "effect", status), ("c", "control", "held")]
    run = cheating_run(tmp_path / "run", verdicts=verdicts, code=3)
    with pytest.raises(AssertionError):
        test_without_the_method_the_effects_are_missed(None, lambda package, flag: run)


def test_a_leak_is_noticed(tmp_path):
    a, b, c = "a" * 16, "b" * 16, "c" * 16
    data = [
        ("data/train/0", {"split": "train", "content_hashes": [a, b]}),
        ("data/test/0", {"split": "test", "content_hashes": [b, c]}),
    ]
    run = cheating_run(tmp_path / "run", data=data)
    with pytest.raises(AssertionError):
        test_training_and_test_data_share_nothing(None, lambda package: run)


@pytest.mark.parametrize("key", ["steps", "tokens", "tuning"])
def test_a_starved_baseline_is_noticed(tmp_path, key):
    method = {"method": "ours", "role": "method", "steps": 9, "tokens": 9, "tuning": 9}
    baseline = method | {"method": "theirs", "role": "baseline", key: 8}
    budgets = [("budget/ours", method), ("budget/theirs", baseline)]
    run = cheating_run(tmp_path / "run", data=budgets)
    with pytest.raises(AssertionError, match="theirs"):
        test_baselines_had_the_same_budget(None, lambda package: run)

    excused = [*budgets[:1], ("budget/theirs", baseline | {"because": "a random guess"})]
    run = cheating_run(tmp_path / "excused", data=excused)
    test_baselines_had_the_same_budget(None, lambda package: run)


def test_a_cache_that_changes_the_result_is_noticed(tmp_path):
    held = [("c", "effect", "held")]
    cold = cheating_run(tmp_path / "cold", verdicts=held, numbers={"accuracy": 0.9})
    warm = cheating_run(tmp_path / "warm", verdicts=held, numbers={"accuracy": 0.8})
    with pytest.raises(AssertionError):
        test_a_cold_cache_and_a_warm_one_give_the_same_verdicts(
            None, lambda package, *flags: warm if flags else cold
        )
