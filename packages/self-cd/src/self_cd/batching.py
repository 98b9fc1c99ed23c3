"""Runs jobs in batches that fit into memory.

    results = Batches(64).run(jobs, decode_some)

A batch that fails is tried in halves, down to the job that fails; after a lack of memory the
batches that follow stay small.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from papercore.device import is_out_of_memory, release_memory
from papercore.errors import PaperError

__all__ = ["Batches", "Failure"]

logger = logging.getLogger(__name__)

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Failure:
    """Why a job has no result, in one line."""

    problem: str


class Batches:
    """Batches of a size that shrinks when memory is short.

    Attributes:
        size: Most jobs at once.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(
        self, jobs: Sequence[JobT], work: Callable[[Sequence[JobT]], Sequence[ResultT]]
    ) -> list[ResultT | Failure]:
        """One result per job, in their order.

        Raises:
            PaperError: What `work` refuses for all jobs alike, such as a model that it cannot use.
        """
        results: list[ResultT | Failure] = []
        while len(results) < len(jobs):
            results += self._some(jobs[len(results) : len(results) + self.size], work)
        return results

    def _some(
        self, jobs: Sequence[JobT], work: Callable[[Sequence[JobT]], Sequence[ResultT]]
    ) -> list[ResultT | Failure]:
        try:
            return list(work(jobs))
        except PaperError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            short = is_out_of_memory(error)
            line = " ".join(f"{type(error).__name__}: {error}".split())
            problem = "out of memory" if short else line
            logger.warning("a batch of %d questions failed: %s", len(jobs), problem)
        # Below the handler, whose traceback kept the tensors of the failed batch alive.
        half = len(jobs) // 2
        if short:
            release_memory()
            self.size = max(1, min(self.size, half))
        if half == 0:
            return [Failure(problem)]
        return self._some(jobs[:half], work) + self._some(jobs[half:], work)
