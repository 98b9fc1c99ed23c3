"""A run that is killed at any moment goes on to the same weights, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from papercore.config import RunFlags
from papercore.errors import ConfigError
from papercore.records import read_lines, read_records
from papercore.rl.checkpoints import checkpoint_step, latest_checkpoint
from papercore.testing import run_cli
from r3.config import CurriculumConfig, PPOConfig
from r3.folders import open_run
from r3.loop import train
from r3.training_toy import Toy, write_toy

TIMES = ("_s", "_gib")
R3 = str(Path(sys.executable).parent / "r3")


class Killed(BaseException):
    """Nothing in a run catches this."""


def parity(model):
    """A mark that nearly any change of the weights changes."""
    total = sum(one.double().sum() for one in model.parameters())
    return int(total.item() * 1e6) % 2 == 0


def start(toy, out, *, dies_at=None, resume=False):
    """Trains into a folder; dies after the metrics of a step were written, if asked to."""
    torch.manual_seed(0)
    flags = RunFlags(out=out, resume=resume)
    setup = toy.setup(evaluate=lambda model: [parity(model), True])
    with open_run(out, toy.config, flags, verb="train", data_hash=None) as run:
        log = run.log

        def dying(step, **metrics):
            log(step, **metrics)
            if step == dies_at:
                raise Killed

        run.log = dying
        train(setup, toy.config, total_steps=toy.config.max_steps, run=run, out=out)
    return setup


def numbers(out):
    """Metrics without times."""
    return [
        {name: value for name, value in line.items() if not name.endswith(TIMES)}
        for line in read_lines(out / "metrics.jsonl")
    ]


def weights(setup):
    return dict(setup.policy.named_parameters())


CASES = {
    "full": {},
    "separate": {"critic": "separate", "critic_warmup": 2, "schedule": "cosine"},
    "lora": {"tune": "lora", "critic": "separate"},
    "kl-in-loss": {"ppo": PPOConfig(kl="loss", minibatches=2)},
    "adaptive-kl": {"ppo": PPOConfig(kl_target=1e-3)},
    "staged": {"curriculum": CurriculumConfig(kind="staged", threshold=0.05, window=16)},
    "adaptive": {"curriculum": CurriculumConfig(kind="adaptive")},
    "random": {"curriculum": CurriculumConfig(kind="random"), "samples": 2},
    "vanilla": {"curriculum": CurriculumConfig(kind="vanilla")},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_dies_goes_on_to_the_same_weights(case, tmp_path):
    toy = Toy(max_steps=6, save_steps=2, learning_rate=1e-2, **CASES[case])
    whole = start(toy, tmp_path / "whole")
    out = tmp_path / "killed"
    for dies_at in (1, 5):  # before the first checkpoint, and after the second
        with pytest.raises(Killed):
            start(toy, out, dies_at=dies_at, resume=out.exists())
    assert checkpoint_step(latest_checkpoint(out / "checkpoints")) == 4
    killed = start(toy, out, resume=True)
    expected, found = weights(whole), weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    # what was drawn and generated after the resume, too
    assert (out / "rollouts.jsonl").read_bytes() == (
        tmp_path / "whole" / "rollouts.jsonl"
    ).read_bytes()
    assert numbers(out) == numbers(tmp_path / "whole")


def test_optimizer_and_checkpoint_state_are_the_same_too(tmp_path):
    toy = Toy(max_steps=4, save_steps=2, learning_rate=1e-2, ppo=PPOConfig(kl_target=1e-3))
    start(toy, tmp_path / "whole")
    with pytest.raises(Killed):
        start(toy, tmp_path / "killed", dies_at=3)
    start(toy, tmp_path / "killed", resume=True)
    ends = [latest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "killed")]
    tensors = [load_file(end / "optimizer.safetensors") for end in ends]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    states = [json.loads((end / "checkpoint.json").read_text()) for end in ends]
    assert states[0]["state"]["adaptive"]["beta"] != 0.05
    assert states[0] == states[1]


def test_records_and_metrics_are_not_doubled(tmp_path):
    toy = Toy(max_steps=5, save_steps=2, eval_steps=2)
    out = tmp_path / "run"
    with pytest.raises(Killed):
        start(toy, out, dies_at=4)
    start(toy, out, resume=True)
    assert [line["step"] for line in numbers(out)] == [1, 2, 3, 4, 5]
    ids = [record.id for record in read_records(out / "records.jsonl")]
    assert len(ids) == len(set(ids))
    assert {f"step/{step}" for step in range(1, 6)} | {f"dev/{n}" for n in (0, 2, 4, 5)} == set(ids)
    steps = [line["step"] for line in read_lines(out / "rollouts.jsonl")]
    assert steps == [step for step in range(1, 6) for _ in range(16)]


def test_the_best_weights_survive_a_death(tmp_path):
    """Looks: 1/2 right at 1, 2 and 4, all right at 0 and 3; the session that dies has seen 3."""
    toy = Toy(max_steps=4, save_steps=1, eval_steps=1, keep="best", learning_rate=1e-2)
    accuracy = {0: 0, 1: 0, 2: 1, 3: 0, 4: 0}

    def session(out, *, dies_at=None):
        setup = toy.setup()
        looks = [step for step in accuracy if not (out / "seen").exists() or step > 3]

        def evaluate(_):
            return [bool(accuracy[looks.pop(0)])]

        setup = type(setup)(**{**vars(setup), "evaluate": evaluate})
        reported = []

        def on_step(report):
            reported.append(report.step)
            if report.step == dies_at:
                (out / "seen").write_text("")
                raise Killed

        return train(setup, toy.config, total_steps=4, out=out, on_step=on_step), setup

    whole, expected = session(tmp_path / "whole")
    with pytest.raises(Killed):
        session(tmp_path / "killed", dies_at=3)
    resumed, found = session(tmp_path / "killed")
    assert whole.kept == resumed.kept == 2
    assert whole == resumed
    assert all(torch.equal(one, weights(found)[name]) for name, one in weights(expected).items())


def test_as_many_checkpoints_stay_as_asked_for(tmp_path):
    toy = Toy(max_steps=7, save_steps=2, keep_checkpoints=3)
    start(toy, tmp_path / "run")
    found = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert found == ["step-00000004", "step-00000006", "step-00000007"]


def test_a_run_without_a_checkpoint_begins_again(tmp_path):
    toy = Toy(max_steps=3, save_steps=100)
    whole = start(toy, tmp_path / "whole")
    with pytest.raises(Killed):
        start(toy, tmp_path / "killed", dies_at=2)
    assert latest_checkpoint(tmp_path / "killed" / "checkpoints") is None
    killed = start(toy, tmp_path / "killed", resume=True)
    assert all(torch.equal(one, weights(killed)[name]) for name, one in weights(whole).items())
    assert len(read_lines(tmp_path / "killed" / "rollouts.jsonl")) == 48


def test_how_a_run_is_done_may_change_but_not_what_is_done(tmp_path):
    toy = Toy(max_steps=3, save_steps=1)
    with pytest.raises(Killed):
        start(toy, tmp_path / "run", dies_at=2)
    other = Toy(max_steps=3, save_steps=1, learning_rate=0.1)
    with pytest.raises(ConfigError, match="holds another run, learning_rate"):
        start(other, tmp_path / "run", resume=True)
    smaller = Toy(max_steps=3, save_steps=2, micro_batch=4, generation_batch=5, keep_checkpoints=1)
    start(smaller, tmp_path / "run", resume=True)
    assert [line["step"] for line in numbers(tmp_path / "run")] == [1, 2, 3]


# the command, in a process of its own, killed for real


@pytest.fixture(scope="module")
def toy_folders(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def words(toy_folders):
    base, data = toy_folders
    return [
        *("train", "--model", str(base), "--data", str(data), "--cut.rule", "tokens"),
        *("--rollouts", "8", "--max-steps", "24", "--max-new-tokens", "6", "--max-length", "20"),
        *("--learning-rate", "1e-2", "--save-steps", "5", "--eval-steps", "6", "--keep", "last"),
        *(
            "--ppo.kl-target",
            "0.01",
            "--curriculum.kind",
            "staged",
            "--curriculum.threshold",
            "0.1",
        ),
    ]


@pytest.fixture(scope="module")
def uninterrupted(words, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    ran = run_cli(["r3", *words, "--out", out])
    assert ran.returncode == 0, ran.stderr
    return out


def assert_same_run(found, expected):
    for name in ("model/model.safetensors", "critic/value_head.safetensors"):
        tensors = [load_file(out / name) for out in (found, expected)]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(one, tensors[1][key]) for key, one in tensors[0].items()), name
    assert (found / "rollouts.jsonl").read_bytes() == (expected / "rollouts.jsonl").read_bytes()
    assert numbers(found) == numbers(expected)
    records = [
        {record.id: record.data for record in read_records(out / "records.jsonl")}
        for out in (found, expected)
    ]
    assert records[0] == records[1]


def steps_in(out):
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_after(words, out, num_steps):
    """Starts or resumes the command, and kills it as soon as it has written so many steps."""
    resume = ["--resume"] if out.exists() else []
    process = subprocess.Popen(
        [R3, *words, "--out", str(out), *resume],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 240
    while steps_in(out) < num_steps and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[1].decode()
    assert process.returncode == -signal.SIGKILL, said


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_to_the_same_run(words, uninterrupted, tmp_path):
    out = tmp_path / "killed"
    for num_steps in (3, 13, 20):
        kill_after(words, out, num_steps)
    ran = run_cli(["r3", *words, "--out", out, "--resume"])
    assert ran.returncode == 0, ran.stderr
    assert_same_run(out, uninterrupted)


DIES = """
import os, signal, sys
from pathlib import Path

