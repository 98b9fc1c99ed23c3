"""Programs that `papercore_sandbox` and its peers run: small ones with tests, and a slow one.

    for program, right in programs(50, seed=0): ...

Ten tasks in five versions: two are right, the others answer wrongly, fail in some test or in all of
them, or do not compile. None of them waits or runs for long, which would cost all runners the same.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
from collections.abc import Iterator
from unittest import mock

from papercore.sandbox import Program, StdinTest

TESTS = 15
READ = "import sys\nn, *numbers = map(int, sys.stdin.read().split())\n"
TASKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        """
total = 0
for i in range(n):
    if @:
        total += numbers[i]
print(total)
""",
        (
            "numbers[i] % 2 == 0",
            "not numbers[i] & 1",
            "numbers[i] % 2",
            "i % 2 == 0",
            "numbers[i] % 2 = 0",
        ),
    ),
    (
        """
best = here = numbers[0]
for number in numbers[1:]:
    here = @
    best = max(best, here)
print(best)
""",
        (
            "max(number, here + number)",
            "number + (here if here > 0 else 0)",
            "here + max(number, 0)",
            "here + number",
            "max(number, here + numbr)",
        ),
    ),
    (
        """
def common(a, b):
    while b:
        @
    return a

found = 0
for number in numbers:
    found = common(found, abs(number))
print(found)
""",
        (
            "a, b = b, a % b",
            "a %= b\n        a, b = b, a",
            "a, b = b, a - a",
            "a, b = b, a // 2 % b",
            "a b = b, a % b",
        ),
    ),
    (
        """
import bisect

tails = []
for number in numbers:
    place = @
    tails[place : place + 1] = [number]
print(len(tails))
""",
        (
            "bisect.bisect_left(tails, number)",
            "next((i for i, one in enumerate(tails) if one >= number), len(tails))",
            "bisect.bisect_right(tails, number)",
            "len(tails)",
            "bisect.bisect_left(tails)",
        ),
    ),
    (
        """
from collections import Counter

counts = Counter(numbers)
most = @
print(most)
""",
        (
            "min(counts, key=lambda one: (-counts[one], one))",
            "sorted(counts.items(), key=lambda one: (-one[1], one[0]))[0][0]",
            "max(counts)",
            "counts.most_common(1)[1][0]",
            "min(counts, key=lambda one: -counts[one]",
        ),
    ),
    (
        """
kept = []
for number in sorted(numbers):
    if @:
        kept.append(number)
print(*kept)
print(len(kept), 'of', n)
""",
        (
            "number not in kept",
            "not kept or kept[-1] != number",
            "kept and kept[-1] != number",
            "True",
            "kept[-1] != number",
        ),
    ),
    (
        """
limit = sum(map(abs, numbers)) + 2
prime = [True] * (limit + 1)
for i in range(2, limit + 1):
    for j in range(@):
        prime[j] = False
print(sum(prime[2:]))
""",
        (
            "2 * i, limit + 1, i",
            "i * i, limit + 1, i",
            "2 * i, limit, i",
            "i, limit + 1, i",
            "2 * i, limit + i, i",
        ),
    ),
    (
        """
from itertools import combinations

wanted = numbers[0]
pairs = 0
for one, two in combinations(numbers, 2):
    if @:
        pairs += 1
print(pairs)
""",
        (
            "one + two == wanted",
            "wanted - one == two",
            "one + two >= wanted",
            "one + two == wanted or pairs < 1",
            "one + two = wanted",
        ),
    ),
    (
        """
amount = 40
ways = [1] + [0] * amount
for coin in sorted({abs(number) + 1 for number in numbers}):
    for value in range(@):
        ways[value] += ways[value - coin]
print(ways[-1])
""",
        (
            "coin, amount + 1",
            "min(coin, amount + 1), len(ways)",
            "1, amount + 1",
            "coin, amount",
            "coin, amount + 2",
        ),
    ),
    (
        """
import heapq

heap = list(numbers)
heapq.heapify(heap)
cost = 0
while len(heap) > 1:
    merged = @
    cost += merged
    heapq.heappush(heap, merged)
print(f'{cost / n:.3f}')
""",
        (
            "heapq.heappop(heap) + heapq.heappop(heap)",
            "sum(heapq.heappop(heap) for _ in range(2))",
            "heapq.heappop(heap) - heapq.heappop(heap)",
            "heapq.heappop(heap) + heapq.heappop(heap) + heapq.heappop(heap)",
            "heapq.heappop(heap) + heapq.heappop(heaps)",
        ),
    ),
)
"""After `READ`, where `@` stands for one of the versions, of which two are right."""

RIGHT = 2
LOOPS = """
def steps(number):
    count = 0
    while number != 1:
        if number % 2:
            number = 3 * number + 1
        else:
            number //= 2
        count += 1
    return count

limit = int(input())
best = 0
for number in range(1, limit):
    best = max(best, steps(number))
ways = [1] + [0] * limit
for coin in (1, 2, 5, 10, 20, 50):
    for value in range(coin, limit + 1):
        ways[value] = (ways[value] + ways[value - coin]) % 1000007
table = [[0] * 100 for _ in range(100)]
for i in range(100):
    for j in range(100):
        total = 0
        for k in range(limit // 250):
            total += (i ^ k) * (j | k)
        table[i][j] = total
print(best, ways[-1], sum(map(sum, table)))
"""
"""Slow, in three kinds of loops, and with nothing but statements that are quick themselves."""


def programs(number: int, *, seed: int) -> Iterator[tuple[Program, bool]]:
    """Programs with tests, and whether each is right; all tasks and versions equally often."""
    for index in range(number):
        body, versions = TASKS[index % len(TASKS)]
        version = (index + index // len(TASKS)) % len(versions)
        rng = random.Random(f"{seed} {index}")
        inputs = [_numbers(rng) for _ in range(TESTS)]
        right = READ + body.replace("@", versions[0])
        tests = tuple(StdinTest(text, answer(right, text)) for text in inputs)
        yield Program(READ + body.replace("@", versions[version]), tests), version < RIGHT


def answer(code: str, stdin: str) -> str:
    """What a program of ours writes."""
    written = io.StringIO()
    with mock.patch.object(sys, "stdin", io.StringIO(stdin)), contextlib.redirect_stdout(written):
        exec(compile(code, "<ours>", "exec"), {"__name__": "__main__"})  # noqa: S102 - it is ours
    return written.getvalue()


def _numbers(rng: random.Random) -> str:
    numbers = [rng.randrange(-20, 21) for _ in range(rng.randrange(5, 13))]
    return f"{len(numbers)}\n{' '.join(map(str, numbers))}\n"
