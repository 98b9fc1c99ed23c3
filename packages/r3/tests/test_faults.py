"""What goes wrong in a run, and what the run makes of it."""

import errno
import logging
import sys

import pytest
import torch

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError, ModelError
from papercore.records import read_lines, read_records
from papercore.rl import whole_folder
from papercore.rl.checkpoints import checkpoint_step, latest_checkpoint
from r3.config import RewardConfig
from r3.dump import read_dumps
from r3.folders import open_run
from r3.loop import MAX_FAILING, MAX_STUCK, train
from r3.rewards import Outcome
from r3.training_toy import Toy


def weights(setup):
    return {name: one.clone() for name, one in setup.policy.named_parameters()}


def go(toy, out=None, *, reward=None, resume=False):
    torch.manual_seed(0)
    setup = toy.setup(reward=reward)
    steps = toy.config.max_steps
    reports = []
    if out is None:
        result = train(setup, toy.config, total_steps=steps, on_step=reports.append)
        return setup, result, reports
    flags = RunFlags(out=out, resume=resume)
    with open_run(out, toy.config, flags, verb="train", data_hash=None) as run:
        result = train(
            setup, toy.config, total_steps=steps, run=run, out=out, on_step=reports.append
        )
    return setup, result, reports


class Earns:
    """Rewards by the number of the rollout, from 0 on, over all steps."""

    def __init__(self, rule):
        self.rule, self.calls = rule, 0

    def __call__(self, text, demo):
        found = self.rule(self.calls)
        self.calls += 1
        return found if isinstance(found, Outcome) else Outcome(found, found == 1.0, None)


def failed(why="ValueError: no"):
    return Outcome(0.0, False, None, why)


# rewards


@pytest.fixture
def own_reward(tmp_path, monkeypatch):
    """A module with a reward function of a user's own."""

    def write(body):
        (tmp_path / "my_reward.py").write_text(f"def score(text, demo):\n    {body}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "my_reward", raising=False)
        return RewardConfig(function="my_reward:score")

    return write


def test_a_reward_function_that_raises_costs_its_rollout_only(own_reward, tmp_path):
    config = own_reward("return 1 / (int(demo.id[4:]) % 2)")
    toy = Toy(reward=config, max_steps=4)
    out = tmp_path / "run"
    _, result, reports = go(toy, out)
    rows = list(read_dumps(out / "rollouts.jsonl"))
    broken = [row for row in rows if row.error]
    assert 0 < len(broken) == result.excluded < len(rows)
    assert {int(row.demo[4:]) % 2 for row in broken} == {0}
    assert all(row.error == "ZeroDivisionError: division by zero" for row in broken)
    assert all(row.reward is None and row.advantage is None for row in broken)
    records = [one for one in read_records(out / "records.jsonl") if one.status == "error"]
    assert [one.id for one in records] == [
        f"excluded/{step}" for step in range(1, 5) if any(row.step == step for row in broken)
    ]
    assert sum(sum(one.data["reasons"].values()) for one in records) == result.excluded
    assert "ZeroDivisionError" in records[0].error
    assert sum(report.metrics["excluded"] for report in reports) == result.excluded


def test_the_number_beside_an_error_is_never_read():
    toy = Toy(max_steps=2)
    found = []
    for hidden in (0.0, 1e9):
        rule = Earns(lambda n, hidden=hidden: Outcome(hidden, False, None, "x") if n % 4 else 1.0)
        found.append(weights(go(toy, reward=rule)[0]))
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items())


def test_a_run_stops_when_no_rollout_of_several_steps_has_a_reward(own_reward, tmp_path):
    toy = Toy(reward=own_reward("raise KeyError('gold')"), max_steps=9)
    with pytest.raises(ConfigError, match=r"no rollout of the last 3 steps .*KeyError") as seen:
        go(toy, tmp_path / "run")
    assert "\n" not in str(seen.value)
    assert len(read_lines(tmp_path / "run" / "metrics.jsonl")) == MAX_FAILING


