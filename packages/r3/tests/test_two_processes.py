"""`r3 train` in two processes on one CPU, which talk by gloo: the run of one process."""

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

from papercore.models import load_model
from papercore.records import read_lines, read_records
from papercore.rl.actor_critic import ActorCritic
from papercore.testing import run_cli
from papercore.testing.commands import free_port
from r3.dump import read_dumps
from r3.loop import train
from r3.training_toy import Toy, write_toy

pytestmark = pytest.mark.slow

R3 = str(Path(sys.executable).parent / "r3")
BY_ROUNDING = ("policy_loss", "value_loss", "grad_norm", "kl", "advantage", "value", "reward")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    base, data = write_toy(tmp_path_factory.mktemp("toy"))
    return [
        *("train", "--model", str(base), "--data", str(data), "--cut.rule", "tokens"),
        *("--rollouts", "8", "--max-steps", "6", "--max-new-tokens", "6", "--max-length", "20"),
        *("--learning-rate", "1e-4", "--eval-steps", "3", "--save-steps", "2"),
        *("--critic-warmup", "1", "--ppo.kl-target", "0.01", "--keep", "last"),
    ]


def launch(words, out):
    """Starts both processes as `torchrun` would."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return [
        subprocess.Popen(
            [R3, *words, "--out", str(out)],
            env={**os.environ, **shared, **quiet, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(started):
    said = [one.communicate(timeout=500) for one in started]
    assert [one.returncode for one in started] == [0, 0], said
    return [out for out, _ in said]


@pytest.fixture(scope="module")
def one(words, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    ran = run_cli(["r3", *words, "--out", out], timeout_s=500)
    assert ran.returncode == 0, ran.stderr
    return out


@pytest.fixture(scope="module")
def two(words, tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "run"
    said = finish(launch(words, out))
    return out, said


def tensors(out):
    return load_file(out / "model" / "model.safetensors") | load_file(
        out / "critic" / "value_head.safetensors"
    )


def test_two_processes_train_the_weights_of_one(one, two):
    expected, found = tensors(one), tensors(two[0])
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0.0, msg=name)


def test_they_draw_the_same_rollouts_in_the_same_order(one, two):
    pairs = zip(
        read_dumps(one / "rollouts.jsonl"), read_dumps(two[0] / "rollouts.jsonl"), strict=True
    )
    for alone, shared in pairs:
        assert shared.model_dump(exclude={"kl", "advantage", "value"}) == alone.model_dump(
            exclude={"kl", "advantage", "value"}
        )
        assert shared.advantage == pytest.approx(alone.advantage, abs=1e-3)


def test_they_count_the_same(one, two):
    alone, shared = (read_lines(out / "metrics.jsonl") for out in (one, two[0]))
    for left, right in zip(alone, shared, strict=True):
        for name in ("step", "success", "truncated", "tokens", "excluded", "learning_rate"):
            assert left[name] == right[name]
        for name in BY_ROUNDING:
            assert left[name] == pytest.approx(right[name], abs=1e-3)
        assert left["beta"] == pytest.approx(right["beta"])
    looks = [
        [record.data for record in read_records(out / "records.jsonl") if "dev/" in record.id]
        for out in (one, two[0])
    ]
    assert looks[0] == looks[1]


def test_the_first_process_alone_writes_and_speaks(two):
    out, (first, second) = two
    assert "saved: " in first
    assert second == ""
    notes = json.loads((out / "env.json").read_text())["notes"]
    assert notes["processes"] == 2
    checkpoint = json.loads((out / "checkpoints" / "step-00000006" / "checkpoint.json").read_text())
    assert len(checkpoint["random"]) == 2


def test_two_processes_that_are_killed_go_on_to_the_same_weights(words, two, tmp_path):
    out = tmp_path / "killed"
    started = launch(words, out)
    deadline = time.monotonic() + 400
    path = out / "metrics.jsonl"
    while time.monotonic() < deadline and all(one.poll() is None for one in started):
        if path.exists() and path.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.002)
    for one in started:
        one.send_signal(signal.SIGKILL)
    for one in started:
        one.communicate()
    assert [one.returncode for one in started] == [-signal.SIGKILL] * 2
    finish(launch([*words, "--resume"], out))
    expected, found = tensors(two[0]), tensors(out)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (out / "rollouts.jsonl").read_bytes() == (two[0] / "rollouts.jsonl").read_bytes()


def test_rollouts_that_do_not_divide_are_refused_in_both(words, tmp_path):
    started = launch([*words, "--rollouts", "7"], tmp_path / "run")
    said = [one.communicate(timeout=300)[1] for one in started]
    assert [one.returncode for one in started] == [2, 2]
    assert all("rollouts=7 is no multiple of 2 processes" in line for line in said)


# sharded weights: accelerate offers FSDP on GPUs only, torch has it on CPUs as well

SHARDED = """
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import FSDPModule

