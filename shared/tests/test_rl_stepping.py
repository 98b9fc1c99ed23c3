import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from papercore.errors import ConfigError, ModelError
from papercore.rl.stepping import Stepper
from papercore.testing import free_port

PROGRAM = Path(__file__).parent / "toys" / "tinyrl.py"
SPEC = importlib.util.spec_from_file_location("tinyrl", PROGRAM)
tinyrl = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tinyrl)

LENGTHS, PLAIN, updated = tinyrl.LENGTHS, tinyrl.PLAIN, tinyrl.updated


class FakeAccelerator:
    """What the stepper asks of one."""

    num_processes, process_index, scaler = 1, 0, None
    distributed_type, gradient_accumulation_steps = "NO", 1
    device = torch.device("cpu")

    def __init__(self, **changes):
        self.__dict__.update(changes)
        self.calls = []

    @contextlib.contextmanager
    def no_sync(self, policy):
        self.calls.append("apart")
        yield
        self.calls.append("together")

    def backward(self, loss):
        self.calls.append("backward")
        loss.backward()

    def clip_grad_norm_(self, parameters, max_norm):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def test_the_accelerator_must_not_accumulate_by_itself():
    with pytest.raises(ConfigError, match="gradient_accumulation_steps=4"):
        updated(PLAIN, accelerator=FakeAccelerator(gradient_accumulation_steps=4))


def test_gradients_are_brought_together_once_for_each_step():
    """Forward passes have to be apart as well: DDP decides there."""
    accelerator = FakeAccelerator()

    class Watched(tinyrl.TinyPolicy):
        def forward(self, batch, *, temperature=1.0):
            accelerator.calls.append("forward")
            return super().forward(batch, temperature=temperature)

    updated(
        replace(PLAIN, micro_batch=2),
        tinyrl.experience(tinyrl.TinyPolicy(), LENGTHS),
        policy=Watched(),
        accelerator=accelerator,
    )
    apart = ["apart", "forward", "backward", "together"]
    assert accelerator.calls == [*apart, *apart, "forward", "backward"]


def test_an_overflow_of_half_precision_is_shown_to_its_scaler():
    """It lowers its scale in the step that it leaves out."""
    policy = tinyrl.TinyPolicy()
    accelerator = FakeAccelerator(scaler=object())
    steps = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(1)

    optimizer = Counting(policy.parameters(), lr=0.1)
    stepper = Stepper(policy, optimizer, accelerator, grad_clip=1.0)
    with stepper.micro_batch(last=True) as backward:
        backward(policy.head.weight.sum())
        policy.head.weight.grad[0, 0] = math.inf
    norm, applied = stepper.step()
    assert (math.isinf(norm), applied, len(steps)) == (True, False, 1)


class FakeEngine(tinyrl.TinyPolicy):
    """DeepSpeed's engine steps within the backward pass."""

    applied = True

    def was_step_applied(self):
        return self.applied


class FakeDeepSpeed(FakeAccelerator):
    def __init__(self, clipping=1e9):
        super().__init__(distributed_type="DEEPSPEED")
        self.sync = []
        self.gradient_state = self
        self.state = self.deepspeed_plugin = self
        self.deepspeed_config = {"gradient_clipping": clipping}

    def _set_sync_gradients(self, sync):
        self.sync.append(sync)


class Idle(torch.optim.SGD):
    """Accelerate makes DeepSpeed's optimizer do nothing when it is called."""

    def step(self, closure=None):
        raise AssertionError("the engine has made the step")


def test_deepspeed_steps_in_the_last_backward_pass_only():
    engine, accelerator = FakeEngine(), FakeDeepSpeed()
    optimizer = Idle(engine.parameters(), lr=0.1)
    settings = replace(PLAIN, micro_batch=2)
    _, stats = updated(settings, policy=engine, optimizer=optimizer, accelerator=accelerator)
    assert accelerator.sync == [False, False, True]
    assert (stats.steps, stats.skipped) == (1, 0)


def test_deepspeed_says_itself_that_it_left_a_step_out():
    engine, accelerator = FakeEngine(), FakeDeepSpeed()
    engine.applied = False
    optimizer = Idle(engine.parameters(), lr=0.1)
    _, stats = updated(PLAIN, policy=engine, optimizer=optimizer, accelerator=accelerator)
    assert (stats.steps, stats.skipped) == (0, 1)