def test_two_steps_without_a_reward_are_forgiven():
    toy = Toy(max_steps=7)
    bad = {1, 2, 4, 5}  # steps from 0
    rule = Earns(lambda n: failed() if n // 16 in bad else float(n % 2))
    _, result, reports = go(toy, reward=rule)
    assert result.steps == 7
    assert result.excluded == 4 * 16
    assert [report.metrics["updates"] for report in reports] == [2, 0, 0, 2, 0, 0, 2]
    assert "success" not in reports[1].metrics
    assert "policy_loss" not in reports[1].metrics


def test_counting_goes_on_after_a_resume(tmp_path):
    toy = Toy(max_steps=9, save_steps=1)
    always = Earns(lambda n: failed("RuntimeError: down"))
    with pytest.raises(ConfigError, match="no rollout of the last 3 steps"):
        go(toy, tmp_path / "run", reward=always)
    assert checkpoint_step(latest_checkpoint(tmp_path / "run" / "checkpoints")) == 2
    with pytest.raises(ConfigError, match="no rollout of the last 3 steps"):
        go(toy, tmp_path / "run", reward=always, resume=True)
    assert always.calls == 4 * 16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_no_number_is_left_out(value):
    rule = Earns(lambda n: Outcome(value, False, None) if n % 2 else 1.0)
    setup, result, _ = go(Toy(max_steps=2), reward=rule)
    assert result.excluded == 16
    assert all(torch.isfinite(one).all() for one in weights(setup).values())


# losses and gradients

HUGE = 1e38
"""A number, but its square, the critic's loss, is none in float32."""


def test_a_loss_that_is_no_number_costs_its_step_only():
    toy = Toy(max_steps=4)
    before = weights(toy.setup())
    seen = []
    rule = Earns(lambda n: HUGE if n < 16 else float(n % 2))
    setup = toy.setup(reward=rule)
    result = train(setup, toy.config, total_steps=4, on_step=lambda _: seen.append(weights(setup)))
    assert result.skipped == 2  # both passes over the first batch
    assert all(torch.equal(one, before[name]) for name, one in seen[0].items())
    assert not all(torch.equal(one, before[name]) for name, one in seen[1].items())
    assert all(torch.isfinite(one).all() for one in seen[-1].values())


def test_a_run_stops_after_several_such_steps_in_a_row(tmp_path):
    toy = Toy(max_steps=9, save_steps=1)
    with pytest.raises(ModelError, match="no number in 6 optimizer steps in a row, the last at"):
        go(toy, tmp_path / "run", reward=Earns(lambda n: HUGE))
    # two passes over each batch: the third step is the first with five or more
    assert len(read_lines(tmp_path / "run" / "metrics.jsonl")) == -(-MAX_STUCK // 2)
    assert checkpoint_step(latest_checkpoint(tmp_path / "run" / "checkpoints")) == 2


def test_a_good_step_between_them_is_enough():
    rule = Earns(lambda n: HUGE if n // 16 % 3 < 2 else float(n % 2))
    _, result, _ = go(Toy(max_steps=9), reward=rule)
    assert (result.steps, result.skipped) == (9, 12)


def test_a_model_whose_weights_are_broken_is_named(tmp_path):
    toy = Toy(max_steps=2)
    setup = toy.setup()
    with torch.no_grad():
        setup.policy.actor.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        train(setup, toy.config, total_steps=2)


# rollouts


def test_masking_what_was_cut_off_may_leave_nothing_and_says_so(caplog):
    """No demonstration ends after one token, and hardly a rollout of this untrained policy."""
    toy = Toy(max_steps=5, max_new_tokens=1, reward=RewardConfig(truncated="mask"), rollouts=4)
    with caplog.at_level(logging.WARNING):
        _, result, reports = go(toy)
    idle = [report.step for report in reports if not report.metrics["updates"]]
    said = [record.message for record in caplog.records if "nothing was learnt" in record.message]
    assert [int(line.split()[1].rstrip(":")) for line in said] == idle
    assert len(idle) >= 3
    assert result.steps == 5
    assert result.excluded == 0


# disks


def test_a_full_disk_ends_a_run_that_can_be_gone_on_with(tmp_path, monkeypatch):
    toy = Toy(max_steps=6, save_steps=2)
    whole = weights(go(toy, tmp_path / "whole")[0])
    real, calls = whole_folder.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) > 3:  # two files of the first checkpoint, one of the second
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    out = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr(whole_folder, "save_file", full)
        with pytest.raises(DataError, match=r"No space left on device.* go on with --resume"):
            go(toy, out)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    again, _, _ = go(toy, out, resume=True)
    assert all(torch.equal(one, whole[name]) for name, one in weights(again).items())


def test_a_checkpoint_of_other_demonstrations_is_refused(tmp_path):
    toy = Toy(max_steps=2)
    go(toy, tmp_path / "run")
    other = Toy(max_steps=2, num_demos=12)
    with pytest.raises(DataError):
        go(other, tmp_path / "run", resume=True)
