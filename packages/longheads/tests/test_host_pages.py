"""Pinned pages on the host: how much memory, until when, and what is said where it lacks."""

import gc
import logging
import mmap

import pytest
import torch

from longheads import host_memory
from longheads.host_memory import PINNED_SHARE, host_pages

CUDA = torch.device("cuda")
GIB = 1 << 30
SHAPE = (1, 2, 3, 256, 8)
SIZE = 2 * 3 * 256 * 8 * 2


class Cudart:
    """Keeps account of what is registered, as CUDA does; `code` is what it answers."""

    def __init__(self):
        self.held, self.calls, self.code = {}, [], 0

    def cudaHostRegister(self, address, size, _flags):  # noqa: N802  # CUDA's name
        assert address % mmap.PAGESIZE == 0
        ends = [start + -(-length // mmap.PAGESIZE) * mmap.PAGESIZE for start, length in self.held]
        starts = [start for start, _ in self.held]
        assert all(
            address >= end or address + size <= start
            for start, end in zip(starts, ends, strict=True)
        ), "two blocks share a page of memory"
        self.calls.append("register")
        if not self.code:
            self.held[address, size] = True
        return self.code

    def cudaHostUnregister(self, address):  # noqa: N802  # CUDA's name
        self.calls.append("unregister")
        self.held = {block: True for block in self.held if block[0] != address}
        return 0


@pytest.fixture
def cudart(monkeypatch):
    gc.collect()
    found = Cudart()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: found)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: found.calls.append("wait"))
    monkeypatch.setattr(host_memory, "free_memory", lambda: 100 * GIB)
    monkeypatch.setattr(host_memory, "_forget_error", lambda _: found.calls.append("forget"))
    assert not host_memory._pinned
    yield found
    gc.collect()
    assert not host_memory._pinned
    assert not found.held


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pages_are_zeros_that_can_be_written(cudart, dtype):
    pages = host_pages(SHAPE, dtype, CUDA)
    assert (pages.shape, pages.dtype) == (SHAPE, dtype)
    assert not pages.any()
    pages[0, 1, 2] = 3
    assert pages.sum() == 3 * 256 * 8
    assert len(cudart.held) == 1


def test_no_more_is_pinned_than_the_pages_take(cudart):
    odd = [host_pages((1, 1, 513, 256, width), torch.float16, CUDA) for width in (1, 3)]
    assert sum(size for _, size in cudart.held) == sum(pages.nbytes for pages in odd)


def test_pages_stay_pinned_as_long_as_a_view_of_them_lives(cudart):
    pages = host_pages(SHAPE, torch.float16, CUDA)
    view = pages.flatten(0, 2)[4]
    del pages
    gc.collect()
    assert len(cudart.held) == 1
    del view
    gc.collect()
    assert not cudart.held
    assert cudart.calls == ["register", "wait", "unregister"]


def test_the_share_is_that_of_all_pinned_pages_together(cudart, monkeypatch, caplog):
    total = 10 * SIZE  # what would be free if nothing were pinned
    monkeypatch.setattr(
        host_memory, "free_memory", lambda: total - sum(size for _, size in cudart.held)
    )
    with caplog.at_level(logging.WARNING):
        every = [host_pages(SHAPE, torch.float16, CUDA) for _ in range(12)]
    assert len(cudart.held) == PINNED_SHARE * 10
    assert len(every) == 12
    assert caplog.text.count("not pinned") == 1, "one warning for a cache"
    del every[:8]
    gc.collect()
    every.append(host_pages(SHAPE, torch.float16, CUDA))
    assert len(cudart.held) == 1, "what went can be pinned again"


def test_a_later_cache_is_warned_about_again(cudart, caplog):
    cudart.code = 2
    for times in (1, 2):
        with caplog.at_level(logging.WARNING):
            pages = [host_pages(SHAPE, torch.float16, CUDA) for _ in range(4)]
        assert not any(part.any() for part in pages)
        assert caplog.text.count("not pinned (CUDA error 2 of cudaHostRegister)") == times
        del pages
        gc.collect()
    assert cudart.calls == ["register", "forget"] * 8


def test_a_device_out_of_order_lets_its_pages_go(cudart, monkeypatch):
    def broken(_):
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    pages = host_pages(SHAPE, torch.float16, CUDA)
    del pages
    gc.collect()
    assert cudart.calls == ["register", "unregister"]


def test_nothing_is_pinned_for_a_cpu_or_for_no_row(cudart):
    assert host_pages(SHAPE, torch.float16, torch.device("cpu")).shape == SHAPE
    assert host_pages((0, 2, 3, 4, 5), torch.float16, CUDA).shape == (0, 2, 3, 4, 5)
    assert not cudart.calls


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_torch_takes_the_pages_for_pinned_and_copies_beside():
    pages = host_pages((1, 2, 65, 256, 128), torch.bfloat16, CUDA)
    assert pages.is_pinned()
    assert pages.flatten(0, 2)[3].is_pinned()
    new = torch.randn(256, 128, device=CUDA, dtype=torch.bfloat16)
    pages[0, 1, 64].copy_(new, non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(pages[0, 1, 64], new.cpu())
    assert torch.equal(pages[0, 1, 64].to(CUDA, non_blocking=True), new)
    address = pages.data_ptr()
    del pages
    gc.collect()
    assert address not in host_memory._pinned
    assert host_pages((1, 2, 65, 256, 128), torch.bfloat16, CUDA).is_pinned(), "and again"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_refusal_leaves_no_error_behind():
    pages = host_pages(SHAPE, torch.bfloat16, CUDA)
    again = torch.cuda.cudart().cudaHostRegister(pages.data_ptr(), pages.nbytes, 1)
    assert int(again)
    host_memory._forget_error(CUDA)
    assert torch.ones(3, device=CUDA).sum() == 3
