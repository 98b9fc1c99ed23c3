"""How LongBench scores an answer, from 0 to 1. No torch here.

    score("hotpotqa", "The Nile.", ["Nile", "river Nile"])        # 1.0

Each score is written from its definition; what decides between readings of a definition is the
released evaluation (LongBench's `metrics.py` and `eval.py`, MIT) and the packages it calls, `rouge`
1.0.1 and `fuzzywuzzy` 0.18 without `python-Levenshtein`.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher

from longheads.longbench_sets import SETS, Metric, SetName

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"\d+")
_PARAGRAPH = re.compile(r"Paragraph (\d+)")
_NO_CODE = ("`", "#", "//")
"""A line that holds one of these is taken for a comment or a fence."""


def score(
    name: SetName, prediction: str, answers: Sequence[str], classes: Sequence[str] = ()
) -> float:
    """The best score that an answer gets against any of the right ones; 0 if there is none.

    Args:
        name: the set.
        prediction: what the model wrote.
        answers: the right answers.
        classes: all classes of a classification task.
    """
    assert not isinstance(answers, str), "answers is a list of texts"
    one = SETS[name]
    text = first_line(prediction) if one.first_line else prediction
    if one.metric == "classification":
        found = [classification(text, answer, classes) for answer in answers]
    else:
        found = [_SCORES[one.metric](text, answer) for answer in answers]
    return max(found, default=0.0)


def first_line(text: str) -> str:
    """The first line after any empty ones."""
    return text.lstrip("\n").split("\n", 1)[0]


def token_f1(prediction: str, answer: str) -> float:
    """F1 of the words of two texts, case, ASCII punctuation and English articles aside."""
    ours, theirs = _words(prediction), _words(answer)
    shared = (Counter(ours) & Counter(theirs)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def rouge_l(prediction: str, answer: str) -> float:
    """ROUGE-L of summaries with beta 1: F1 of distinct words in longest common subsequences.

    Every sentence of the answer meets every sentence of the prediction; sentences end at a full
    stop. Words count once, case and punctuation matter. A text of full stops alone scores 0.

    Source: `Rouge().get_scores(..)["rouge-l"]["f"]` of the package `rouge` 1.0.1.
    """
    ours, theirs = _sentences(prediction), _sentences(answer)
    if not ours or not theirs:
        return 0.0
    shared = {word for right in theirs for said in ours for word in common_words(right, said)}
    precision = len(shared) / len({word for sentence in ours for word in sentence})
    recall = len(shared) / len({word for sentence in theirs for word in sentence})
    # the package adds this so as not to divide by zero
    return 2.0 * (precision * recall / (precision + recall + 1e-8))


def common_words(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """A longest common subsequence.

    Among equally long ones the package's choice is taken: from the end backwards, the shorter
    `second` if it loses nothing.
    """
    lengths = [[0] * (len(second) + 1)]
    for word in first:
        above, row = lengths[-1], [0]
        for j, other in enumerate(second):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        lengths.append(row)
    found: list[str] = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.append(first[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def classification(prediction: str, answer: str, classes: Sequence[str]) -> float:
    """1 / n if the right class is among the n that the prediction names, else 0.

    Classes whose name is only a part of the right one's name do not count.

    Deviation: the released loop skips the name after each one that it removes; here all such names
    are removed. The two differ only where neighbours in the list of classes are both removed.
    """
    named = [one for one in classes if one in prediction]
    kept = [one for one in named if one == answer or one not in answer]
    return 1.0 / len(kept) if answer in kept else 0.0


def retrieval(prediction: str, answer: str) -> float:
    """Share of the numbers of a prediction that are the number of the right paragraph."""
    wanted = paragraph_number(answer)
    return 0.0 if wanted is None else _share_of_numbers(prediction, wanted)


def count(prediction: str, answer: str) -> float:
    """Share of the numbers of a prediction that are the right one."""
    return _share_of_numbers(prediction, answer)


def code_similarity(prediction: str, answer: str) -> float:
    """Likeness of the first line of code, in steps of 0.01.

    Deviation: none to `fuzzywuzzy` as LongBench's requirements install it. Where
    `python-Levenshtein` is installed too, the same call gives the insert-delete ratio, which is
    often some points higher (LongBench issue 96).
    """
    line = _first_code_line(prediction)
    if line == answer:
        return 1.0
    if not line or not answer:
        return 0.0
    return round(100 * SequenceMatcher(None, line, answer).ratio()) / 100


def paragraph_number(answer: str) -> str | None:
    """N of the first `Paragraph N`."""
    found = _PARAGRAPH.search(answer)
    return found.group(1) if found else None


_SCORES: Mapping[Metric, Callable[[str, str], float]] = {
    "f1": token_f1,
    "rouge_l": rouge_l,
    "retrieval": retrieval,
    "count": count,
    "code_similarity": code_similarity,
}


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split()


def _sentences(text: str) -> list[list[str]]:
    """Words of each sentence; one of white space alone holds one empty word, as in the package."""
    return [part.split() or [""] for part in text.split(".") if part]


def _share_of_numbers(prediction: str, wanted: str) -> float:
    numbers = _NUMBER.findall(prediction)
    return numbers.count(wanted) / len(numbers) if numbers else 0.0


def _first_code_line(text: str) -> str:
    lines = text.lstrip("\n").split("\n")
    return next((line for line in lines if not any(mark in line for mark in _NO_CODE)), "")
