"""Memory of a prefill, counted in bytes of live tensors rather than measured in time or RSS."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import longheads
from longheads import LongHeadsConfig
from longheads.cache import LongHeadsLayer
from longheads.config import PasskeyConfig
from longheads.estimate import held
from papercore.shapes import Shape, find_shape
from papercore.testing import assert_close, tiny_model


class LivePeak(TorchDispatchMode):
    """Follows every storage that an operation returns until it dies."""

    def __init__(self):
        super().__init__()
        self.live, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {key: item for key, item in self.live.items() if not item[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return out


def peak_beyond_cache(model, handle, length, block=1024, padding=None):
    cache = handle.make_cache(capacity_tok=length)
    ids = torch.randint(3, 200, (1 if padding is None else 2, length))
    mask = torch.ones_like(ids)
    mask[-1, : padding or 0] = 0
    with LivePeak() as tracker:
        for low in range(0, length, block):
            model(
                ids[:, low : low + block],
                attention_mask=mask[:, : low + block],
                past_key_values=cache,
                logits_to_keep=1,
            )
    held = [(layer.keys, layer.values, layer.reps, layer.tail_queries) for layer in cache.layers]
    return tracker.peak - sum(t.untyped_storage().nbytes() for layer in held for t in layer)


@torch.no_grad()
def test_memory_beyond_the_cache_hardly_grows_with_the_text():
    model = tiny_model("llama-gqa")
    with longheads.enable(model, LongHeadsConfig(chunk_len=32, window=256)) as handle:
        short = peak_beyond_cache(model, handle, 8192)
        long = peak_beyond_cache(model, handle, 16384)
    assert short > 0
    assert long <= 1.3 * short


@torch.no_grad()
def test_a_padded_batch_copies_no_rows_of_the_cache():
    model = tiny_model("llama-gqa", num_hidden_layers=1)
    with longheads.enable(model, LongHeadsConfig(chunk_len=32, window=256)) as handle:
        short = peak_beyond_cache(model, handle, 8192, padding=1)
        long = peak_beyond_cache(model, handle, 16384, padding=1)
    assert long <= 1.3 * short


@torch.no_grad()
def test_one_forward_pass_needs_no_square_of_the_text():
    model = tiny_model("llama-gqa", num_hidden_layers=1)
    with longheads.enable(model, LongHeadsConfig(chunk_len=32, window=256)) as handle:
        short = peak_beyond_cache(model, handle, 8192, block=8192)
        long = peak_beyond_cache(model, handle, 16384, block=16384)
    assert long <= 2.1 * short


@torch.no_grad()
def test_pages_are_not_concatenated_per_token():
    model = tiny_model("llama-gqa", num_hidden_layers=1)
    with longheads.enable(model, LongHeadsConfig(chunk_len=8, window=64)):
        cache = model(torch.randint(3, 200, (1, 1000))).past_key_values
        layer, pages = cache.layers[0], set()
        for _ in range(300):
            model(torch.randint(3, 200, (1, 1)), past_key_values=cache)
            pages.add(layer.keys.data_ptr())
        assert len(pages) <= 4
        assert layer.keys.shape[2] * 8 <= 1.3 * 1300 + 64


def test_reserved_room_is_used_without_a_copy():
    layer = LongHeadsLayer(8, capacity_tok=400)
    states = torch.randn(1, 2, 10, 4)
    layer.lazy_initialization(states, states)
    layer.reserve_(1, 2, 2, 4, 10)
    first = layer.keys.data_ptr()
    layer.write_((0,), 0, states, states)
    layer.reserve_(1, 2, 2, 4, 390)
    assert layer.keys.data_ptr() == first
    layer.reserve_(1, 2, 2, 4, 800)
    assert_close(layer.keys.flatten(2, 3)[:, :, :10], states)


READ = """
import sys
import torch
torch.set_num_threads(1)
import longheads
from longheads import LongHeadsConfig
from longheads.continuation import read
from papercore.testing import tiny_model

def resident(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

model = tiny_model("llama-gqa", hidden_size=128, head_dim=32, max_position_embeddings=4096)
ids = torch.randint(3, 200, (int(sys.argv[1]),)).tolist()
with longheads.enable(model, LongHeadsConfig()) as handle:
    read(model, ids[:512], handle=handle, prefill_tok=4096)
    empty = resident("VmRSS")
    read(model, ids[:16384], handle=handle, prefill_tok=4096)
    short = resident("VmHWM")
    read(model, ids, handle=handle, prefill_tok=4096)
print(resident("VmHWM") - empty, resident("VmHWM") - short)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_reading_128k_tokens_takes_the_memory_that_a_dry_run_predicts():
    num_tok = 131072
    done = subprocess.run(
        [sys.executable, "-c", READ, str(num_tok)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak, grown = map(int, done.stdout.split())
    shape = Shape(2, 128, 64, 4, 2, 32, 259, 4096, tied=False)
    long, short = (held(PasskeyConfig(), shape, count, 4) for count in (num_tok, 16384))
    kept = long.cache + long.reps + long.tail
    _, workspace = long.workspace
    assert 0.95 * kept < peak < kept + workspace
    assert 0.95 < grown / (kept - short.cache - short.reps - short.tail) < 1.3


@torch.no_grad()
def test_layers_with_a_window_take_the_memory_that_a_dry_run_predicts(tmp_path, monkeypatch):
    model, num_tok = tiny_model("gemma3_text"), 8192
    config = LongHeadsConfig(chunk_len=32, window=256)
    most, drop = {}, LongHeadsLayer.drop_unseen_

    def measured(layer):  # at the end of a pass, before what nothing sees any more goes
        size = layer.keys.nbytes + layer.values.nbytes
        most[layer.is_sliding] = max(size, most.get(layer.is_sliding, 0))
        drop(layer)

    monkeypatch.setattr(LongHeadsLayer, "drop_unseen_", measured)
    with longheads.enable(model, config) as handle:
        cache = handle.make_cache(capacity_tok=num_tok)
        for _ in range(0, num_tok, 512):
            model(torch.randint(3, 200, (1, 512)), past_key_values=cache)
    model.config.save_pretrained(tmp_path)
    shape = find_shape(str(tmp_path))
    predicted = held(PasskeyConfig(longheads=config, prefill_tok=512), shape, num_tok, 4)
    assert most == {False: predicted.cache, True: predicted.sliding}
    assert predicted.sliding < predicted.cache / 4
