"""Device, dtype, seeds, memory and time."""

import logging

import pytest
import torch

from papercore import device as under_test
from papercore.device import (
    Timer,
    choose_device,
    choose_dtype,
    fan_out,
    find_batch_size,
    free_memory,
    generator,
    is_out_of_memory,
    peak_memory,
    require_free_memory,
    reset_peak_memory,
    seed_everything,
    timed,
)
from papercore.errors import ModelError
from papercore.testing.fixtures import one_thread  # noqa: F401

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


@pytest.fixture
def cuda(monkeypatch):
    """Pretends that there is one CUDA device; returns how to set its compute capability."""

    def present(capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    under_test._warn_once.cache_clear()
    return present


def test_auto_takes_the_cpu_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice = choose_device("auto")
    assert choice.value == CPU
    assert "no CUDA" in choice.reason


def test_auto_takes_cuda_and_names_it(cuda):
    cuda((8, 0))
    assert choose_device("auto").value == CUDA
    assert "card" in choose_device("auto").reason


@pytest.mark.parametrize("requested", ["cuda:7", "warp", "meta"])
def test_a_device_that_is_not_there_is_refused(requested, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=requested):
        choose_device(requested)


def test_auto_dtype_is_float32_on_a_cpu_whatever_was_saved():
    assert choose_dtype("auto", CPU, torch.float16).value is torch.float32


def test_auto_dtype_on_cuda_is_bfloat16_unless_saved_in_float16(cuda):
    cuda((8, 0))
    assert choose_dtype("auto", CUDA, torch.float32).value is torch.bfloat16
    assert choose_dtype("auto", CUDA, torch.float16).value is torch.float16


def test_old_cuda_falls_back_once_and_says_so(cuda, caplog):
    cuda((7, 5))
    with caplog.at_level(logging.WARNING):
        first = choose_dtype("bfloat16", CUDA)
        choose_dtype("auto", CUDA)
    assert first.value is torch.float16
    assert first.fallback
    assert "bfloat16" in first.reason
    assert len(caplog.records) == 1


def test_unknown_dtype_is_refused():
    with pytest.raises(ModelError, match="int3"):
        choose_dtype("int3", CPU)


def test_fan_out_never_changes():
    assert fan_out(7, "data") == 9_010_297_436_856_015_345


def test_fan_out_tells_names_and_seeds_apart():
    seeds = {fan_out(seed, name) for seed in range(50) for name in ("data", "model", "sampling")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generator_repeats():
    draws = [torch.rand(4, generator=generator(3, "noise")) for _ in range(2)]
    assert torch.equal(*draws)


def test_seed_everything_repeats_all_sources():
    import random

    import numpy as np

    def draw():
        seed_everything(5)
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    first = draw()
    assert first == draw()
    assert len(set(first)) == 3


def test_batch_size_is_halved_until_it_fits():
    tried = []

    def work(size):
        tried.append(size)
        if size > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return f"done with {size}"

    assert find_batch_size(work, 32) == ("done with 4", 4)
    assert tried == [32, 16, 8, 4]


def test_batch_size_that_never_fits_is_an_error():
    def work(size):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    with pytest.raises(ModelError, match="batch of one"):
        find_batch_size(work, 2)


def test_batch_size_search_passes_other_errors_on():
    def work(size):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        find_batch_size(work, 8)


def test_out_of_memory_is_told_from_other_errors():
    assert is_out_of_memory(torch.OutOfMemoryError("anything"))
    assert is_out_of_memory(RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_peak_memory_sees_what_was_freed_until_it_is_reset():
    size = 64 * 2**20
    resettable = reset_peak_memory()
    before = peak_memory()
    block = torch.ones(size, dtype=torch.uint8)
    del block
    assert peak_memory() >= before + size // 2
    if resettable:
        reset_peak_memory()
        assert peak_memory() < before + size // 2


def test_memory_guard_names_both_numbers():
    free = free_memory()
    assert free > 0
    require_free_memory(1, "cpu", "a byte")
    with pytest.raises(ModelError, match=r"the cache needs \d+\.\d GiB on cpu, which has \d+\.\d"):
        require_free_memory(free + 2**40, "cpu", "the cache")


def test_timer_adds_spans_up():
    timer = Timer().start().stop()
    first = timer.wall_s
    timer.start().stop()
    assert timer.wall_s > first > 0
    with pytest.raises(RuntimeError, match="not started"):
        timer.stop()


def test_timed_stops_when_the_block_fails():
    with pytest.raises(KeyError), timed() as timer:
        raise KeyError
    assert timer.wall_s > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_timer_waits_and_memory_counts():
    reset_peak_memory("cuda")
    with timed("cuda") as timer:
        product = torch.ones(4096, 4096, device="cuda") @ torch.ones(4096, 4096, device="cuda")
    assert timer.wall_s > 0
    assert peak_memory("cuda") >= product.numel() * 4
    require_free_memory(1, "cuda", "a byte")


def test_all_gpus_need_one():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="cuda:0 is not present"):
        choose_device("cuda:all")


@pytest.mark.gpu
def test_all_gpus_begin_with_the_first():
    choice = choose_device("cuda:all")
    assert choice.value == torch.device("cuda", 0)
    assert str(torch.cuda.device_count()) in choice.reason