from papercore.cli import leave_process_group
from r3.exports import export_run
from r3.loop import train
from r3.training_toy import Toy

torch.set_num_threads(1)
base, out, dies = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
changes = dict(word.split("=") for word in sys.argv[4:])
accelerator = Accelerator(cpu=True)
shared = accelerator.state._shared_state
shared["distributed_type"] = DistributedType.FSDP
shared["fsdp_plugin"] = FullyShardedDataParallelPlugin(
    fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
)
toy = Toy(
    model=base, max_steps=4, save_steps=2, eval_steps=2, keep="best", learning_rate=1e-3,
    micro_batch=4, **changes,
)
torch.manual_seed(0)


def evaluate(model):  # the start and step 2 are right half of the time, step 4 never
    looks.append(model)
    return [toy_step[0] < 4, False]


def on_step(report):
    if report.step == dies:
        raise SystemExit(9)


looks, toy_step = [], [0]
setup = toy.setup(evaluate=evaluate)
draw = setup.curriculum.draw


def counted(num):
    toy_step[0] += 1
    return draw(num)


setup.curriculum.draw = counted
if (out / "checkpoints").exists():
    toy_step[0] = 2
result = train(setup, toy.config, total_steps=4, out=out, accelerator=accelerator, on_step=on_step)
assert result.kept == 2, result
assert sum(isinstance(one, FSDPModule) for one in setup.policy.modules()) >= 3
export_run(out, setup, toy.config, result, accelerator)
leave_process_group()
"""


def launch_sharded(folder, out, *words):
    script = folder / "sharded.py"
    script.write_text(SHARDED)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder / "base"), str(out), *words],
            env={**os.environ, **shared, **quiet, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [one.communicate(timeout=500)[0] for one in started]
    return [one.returncode for one in started], said


@pytest.mark.parametrize("words", [("critic=separate",), ("tune=lora",)])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_sharded_weights_train_as_whole_ones_and_resume(tmp_path, words):
    write_toy(tmp_path)
    codes, said = launch_sharded(tmp_path, tmp_path / "whole", "0", *words)
    assert codes == [0, 0], "\n".join(said)
    codes, said = launch_sharded(tmp_path, tmp_path / "killed", "3", *words)
    assert codes == [9, 9], "\n".join(said)
    codes, said = launch_sharded(tmp_path, tmp_path / "killed", "0", *words)
    assert codes == [0, 0], "\n".join(said)

    toy = Toy(max_steps=4, learning_rate=1e-3, **dict(word.split("=") for word in words))
    torch.manual_seed(0)
    setup = toy.setup()
    kept = {}

    def on_step(report):
        if report.step == 2:
            kept.update({name: one.clone() for name, one in setup.policy.named_parameters()})

    train(setup, toy.config, total_steps=4, on_step=on_step)
    last = dict(setup.policy.named_parameters())
    for name, expected in (("step-00000004", last), ("best-00000002", kept)):
        files = [
            load_file(tmp_path / run / "checkpoints" / name / "weights.safetensors")
            for run in ("whole", "killed")
        ]
        assert len(files[0]) > 2
        for key, tensor in files[0].items():
            torch.testing.assert_close(tensor, expected[key], atol=1e-5, rtol=0.0)
            assert torch.equal(tensor, files[1][key])
    exported = ActorCritic.load(
        tmp_path / "whole" / "critic",
        base=load_model(str(tmp_path / "base"))[0] if "tune=lora" in words else None,
    )
    best = load_file(tmp_path / "whole" / "checkpoints" / "best-00000002" / "weights.safetensors")
    found = dict(exported.named_parameters())
    assert all(torch.equal(found[name], tensor) for name, tensor in best.items())
    load_model(str(tmp_path / "whole" / "model"))