def dies(self, target, rename=Path.rename):
    if self.name == {name!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.rename = dies
from r3.cli import APP
raise SystemExit(APP.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        ".step-00000010.tmp",  # a checkpoint that is written but not in its place
        "step-00000005",  # an old checkpoint that is about to be deleted
        ".model.tmp",  # the model of a run that is finished
    ],
)
def test_a_command_that_is_killed_while_it_writes_goes_on(words, uninterrupted, tmp_path, name):
    out = tmp_path / "killed"
    script = tmp_path / "dies.py"
    script.write_text(DIES.format(name=name))
    ran = subprocess.run(
        [sys.executable, str(script), *words, "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()
    assert not (out / "model" / "model.safetensors").exists()
    ran = run_cli(["r3", *words, "--out", out, "--resume"])
    assert ran.returncode == 0, ran.stderr
    assert_same_run(out, uninterrupted)
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_a_finished_run_says_so_and_does_nothing(words, uninterrupted):
    files = [path for path in uninterrupted.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    ran = run_cli(["r3", *words, "--out", uninterrupted, "--resume"])
    assert ran.returncode == 0, ran.stderr
    assert "is finished: its model is" in ran.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}
    changed = [*words, "--learning-rate", "1e-3"]
    ran = run_cli(["r3", *changed, "--out", uninterrupted, "--resume"])
    assert ran.returncode == 2
    assert "holds another run" in ran.stderr
