import random
from collections.abc import Callable

import pytest

from papercore.testing.fixtures import model_cache, one_thread
from self_cd.contexts import Contexts

__all__ = ["model_cache", "one_thread"]

PairMaker = Callable[..., list[Contexts]]


@pytest.fixture
def make_pairs() -> PairMaker:
    """Contexts as chat templates make them: a begin, the system prompt or none, a question."""

    def make(count: int, *, seed: int = 0, system: int = 20, most: int = 12) -> list[Contexts]:
        rng = random.Random(seed)

        def words(length: int) -> tuple[int, ...]:
            return tuple(rng.randrange(250) for _ in range(length))

        begin, prompt = words(3), words(system)
        questions = [words(rng.randrange(2, most)) for _ in range(count)]
        return [Contexts(begin + prompt + one, begin + one) for one in questions]

    return make
