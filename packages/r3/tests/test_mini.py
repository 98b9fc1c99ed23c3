import shutil
from collections import Counter

import pytest

from papercore.config import MiniConfig, RunFlags
from papercore.errors import DataError
from papercore.records import read_records
from papercore.report import conclude
from papercore.runs import Run
from r3 import mini, mini_report
from r3.claims import CLAIMS
from r3.mini import Plan, arm_settings
from r3.mini_report import ARMS, TUNED, arm_id, look_id
from r3.presets import TRAIN
from r3.train_step import TrainStep

LOOKS = Plan.of(MiniConfig(quick=True)).looks
MODE = ("curriculum", "seed", "rollouts", "max_steps", "save_steps")
"""Settings in which an arm may differ from the preset."""


def perform(folder, *, resume=False, **settings):
    config = MiniConfig(quick=True, **settings)
    flags = RunFlags(resume=resume)
    with Run.open(folder, config, flags, package="r3", version="1.0.0", verb="mini") as run:
        mini.run(run, config)
    return read_records(folder / "records.jsonl")


def by_id(records):
    return {record.id: record for record in records}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quick run."""
    folder = tmp_path_factory.mktemp("mini") / "run"
    return folder, by_id(perform(folder))


class KilledError(Exception):
    """Stands for a SIGKILL."""


def killed_at(monkeypatch, where, name, call):
    """Lets a function die when it is called for the nth time; the state on disk is what counts."""
    calls = Counter()
    real = getattr(where, name)

    def dying(*args, **kwargs):
        calls[name] += 1
        if calls[name] == call:
            raise KilledError
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, dying)


def test_the_plan_is_that_of_the_spec():
    plan = Plan()
    assert plan.looks == (0, 20, 40, 60)
    assert (plan.rollouts, plan.draws, plan.num_rates) == (256, 16, 20_000)
    assert {arm: arm_settings(MiniConfig(), plan, arm).curriculum.kind for arm in ARMS} == {
        "r3": "mixed",
        "rl": "vanilla",
        "free": "vanilla",
        "staged": "staged",
    }


def test_arms_differ_from_the_preset_in_seed_and_curriculum_and_one_in_the_kl_weight():
    config = MiniConfig(seed=3)
    kept = TRAIN["tiny"].model_dump(exclude=set(MODE))
    for arm in ARMS:
        settings = arm_settings(config, Plan(), arm)
        if arm == "free":
            assert settings.ppo.beta == 0.01
            settings = settings.model_copy(update={"ppo": TRAIN["tiny"].ppo})
        assert settings.model_dump(exclude=set(MODE)) == kept
        assert settings.seed == 3
        assert (settings.rollouts, settings.max_steps, settings.save_steps) == (256, 60, 20)


def test_a_quick_run_looks_at_every_arm(finished):
    _, records = finished
    assert all(record.status == "ok" for record in records.values())
    wanted = {look_id(TUNED, 0)} | {look_id(arm, step) for arm in ARMS for step in LOOKS[1:]}
    assert {name for name in records if name.startswith("look/")} == wanted
    for name in wanted:
        data = records[name].data
        assert len(data["held_out"]["starts"]) == 32
        assert len(data["trained"]["starts"]) == 65
        for group in mini_report.GROUPS:
            asked = data[group]
            assert all(0 <= right <= 1 for right in asked["greedy"])
            assert all(0 <= right <= asked["draws"] == 2 for right in asked["sampled"])
            assert {len(asked[kind]) for kind in ("greedy", "greedy_steps", "sampled_steps")} == {
                len(asked["starts"])
            }


def test_every_bar_that_names_no_step_is_measured(finished):
    _, records = finished
    found = mini_report.summarise([*records.values()])
    bars = {bar.metric for claim in CLAIMS for bar in claim.bars}
    assert {bar for bar in bars if not bar.endswith("_60")} <= set(found)
    last = {bar.replace("_60", f"_{LOOKS[-1]}") for bar in bars if bar.endswith("_60")}
    assert last <= set(found)


def test_arms_have_equal_rollouts_and_different_starts(finished):
    _, records = finished
    depths = {}
    for arm in ARMS:
        data = records[arm_id(arm)].data
        assert (data["steps"], data["updates"]) == (LOOKS[-1], 4 * LOOKS[-1])
        assert Counter(step for step, *_ in data["rollouts"]).keys() == {*range(1, LOOKS[-1] + 1)}
        assert sum(num for *_, num, _ in data["rollouts"]) == 16 * LOOKS[-1]
        depths[arm] = {depth for _, depth, *_ in data["rollouts"]}
    assert depths["r3"] == {0, 1, 2, 3, 4}
    assert depths["rl"] == depths["free"] == {0}
    first = [row[1] for row in records[arm_id("staged")].data["rollouts"] if row[0] == 1]
    assert first == [4], "the first stage is the one next to the answer"


def test_training_and_test_questions_are_disjoint(finished):
    _, records = finished
    data = [record.data for name, record in records.items() if name.startswith("data/")]
    hashes = {"train": set(), "test": set()}
    for part in data:
        hashes[part["split"]].update(part["content_hashes"])
    assert len(data) == 3
    assert len(hashes["test"]) == 32
    assert len(hashes["train"]) == 65
    assert not hashes["train"] & hashes["test"]


def test_no_baseline_has_less_than_the_method_unless_it_says_why(finished):
    _, records = finished
    budgets = {arm: records[f"budget/{arm}"].data for arm in ARMS}
    assert {arm for arm, data in budgets.items() if data["role"] == "method"} == {"r3"}
    assert {data["steps"] for data in budgets.values()} == {3 + 4 * LOOKS[-1]}
    assert len({data["tuning"] for data in budgets.values()}) == 1
    for data in budgets.values():
        assert data["tokens"] >= budgets["r3"]["tokens"] or data["because"]
    for arm in ARMS:
        generated = records[arm_id(arm)].data["tokens"]
        assert budgets[arm]["tokens"] - generated == 3 * 64 * 16, "that is what tuning read"


def test_a_baseline_that_generates_less_says_why(tmp_path):
    config = MiniConfig(quick=True)
    flags = RunFlags(out=tmp_path)
    with Run.open(tmp_path, config, flags, package="r3", version="1", verb="mini") as run:
        for arm, tokens in zip(ARMS, (100, 160, 161, 99), strict=True):
            data = {"arm": arm, "tokens": tokens, "updates": 1}
            run.append(mini.Record(id=arm_id(arm), data=data))
        mini._describe_budgets_(run, config)
        budgets = {arm: by_id(run.records())[f"budget/{arm}"].data for arm in ARMS}
    assert [("because" in budgets[arm]) for arm in ARMS] == [False, False, False, True]


def test_each_arm_is_a_run_folder_that_the_other_verbs_read(finished):
    folder, records = finished
    for arm in ARMS:
        out = folder / "arms" / arm
        steps = [one for one in read_records(out / "records.jsonl") if one.id.startswith("step/")]
        assert [one.data["step"] for one in steps] == [*range(1, LOOKS[-1] + 1)]
        assert sum(one.data["tokens"] for one in steps) == records[arm_id(arm)].data["tokens"]
        assert (out / "model" / "model.safetensors").exists()
        assert (out / "rollouts.jsonl").stat().st_size > 0
        assert not (out / "checkpoints").exists(), "of no use after the last step"
        assert conclude(out).estimates["steps"].value == LOOKS[-1]


@pytest.mark.parametrize(
    ("where", "name", "call"),
    [
        (mini, "look", 1),
        (mini, "look", 3),
        (TrainStep, "run", 1),
        (TrainStep, "run", 9),
        (mini, "export_run", 2),
        (mini, "_arm_record", 1),
        (mini, "depth_rates", 1),
    ],
)
def test_a_run_that_dies_resumes_to_the_same(finished, tmp_path, where, name, call):
    _, records = finished
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, where, name, call)
        with pytest.raises(KilledError):
            perform(tmp_path / "run")
    assert by_id(perform(tmp_path / "run", resume=True)) == records


def test_a_finished_run_adds_nothing(finished, tmp_path):
    folder, records = finished
    shutil.copytree(folder, tmp_path / "run", symlinks=True)
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, TrainStep, "run", 1)
        perform(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before
    assert by_id(read_records(tmp_path / "run" / "records.jsonl")) == records


def test_an_arm_that_is_ahead_of_the_records_is_refused(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, TrainStep, "run", LOOKS[2] + 1)
        with pytest.raises(KilledError):
            perform(tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"look/r3/' not in line))
    with pytest.raises(DataError, match="arms/r3 is ahead of the records"):
        perform(tmp_path / "run", resume=True)


def test_the_ablation_puts_plain_rl_in_the_place_of_r3(finished, tmp_path):
    _, records = finished
    ablated = by_id(perform(tmp_path / "run", ablate=True))
    last = LOOKS[-1]
    found = {
        arm: {name: ablated[look_id(arm, last)].data[name] for name in mini_report.GROUPS}
        for arm in ARMS
    }
    assert found["r3"] == found["rl"]
    assert ablated[arm_id("r3")].data["tokens"] == ablated[arm_id("rl")].data["tokens"]
    assert ablated[arm_id("r3")].data["rollouts"] == ablated[arm_id("rl")].data["rollouts"]
    assert ablated[arm_id("rl")].data == records[arm_id("rl")].data
    assert ablated[arm_id("r3")].data != records[arm_id("r3")].data


def test_another_seed_is_another_world(finished, tmp_path):
    _, records = finished
    other = by_id(perform(tmp_path / "run", seed=1))
    tested = records["data/test"].data["content_hashes"]
    assert other["data/test"].data["content_hashes"] != tested
    assert other.keys() == records.keys()
