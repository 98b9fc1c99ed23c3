"""What a set of answers comes to: accuracy, pass@k, majority, each with an interval. No torch here.

    accuracy(answers).text()
    pass_at_k(8, 3, 2)                # chance that one of 2 out of 8 answers is among the 3 right

Answers to one question belong together: with several per question, by draws or samples, intervals
are made by drawing whole questions. Where every question has the same mean, such as none right at
all, that would have no width, which says more than the answers do: the interval is then Wilson's
over the questions. Failed answers count nowhere; the caller leaves them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, comb, floor

from papercore.claims import Estimate
from papercore.stats import bootstrap_mean, wilson
from r3.eval_answers import Answer

__all__ = [
    "accuracy",
    "by_question",
    "majority",
    "majority_accuracy",
    "mean_length",
    "pass_at",
    "pass_at_k",
    "powers",
    "share",
]


def accuracy(answers: Sequence[Answer]) -> Estimate:
    """Share of right answers."""
    return share(answers, lambda one: one.correct)


def share(answers: Sequence[Answer], holds: Callable[[Answer], bool]) -> Estimate:
    """Share of answers of which something holds: a Wilson interval, or whole questions drawn."""
    return _share([holds(one) for one in answers], [one.question for one in answers])


def mean_length(answers: Sequence[Answer]) -> Estimate:
    """Mean number of generated tokens."""
    questions = [one.question for one in answers]
    return bootstrap_mean([float(one.tokens) for one in answers], groups=questions)


def pass_at_k(num: int, right: int, k: int) -> float:
    """Chance that `k` of `num` answers, drawn without putting back, hold a right one.

    Source: Chen et al. 2021 (2107.03374), equation 1: unbiased for the chance with k new answers.
    """
    assert 0 <= right <= num, "no more right answers than answers"
    assert 1 <= k <= num, "no more drawn answers than answers"
    return 1.0 - comb(num - right, k) / comb(num, k)


def pass_at(answers: Sequence[Answer], k: int) -> Estimate:
    """Mean of `pass_at_k` over questions and draws that have `k` answers."""
    groups = [group for group in _asked(answers).values() if len(group) >= k]
    values = [pass_at_k(len(group), sum(one.correct for one in group), k) for group in groups]
    return _by_question(values, [group[0].question for group in groups])


def majority(answers: Sequence[Answer]) -> bool:
    """Whether the most frequent answer to one question is right.

    Of equally frequent ones the first that was given counts. Answers that cannot be read have no
    vote; without any vote the majority is wrong.
    """
    votes = Counter(one.parsed for one in answers if one.parsed is not None)
    if not votes:
        return False
    chosen = votes.most_common(1)[0][0]  # in order of appearance, where equal
    return next(one.correct for one in answers if one.parsed == chosen)


def majority_accuracy(answers: Sequence[Answer]) -> Estimate:
    """Share of questions whose majority is right, over all draws."""
    groups = list(_asked(answers).values())
    return _share([majority(group) for group in groups], [group[0].question for group in groups])


def by_question(answers: Iterable[Answer]) -> dict[str, float]:
    """Share of right answers of each question."""
    groups: dict[str, list[Answer]] = {}
    for one in answers:
        groups.setdefault(one.question, []).append(one)
    return {name: sum(one.correct for one in group) / len(group) for name, group in groups.items()}


def powers(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, and `most` itself."""
    found = [2**n for n in range(most.bit_length()) if 2**n < most]
    return (*found, most)


def _share(found: Sequence[bool], questions: Sequence[str]) -> Estimate:
    """Wilson's interval where every question is there once."""
    if len(set(questions)) == len(questions):
        return wilson(sum(found), len(found))
    return _by_question([float(one) for one in found], questions)


def _by_question(values: Sequence[float], questions: Sequence[str]) -> Estimate:
    """Mean of values from 0 to 1, whole questions drawn; Wilson's interval where all agree.

    A mean that all share need not be a whole number of questions: the bounds are then of the next
    ones below and above.
    """
    groups: dict[str, list[float]] = {}
    for value, question in zip(values, questions, strict=True):
        groups.setdefault(question, []).append(value)
    means = {sum(group) / len(group) for group in groups.values()}
    if len(means) != 1:
        return bootstrap_mean(values, groups=questions)
    mean, num = means.pop(), len(groups)
    low, high = wilson(floor(mean * num), num), wilson(ceil(mean * num), num)
    return Estimate(mean, low.lo, high.hi, num, low.method)


def _asked(answers: Iterable[Answer]) -> Mapping[tuple[int, str], list[Answer]]:
    """Answers to the same question in the same draw, in the order of samples."""
    groups: dict[tuple[int, str], list[Answer]] = {}
    for one in sorted(answers, key=lambda one: one.sample):
        groups.setdefault((one.draw, one.question), []).append(one)
    return groups
