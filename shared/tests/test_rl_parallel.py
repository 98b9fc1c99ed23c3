"""Several processes as one: by hand for one process, and in two real ones that talk by gloo."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from papercore.rl.parallel import (
    agree,
    gather_floats,
    gather_texts,
    is_first,
    reduce_sum,
    shard,
    unwrapped,
    whole,
)
from papercore.testing.commands import free_port


class Rank:
    """As much of an accelerator as `shard` asks for."""

    def __init__(self, rank, world):
        self.process_index, self.num_processes = rank, world


@pytest.mark.parametrize(("num", "world"), [(8, 2), (7, 3), (2, 4), (0, 2), (5, 1)])
def test_shards_are_runs_that_make_up_the_whole(num, world):
    shards = [shard(num, Rank(rank, world)) for rank in range(world)]
    assert [row for part in shards for row in part] == list(range(num))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_one_process_is_alone_and_first():
    assert is_first(None)
    assert shard(5, None) == range(5)
    assert gather_floats([1.5, 2.5], None) == [1.5, 2.5]
    assert gather_texts(["a", "ß"], None) == ["a", "ß"]
    assert agree(True, None) is True
    assert agree(False, None) is False
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(reduce_sum(None)(x), x)


def test_a_module_is_whole_without_gradients_in_one_process():
    module = nn.Linear(2, 1)
    with whole(module, None) as found:
        assert found is module
        assert not found(torch.ones(1, 2)).requires_grad
    assert unwrapped(module, None) is module
    assert module(torch.ones(1, 2)).requires_grad


SCRIPT = """
import json, sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from papercore.cli import leave_process_group
from papercore.errors import DataError
from papercore.rl.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from papercore.rl.parallel import *
from papercore.testing import tiny_model

torch.set_num_threads(1)
out = Path(sys.argv[1])
accelerator = Accelerator(cpu=True)
rank = accelerator.process_index
found = {"shard": list(shard(5, accelerator)), "first": is_first(accelerator)}
summed = reduce_sum(accelerator)(torch.tensor([1.0 + rank, 2.0], dtype=torch.float64))
found["sum"] = [summed.tolist(), str(summed.dtype)]
found["floats"] = gather_floats([0.1, float("nan"), 3.0][: 1 + 2 * rank], accelerator)
found["texts"] = gather_texts([["a\\u00df", ""], []][rank], accelerator)
found["agree"] = [agree(rank == 1, accelerator), agree(False, accelerator)]
kept = torch.ones(2)
reduce_sum(accelerator)(kept)
found["kept"] = kept.tolist()


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = tiny_model("llama")
        self.value_head = nn.Linear(32, 1)
        self.reference = tiny_model("llama", seed=1).requires_grad_(False)

    def forward(self, ids_BT):
        hidden = self.actor.model(ids_BT).last_hidden_state
        return self.actor.lm_head(hidden).logsumexp(-1).mean() + self.value_head(hidden).mean()


def policy(kind):
    torch.manual_seed(0)
    module = Policy()
    if kind == "fsdp":
        mesh = init_device_mesh("cpu", (2,))
        for model in (module.actor, module.reference):
            for layer in model.model.layers:
                fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
    trained = [one for one in module.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    return accelerator.prepare(module, optimizer) if kind == "ddp" else (module, optimizer)


def learn(module, optimizer):
    losses = []
    for _ in range(2):
        loss = module(torch.arange(8)[None] + rank + int(torch.rand(1) * 50))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


for kind in ("ddp", "fsdp"):
    module, optimizer = policy(kind)
    torch.manual_seed(rank)
    learn(module, optimizer)
    with whole(module, accelerator) as bare:
        for _ in range(1 + 2 * rank):  # nobody waits for the other
            logits = bare.actor(torch.arange(6)[None]).logits
            bare.reference(torch.arange(6)[None])
        found[f"{kind}/logits"] = logits[0, -1, :3].tolist()
        found[f"{kind}/grad"] = logits.requires_grad
    folder = out / kind
    save_checkpoint(
        folder, 2, policy=module, optimizer=optimizer, state={"a": 1}, accelerator=accelerator
    )
    found[f"{kind}/expected"] = learn(module, optimizer)
    module, optimizer = policy(kind)
    torch.manual_seed(99)
    path = latest_checkpoint(folder)
    state = load_checkpoint(path, policy=module, optimizer=optimizer, accelerator=accelerator)
    found[f"{kind}/state"] = state
    found[f"{kind}/resumed"] = learn(module, optimizer)

if rank == 0:  # a file stands where the folder should be: writing fails in this process only
    (out / "blocked").write_text("")
try:
    save_checkpoint(
        out / "blocked", 1, policy=module, optimizer=optimizer, state={}, accelerator=accelerator
    )
except DataError as error:
    found["refused"] = str(error)
(out / f"{rank}.json").write_text(json.dumps(found))
leave_process_group()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found."""
    out = tmp_path_factory.mktemp("two")
    (out / "script.py").write_text(SCRIPT)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ran = [
        subprocess.Popen(
            [sys.executable, str(out / "script.py"), str(out)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [one.communicate(timeout=300)[0] for one in ran]
    assert [one.returncode for one in ran] == [0, 0], "\n".join(said)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_share_add_gather_and_agree(two):
    assert [found["shard"] for found in two] == [[0, 1], [2, 3, 4]]
    assert [found["first"] for found in two] == [True, False]
    for found in two:
        assert found["sum"] == [[3.0, 4.0], "torch.float64"]
        assert str(found["floats"]) == str([0.1, 0.1, float("nan"), 3.0])
        assert found["texts"] == ["aß", ""]
        assert found["agree"] == [True, False]
        assert found["kept"] == [1.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_policy_of_two_processes_is_whole_for_generation(two, kind):
    """The weights are equal, so are the logits, however often each process asks for them."""
    assert two[0][f"{kind}/logits"] == pytest.approx(two[1][f"{kind}/logits"], abs=1e-6)
    assert not two[0][f"{kind}/grad"]


@pytest.mark.slow
def test_ddp_and_fsdp_have_learnt_the_same(two):
    assert two[0]["ddp/logits"] == pytest.approx(two[0]["fsdp/logits"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_resume_bit_for_bit(two, kind):
    """Each with its own random state: they drew different batches."""
    for found in two:
        assert found[f"{kind}/resumed"] == found[f"{kind}/expected"]
        assert found[f"{kind}/state"] == {"a": 1}
    assert two[0][f"{kind}/resumed"] != two[1][f"{kind}/resumed"]


@pytest.mark.slow
def test_what_the_first_process_cannot_write_is_refused_in_both(two):
    assert all("cannot be written" in found["refused"] for found in two)
