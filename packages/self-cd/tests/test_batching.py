import pytest
import torch

from papercore.errors import ModelError
from self_cd.batching import Batches, Failure


def test_results_keep_their_order() -> None:
    sizes: list[int] = []

    def work(jobs):
        sizes.append(len(jobs))
        return [job * 10 for job in jobs]

    assert Batches(3).run([1, 2, 3, 4, 5, 6, 7], work) == [10, 20, 30, 40, 50, 60, 70]
    assert sizes == [3, 3, 1]
    assert Batches(3).run([], work) == []


def test_a_lack_of_memory_halves_the_batches_that_follow() -> None:
    sizes: list[int] = []

    def work(jobs):
        sizes.append(len(jobs))
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(jobs)

    batches = Batches(8)
    assert batches.run(list(range(12)), work) == list(range(12))
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 2, 2]
    assert batches.size == 2


def test_one_bad_job_fails_alone() -> None:
    def work(jobs):
        if 5 in jobs:
            raise ValueError("bad\njob")
        return list(jobs)

    batches = Batches(8)
    assert batches.run(list(range(8)), work) == [
        *range(5),
        Failure("ValueError: bad job"),
        *(6, 7),
    ]
    assert batches.size == 8, "memory was not short"


def test_a_job_that_never_fits_says_so() -> None:
    def work(jobs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert Batches(2).run([1, 2], work) == [Failure("out of memory")] * 2


def test_what_is_refused_for_all_is_raised() -> None:
    def work(jobs):
        raise ModelError("not this model")

    with pytest.raises(ModelError, match="not this model"):
        Batches(2).run([1, 2], work)