def test_deepspeed_is_stopped_before_a_bad_loss_reaches_it():
    engine, accelerator = FakeEngine(), FakeDeepSpeed()
    part = tinyrl.experience(engine, LENGTHS)
    part.advantages_BG[2, 0] = math.nan  # of the longest rollout, in the first micro-batch
    optimizer = Idle(engine.parameters(), lr=0.1)
    with pytest.raises(ModelError, match="the loss is not finite"):
        updated(PLAIN, part, policy=engine, optimizer=optimizer, accelerator=accelerator)
    assert accelerator.calls.count("backward") == 1


def test_deepspeed_must_clip_like_the_settings():
    engine = FakeEngine()
    with pytest.raises(ConfigError, match=r"gradient_clipping=0\.5 .* grad_clip=1000000000\.0"):
        updated(PLAIN, policy=engine, accelerator=FakeDeepSpeed(clipping=0.5))


def test_a_warm_up_does_not_go_with_deepspeed():
    engine = FakeEngine()
    with pytest.raises(ConfigError, match="use FSDP or none"):
        updated(PLAIN, policy=engine, accelerator=FakeDeepSpeed(), train_policy=False)


# --- several processes


def in_one_process(case):
    tiny = tinyrl.TinyPolicy(shared=case.shared)
    part = tinyrl.joined(tinyrl.parts_of(case, tiny))
    optimizer = tiny.adamw() if case.adamw else tiny.sgd()
    stats = tinyrl.run(case, tiny, optimizer, part, case.settings_of_one())
    return tiny, stats


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of two processes found for every case."""
    folder, port = tmp_path_factory.mktemp("processes"), free_port()
    started, logs = [], [folder / "0.log", folder / "1.log"]
    for rank, log in enumerate(logs):
        env = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        command = [sys.executable, "-W", "error", str(PROGRAM), str(folder)]
        with log.open("w") as stream:
            started.append(subprocess.Popen(command, env=env, stdout=stream, stderr=stream))
    try:
        until = time.monotonic() + 400
        # one that failed leaves the other waiting for it
        while any(one.poll() is None for one in started) and not any(one.poll() for one in started):
            assert time.monotonic() < until, "the processes wait for each other"
            time.sleep(0.1)
        for process, log in zip(started, logs, strict=True):
            assert process.poll() in (0, None), log.read_text()
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", tinyrl.CASES)
def test_two_processes_make_the_update_of_one_with_both_of_their_rollouts(processes, name):
    assert [one["processes"] for one in processes] == [2, 2]
    tiny, stats = in_one_process(tinyrl.CASES[name])
    for found in processes:
        for key, weights in found[name]["weights"].items():
            expected = tiny.state_dict()[key]
            torch.testing.assert_close(
                torch.tensor(weights, dtype=expected.dtype), expected, atol=1e-9, rtol=1e-7
            )
        for one, expected in zip(found[name]["stats"], stats, strict=True):
            assert one == pytest.approx(dataclasses.asdict(expected), rel=1e-7, nan_ok=True)


@pytest.mark.slow
def test_two_processes_hold_the_same_weights(processes):
    for name in tinyrl.CASES:
        first, second = (found[name]["weights"] for found in processes)
        assert first == second, name


@pytest.mark.slow
def test_one_processs_bad_loss_stops_the_step_in_both(processes):
    before = tinyrl.TinyPolicy().weights()
    for found in processes:
        assert found["spoilt"]["weights"] == before
        assert found["spoilt"]["stats"][0]["skipped"] == 2


def test_the_cases_differ_where_they_should():
    """Otherwise the comparison above could not fail."""
    case = tinyrl.CASES["uneven token"]
    counts = [math.ceil(len(one) / case.settings.micro_batch) for one in case.lengths]
    assert counts == [3, 2]
    assert sum(tinyrl.EVEN[0]) != sum(tinyrl.EVEN[1])
    assert len(tinyrl.EVEN[0]) == len(tinyrl.EVEN[1])
    weights = [in_one_process(tinyrl.CASES[name])[0].weights() for name in ("token", "sequence")]
    assert weights[0] != weights[1]
