"""Pages on the host: the same answers, from few pages on the device."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

import longheads
from longheads.lru import NOWHERE, SlotTable
from longheads.offload import OffloadedLayer, offload_facts
from longheads.testing import make, small, tokens
from papercore.errors import ConfigError
from papercore.testing import assert_close

KINDS = ("llama", "llama-gqa", "gemma2", "smollm3")
LEAST = {"llama": 5, "llama-gqa": 10, "gemma2": 10, "smollm3": 10}  # 5 chunks, heads that share


def pair(kind, **changes):
    """The same settings without and with offloading, the pool as small as it may be."""
    return small(**changes), small(offload=True, pool_chunks=LEAST[kind], **changes)


class PlainTable:
    """The same rules, one chunk at a time."""

    def __init__(self, lanes, slots):
        self.slots = [[None] * slots for _ in range(lanes)]
        self.used = [[0] * slots for _ in range(lanes)]
        self.clock = 0

    def place(self, wanted):
        self.clock += 1
        missing = [pair for pair in wanted if pair[1] not in self.slots[pair[0]]]
        for lane, chunk in wanted:
            if (lane, chunk) not in missing:
                self.used[lane][self.slots[lane].index(chunk)] = self.clock
        for lane, chunk in missing:
            slot = min(range(len(self.used[lane])), key=lambda s: (self.used[lane][s], s))
            self.slots[lane][slot], self.used[lane][slot] = chunk, self.clock
        return len(wanted) - len(missing), len(missing)

    def forget(self, lanes, first, last):
        for lane in lanes:
            for slot, chunk in enumerate(self.slots[lane]):
                if chunk is not None and first <= chunk <= last:
                    self.slots[lane][slot], self.used[lane][slot] = None, 0


@pytest.mark.parametrize("seed", range(5))
def test_the_table_does_what_the_rules_say_one_chunk_at_a_time(seed):
    chance = random.Random(seed)
    lanes, slots, chunks = 3, 4, 9
    table, plain = SlotTable(lanes, slots, chunks), PlainTable(lanes, slots)
    hits = misses = 0
    for _ in range(200):
        if chance.random() < 0.1:
            first, some = chance.randrange(chunks), chance.sample(range(lanes), 2)
            table.forget(np.array(some), first, first + 2)
            plain.forget(some, first, first + 2)
        wanted = sorted(
            (lane, chunk)
            for lane in chance.sample(range(lanes), chance.randint(1, lanes))
            for chunk in chance.sample(range(chunks), chance.randint(1, slots))
        )
        lane, chunk = (np.array(part) for part in zip(*wanted, strict=True))
        move = table.place(lane, chunk)
        found = plain.place(wanted)
        hits, misses = hits + found[0], misses + found[1]
        assert len(move.lane) == found[1]
        for number in range(lanes):
            every = table.find(np.full(chunks, number), np.arange(chunks))
            held = {int(slot): int(c) for c, slot in enumerate(every) if slot != NOWHERE}
            assert held == {s: c for s, c in enumerate(plain.slots[number]) if c is not None}
    assert hits
    assert misses


def test_lanes_are_selected_with_what_they_hold():
    table = SlotTable(2, 2, 9)
    table.place(np.array([0, 0, 1]), np.array([4, 7, 5]))
    table.select(np.array([1, 0, 0]))
    held = [table.find(np.full(9, lane), np.arange(9)).tolist() for lane in range(3)]
    assert [sum(slot != NOWHERE for slot in lane) for lane in held] == [1, 2, 2]
    assert held[1] == held[2]
    table.place(np.array([2, 2]), np.array([1, 2]))  # one of the twins goes its own way
    assert table.find(np.array([1, 2]), np.array([4, 4])).tolist() == [held[1][4], NOWHERE]


def test_a_lane_that_is_asked_for_more_than_it_holds_is_refused():
    table = SlotTable(2, 2, 9)
    with pytest.raises(ValueError, match="more chunks than it has slots"):
        table.place(np.array([0, 0, 0]), np.array([1, 2, 3]))
    table.place(np.array([1, 1]), np.array([1, 2]))
    with pytest.raises(ValueError, match="more chunks than it has slots"):
        table.place(np.array([1, 1, 1]), np.array([1, 2, 3]))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_prompts_in_pieces_and_tokens_one_by_one(kind):
    model, ids = make(kind).double(), tokens()
    plain, offload = pair(kind)
    with longheads.enable(model, plain):
        expected = model(ids).logits
    with longheads.enable(model, offload) as handle:
        assert_close(model(ids).logits, expected, atol=1e-9)
        cache = handle.make_cache()
        steps = [0, 61, 100, 101, *range(102, ids.shape[1] + 1)]
        parts = [
            model(ids[:, low:high], past_key_values=cache).logits for low, high in pairwise(steps)
        ]
        assert_close(torch.cat(parts, dim=1), expected, atol=1e-9)
        facts = offload_facts(cache)
    assert facts["misses"] > 0
    assert facts["hits"] > 0
    assert 0 < facts["hit_rate"] < 1
    assert facts["staged_pages"] > 0
    assert facts["pool_bytes"] < facts["host_bytes"]


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padded_rows(side):
    model, ids = make("llama-gqa").double(), tokens(rows=3, count=110)
    mask = torch.ones_like(ids)
    for row, width in enumerate((0, 13, 50)):
        if width:
            mask[row, slice(0, width) if side == "left" else slice(110 - width, 110)] = 0
    plain, offload = pair("llama-gqa")
    logits = []
    for config in (plain, offload):
        with longheads.enable(model, config):
            out = model(ids, attention_mask=mask)
            more = torch.cat([mask, torch.ones(3, 1, dtype=torch.long)], dim=1)
            new = model(ids[:, :1], attention_mask=more, past_key_values=out.past_key_values)
            logits.append((out.logits[mask.bool()], new.logits))
    assert_close(logits[1][0], logits[0][0], atol=1e-9)
    assert_close(logits[1][1], logits[0][1], atol=1e-9)


@torch.no_grad()
def test_beams_crops_and_failed_passes():
    model, ids = make("llama-gqa").double(), tokens(rows=2, count=90)
    plain, offload = pair("llama-gqa")
    found = []
    for config in (plain, offload):
        with longheads.enable(model, config):
            beams = model.generate(ids, max_new_tokens=20, num_beams=3, do_sample=False)
            lookup = model.generate(
                ids[:1].repeat(1, 2), max_new_tokens=20, prompt_lookup_num_tokens=4, do_sample=False
            )
            cache = model(ids[:, :80]).past_key_values
            model(ids[:, 80:81], past_key_values=cache)
            cache.crop(-6)
            hook = model.model.layers[-1].self_attn.register_forward_pre_hook(_fail)
            for low, high in ((75, 90), (75, 76)):
                with pytest.raises(torch.OutOfMemoryError):
                    model(ids[:, low:high], past_key_values=cache)
            hook.remove()
            rest = [model(ids[:, t : t + 1], past_key_values=cache).logits for t in range(75, 90)]
            found.append((beams, lookup, torch.cat(rest, dim=1)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert_close(found[1][2], found[0][2], atol=1e-9)


@torch.no_grad()
def test_the_pool_is_no_larger_than_the_text():
    model, ids = make("llama-gqa").double(), tokens(rows=1, count=90)
    with longheads.enable(model, small()):
        whole = model(ids).logits
    with longheads.enable(model, small(offload=True, pool_chunks=1000)) as handle:
        cache = handle.make_cache(capacity_tok=70)
        parts = [
            model(ids[:, low:high], past_key_values=cache).logits
            for low, high in pairwise([0, 50, *range(51, 91)])
        ]
        facts = offload_facts(cache)
    assert facts["pool_bytes"] == facts["host_bytes"]
    assert facts["hits"] > facts["misses"]
    assert_close(torch.cat(parts, dim=1), whole, atol=1e-9)


@torch.no_grad()
def test_a_few_tokens_at_once_read_from_the_pool():
    model, ids = make("llama-gqa").double(), tokens(rows=1, count=160)
    with longheads.enable(model, small()):
        whole = model(ids).logits
    with longheads.enable(model, small(offload=True, pool_chunks=64)) as handle:
        cache = handle.make_cache(capacity_tok=200)
        parts = [model(ids[:, :100], past_key_values=cache).logits]
        staged = offload_facts(cache)["staged_pages"]
        for low in range(100, 160, 6):
            out = model(ids[:, low : low + 8], past_key_values=cache).logits
            parts.append(out[:, :6])
            cache.crop(-2)  # two were guessed wrong
        facts = offload_facts(cache)
    assert facts["staged_pages"] == staged
    assert facts["hit_rate"] > 0.5
    assert_close(torch.cat(parts, dim=1), whole, atol=1e-9)


@torch.no_grad()
def test_more_pages_than_the_pool_holds_are_staged():
    model, ids = make("llama-gqa").double(), tokens(rows=1, count=130)
    plain, offload = pair("llama-gqa")
    with longheads.enable(model, plain):
        whole = model(ids).logits
    with longheads.enable(model, offload) as handle:
        cache = handle.make_cache()
        model(ids[:, :121], past_key_values=cache)
        before = offload_facts(cache)["staged_pages"]
        rest = model(ids[:, 121:129], past_key_values=cache).logits
        assert offload_facts(cache)["staged_pages"] > before
    assert_close(rest, whole[:, 121:129], atol=1e-9)


@torch.no_grad()
def test_beams_keep_what_the_pool_holds():
    model, ids = make("llama-gqa").double(), tokens(rows=1, count=100)
    with longheads.enable(model, small(offload=True, pool_chunks=64)) as handle:
        cache = handle.make_cache(capacity_tok=160)
        options = {"max_new_tokens": 20, "num_beams": 3, "do_sample": False}
        model.generate(ids, past_key_values=cache, **options)
        assert offload_facts(cache)["hit_rate"] > 0.5


def _fail(*_):
    raise torch.OutOfMemoryError


@torch.no_grad()
def test_a_cache_that_grows_keeps_its_pages():
    model, ids = make("llama-gqa").double(), tokens(rows=1, count=150)
    plain, offload = pair("llama-gqa")
    with longheads.enable(model, plain):
        expected = model(ids).logits
    with longheads.enable(model, offload):
        cache = model(ids[:, :41]).past_key_values
        rooms, parts = set(), []
        for place in range(41, 150):
            parts.append(model(ids[:, place : place + 1], past_key_values=cache).logits)
            rooms.add(cache.layers[0].keys.shape[2])
    assert len(rooms) > 1
    assert_close(torch.cat(parts, dim=1), expected[:, 41:], atol=1e-9)


def test_sliding_layers_stay_where_they_are():
    with longheads.enable(make("gemma2"), small(offload=True)) as handle:
        kinds = [type(layer) is OffloadedLayer for layer in handle.make_cache().layers]
    assert kinds == [False, True]


def test_the_pool_holds_what_one_token_reads():
    with (
        longheads.enable(make("llama-gqa"), small(offload=True, pool_chunks=9)) as handle,
        pytest.raises(ConfigError, match="reads up to 10 chunks"),
    ):
        handle.make_cache()
    for share, chunks in (("per_head", 20), ("group_mean", 10), ("layer_max", 10)):
        config = small(offload=True, share_selection=share)
        with longheads.enable(make("llama-gqa"), config) as handle:
            assert handle.make_cache().layers[0].pool_chunks == chunks


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_on_a_gpu_pages_are_pinned_and_answers_are_those_of_the_device(dtype):
    model, ids = make("llama-gqa").to("cuda", dtype), tokens().cuda()
    plain, offload = pair("llama-gqa")
    logits = []
    for config in (plain, offload):
        with longheads.enable(model, config):
            out = model(ids[:, :100])
            parts = [out.logits] + [
                model(ids[:, t : t + 1], past_key_values=out.past_key_values).logits
                for t in range(100, 150)
            ]
            logits.append(torch.cat(parts, dim=1))
    assert offload_facts(out.past_key_values)["pinned"]
    assert_close(logits[1], logits[0], atol=1e-5 if dtype == torch.float32 else 5e-2)
