"""Five ways in which a reproduction could fool its reader, and that none of ours does.

Each test uses the full miniature of seed 0. It is run once per session (fixture `miniature` in
conftest.py), then once more with the trained model from the cache, and once with the method
replaced by its identity. docs/adding-a-package.md describes the records that are read here.
"""

from __future__ import annotations

import json
import re
import shutil

import pytest

# A full miniature may use four minutes of CPU, and a loaded machine stretches that.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

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


def test_seed_0_holds_every_claim(package, miniature):
    run = miniature(package)
    assert run.code == 0, run.shown
    assert set(statuses(run).values()) == {"held"}


def test_recheck_rebuilds_the_same_bytes_from_the_records(package, miniature, command, tmp_path):
    run = miniature(package)
    copy = tmp_path / "run"
    shutil.copytree(run.out, copy)
    # What the records cannot tell (timing) stays; every number that they can tell is taken away.
    document = json.loads((copy / "summary.json").read_text("utf-8"))
    blank = {key: value if key == "timing" else {} for key, value in document.items()}
    (copy / "summary.json").write_text(json.dumps(blank), "utf-8")
    (copy / "claims.json").unlink()
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "figures")

    done = command(package.name, "report", copy, "--recheck", timeout_s=600)
    assert done.returncode == run.code, done.stdout + done.stderr
    for name in REBUILT:
        assert (copy / name).read_bytes() == (run.out / name).read_bytes(), name
    for figure in (run.out / "figures").glob("*.csv"):
        assert (copy / "figures" / figure.name).read_bytes() == figure.read_bytes()


def test_without_the_method_the_effects_are_missed(package, miniature):
    run = miniature(package, "--ablate")
    effects = {v["claim"]["id"]: v["status"] for v in claims(run) if v["claim"]["kind"] == "effect"}
    assert effects
    assert set(effects.values()) == {"missed"}, effects
    assert run.code == 3, run.shown


def test_training_and_test_data_share_nothing(package, miniature):
    hashes: dict[str, set[str]] = {"train": set(), "test": set()}
    for data in records(miniature(package), "data/"):
        hashes[data["split"]].update(data["content_hashes"])
    assert hashes["train"]
    assert hashes["test"]
    assert all(re.fullmatch(r"[0-9a-f]{16,}", h) for split in hashes.values() for h in split)
    assert not hashes["train"] & hashes["test"]


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


def test_a_cold_cache_and_a_warm_one_give_the_same_verdicts(package, miniature):
    cold, warm = miniature(package), miniature(package, "--seed", "0")
    assert statuses(cold) == statuses(warm)
    assert claims(cold) == claims(warm)
    assert summary(cold) == summary(warm)
