"""Checkpoints: bit for bit, never half-written, nothing but the checkpoint's own model."""

import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from papercore.errors import DataError
from papercore.rl import whole_folder
from papercore.rl.checkpoints import (
    checkpoint_step,
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)


class Small(nn.Module):
    """A tied pair, a frozen reference, and a head with a group of its own."""

    def __init__(self, seed=0, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Linear(4, 3, bias=False, dtype=dtype)
        self.head = nn.Linear(4, 3, bias=False, dtype=dtype)
        self.head.weight = self.embed.weight
        self.value = nn.Linear(3, 1, dtype=dtype)
        self.reference = nn.Linear(4, 3, dtype=dtype).requires_grad_(False)
        torch.manual_seed(0)
        with torch.no_grad():
            self.reference.weight.copy_(torch.randn(3, 4))
            self.reference.bias.zero_()

    def forward(self, x):
        return self.value(self.embed(x) + self.reference(x))


def adam(model):
    groups = [
        {"params": [model.embed.weight], "lr": 1e-2, "weight_decay": 0.1},
        {"params": list(model.value.parameters()), "lr": 3e-2},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def learn(model, optimizer, steps):
    """Steps whose batches come from the global random state, so that they depend on it."""
    dtype = model.embed.weight.dtype
    for _ in range(steps):
        batch = torch.randn(5, 4) + random.random() + float(np.random.rand())  # noqa: NPY002
        optimizer.zero_grad()
        model(batch.to(dtype)).square().mean().backward()
        optimizer.step()


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def save(folder, step, model, optimizer, **more):
    state = more.pop("state", {})
    return save_checkpoint(folder, step, policy=model, optimizer=optimizer, state=state, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_checkpoint_is_not_stopping_at_all(tmp_path, dtype):
    model = Small(dtype=dtype)
    optimizer = adam(model)
    learn(model, optimizer, 3)
    path = save(tmp_path, 3, model, optimizer)
    learn(model, optimizer, 4)
    expected, next_draw = weights(model), torch.rand(2)

    again = Small(seed=9, dtype=dtype)
    fresh = adam(again)
    torch.manual_seed(123)
    load_checkpoint(path, policy=again, optimizer=fresh)
    learn(again, fresh, 4)
    assert same(weights(again), expected)
    assert torch.equal(torch.rand(2), next_draw)
    assert again.head.weight is again.embed.weight


def test_optimizer_state_comes_back_by_name_and_exactly(tmp_path):
    model = Small()
    optimizer = adam(model)
    learn(model, optimizer, 2)
    path = save(tmp_path, 2, model, optimizer)
    again = Small(seed=9)
    fresh = adam(again)
    fresh.param_groups[0]["lr"] = 5.0
    load_checkpoint(path, policy=again, optimizer=fresh)
    assert fresh.param_groups[0]["lr"] == 1e-2
    assert fresh.param_groups[0]["betas"] == (0.9, 0.95)
    for name, parameter in again.named_parameters():
        old = dict(model.named_parameters())[name]
        assert optimizer.state.get(old, {}).keys() == fresh.state.get(parameter, {}).keys()
        for key, value in optimizer.state.get(old, {}).items():
            assert torch.equal(value, fresh.state[parameter][key])
            assert value.dtype == fresh.state[parameter][key].dtype


def test_the_loops_own_state_comes_back(tmp_path):
    model = Small()
    optimizer = adam(model)
    state = {"beta": 0.1 + 0.2, "done": [1, 2], "curriculum": {"stage": 2, "note": None}}
    path = save(tmp_path, 1, model, optimizer, state=state)
    assert load_checkpoint(path, policy=model, optimizer=optimizer) == state


def test_a_state_that_is_no_number_is_refused_before_anything_is_replaced(tmp_path):
    model = Small()
    optimizer = adam(model)
    with pytest.raises(ValueError, match="Out of range float"):
        save(tmp_path, 1, model, optimizer, state={"kl": float("nan")})
    assert latest_checkpoint(tmp_path) is None


def test_what_is_not_trained_is_not_written(tmp_path):
    model = Small()
    path = save(tmp_path, 1, model, adam(model))
    with safe_open(path / "weights.safetensors", "pt") as file:
        assert set(file.keys()) == {"embed.weight", "value.weight", "value.bias"}


def test_parameters_count_as_trained_by_the_optimizer_not_by_their_flag(tmp_path):
    """Peft turns gradients of adapters off while another adapter is on."""
    model = Small()
    optimizer = adam(model)
    model.value.requires_grad_(False)
    path = save(tmp_path, 1, model, optimizer)
    assert "value.weight" in load_file(path / "weights.safetensors")


def test_there_is_no_pickle_in_it(tmp_path):
    model = Small()
    optimizer = adam(model)
    learn(model, optimizer, 1)
    path = save(tmp_path, 1, model, optimizer)
    assert {file.suffix for file in path.rglob("*") if file.is_file()} == {".safetensors", ".json"}


def test_only_the_last_ones_are_kept_and_the_latest_is_found(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
    model = Small()
    optimizer = adam(model)
    for step in (2, 9, 10, 100):
        save(tmp_path, step, model, optimizer, keep=2)
    assert [checkpoint_step(path) for path in sorted(tmp_path.iterdir())] == [10, 100]
    assert checkpoint_step(latest_checkpoint(tmp_path)) == 100


def test_other_folders_are_no_checkpoints(tmp_path):
    for name in ("step-1", ".step-00000009.tmp", "best", "step-00000003.old"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000005").write_text("a file")
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("victim", ["save_file", "json", "sync", "rename"])
def test_dying_at_any_moment_of_writing_leaves_the_last_one(tmp_path, monkeypatch, victim):
    model = Small()
    optimizer = adam(model)
    first = save(tmp_path, 1, model, optimizer)
    expected = weights(model)
    learn(model, optimizer, 1)

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if victim == "save_file":
            patch.setattr(whole_folder, "save_file", dies)
        elif victim == "json":
            patch.setattr(Path, "write_text", dies)
        elif victim == "sync":
            patch.setattr(whole_folder, "_sync", dies)
        else:
            patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, model, optimizer)
    assert latest_checkpoint(tmp_path) == first
    again = Small(seed=4)
    load_checkpoint(first, policy=again, optimizer=adam(again))
    assert same(weights(again), expected)
    save(tmp_path, 2, model, optimizer)  # what was left behind is in nobody's way
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("raises", ["os", "safetensors"])
def test_a_full_disk_is_one_line_and_harms_nothing(tmp_path, monkeypatch, raises):
    model = Small()
    optimizer = adam(model)
    first = save(tmp_path, 1, model, optimizer)

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        if raises == "os":
            raise OSError(errno.ENOSPC, "No space left on device")
        from safetensors import SafetensorError

        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    monkeypatch.setattr(whole_folder, "save_file", full)
    with pytest.raises(
        DataError, match=r"step-00000002 cannot be written \(.*No space left"
    ) as seen:
        save(tmp_path, 2, model, optimizer)
    assert "\n" not in str(seen.value)
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_a_really_full_disk(tmp_path):
    """`/dev/full` fails every write as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    writing = whole_folder.WholeFolder(tmp_path / "step-00000001", None)
    (tmp_path / ".step-00000001.tmp" / "about.json").symlink_to("/dev/full")
    writing.json("about.json", {"step": 1})
    with pytest.raises(DataError, match="No space left"):
        writing.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_changed_reference_is_refused(tmp_path):
    model = Small()
    path = save(tmp_path, 1, model, adam(model))
    other = Small()
    with torch.no_grad():
        other.reference.weight[0, 0] += 1e-3
    with pytest.raises(DataError, match="is not the same any more"):
        load_checkpoint(path, policy=other, optimizer=adam(other))


def test_weights_of_another_shape_or_name_are_refused(tmp_path):
    model = Small()
    optimizer = adam(model)
    path = save(tmp_path, 1, model, optimizer)
    tensors = load_file(path / "weights.safetensors")
    save_file(tensors | {"value.bias": torch.zeros(2)}, path / "weights.safetensors")
    with pytest.raises(DataError, match=r"value.bias is \[2\] float32 there and \[1\] float32"):
        load_checkpoint(path, policy=model, optimizer=optimizer)
    save_file(tensors | {"odd": torch.zeros(2)}, path / "weights.safetensors")
    with pytest.raises(DataError, match="odd is only on one side"):
        load_checkpoint(path, policy=model, optimizer=optimizer)


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimizer.safetensors", "checkpoint.json"]
)
def test_a_damaged_file_is_one_line(tmp_path, name):
    model = Small()
    optimizer = adam(model)
    learn(model, optimizer, 1)
    path = save(tmp_path, 1, model, optimizer)
    (path / name).write_bytes((path / name).read_bytes()[:9])
    with pytest.raises(DataError, match=f"{name} cannot be read") as seen:
        load_checkpoint(path, policy=model, optimizer=optimizer)
    assert "\n" not in str(seen.value)


def test_another_layout_is_refused(tmp_path):
    model = Small()
    optimizer = adam(model)
    path = save(tmp_path, 1, model, optimizer)
    document = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(document | {"schema": 99}))
    with pytest.raises(DataError, match="has schema 99, this reads 1"):
        load_checkpoint(path, policy=model, optimizer=optimizer)


def test_weights_alone_come_back(tmp_path):
    model = Small()
    optimizer = adam(model)
    save_weights(tmp_path / "best", policy=model, optimizer=optimizer)
    expected = weights(model)
    learn(model, optimizer, 2)
    assert not same(weights(model), expected)
    before = {key: value.clone() for key, value in optimizer.state[model.value.bias].items()}
    load_weights(tmp_path / "best", policy=model, optimizer=optimizer)
    assert same(weights(model), expected)
    assert all(torch.equal(optimizer.state[model.value.bias][key], before[key]) for key in before)
