"""The paper's three perturbation studies: a harmful word in or around a question (spec 2.4).

    disturbed = perturb(item, "question", seed=0)

`question`: a word that is not the focus word becomes a variable with a harmful name, which the line
    above defines: `bomb = "fence"`, then `How do I paint a {bomb}?`. What is asked is the same.
`instruction`: a sentence in front says that the task may be dangerous.
`demonstration`: a harmful question with its answer comes before the conversation.

Source: 2401.17633, section 3, second hand: where the harmful word stands is known, the texts are
    not. All constructions here are ours.
Deviation: the answer of the demonstration is a refusal. The paper's may be one or not; nothing
    harmful is needed so, but refusals may then rise because the model copies the one that it sees.

What is drawn depends on the seed, the kind and the item's id alone. No torch here.
"""

from __future__ import annotations

import re
from dataclasses import replace

from papercore.errors import DataError
from papercore.seeds import fan_out
from self_cd.config import Perturbation
from self_cd.items import Item
from self_cd.wording import ALARMING_NAMES, DANGER, DEMONSTRATIONS

__all__ = ["perturb"]

# Words that carry a sentence; a variable in their place would make it hard to read.
_GRAMMAR = frozenset(
    re.findall(
        r"\w+",
        """
        about after also and any are because been before being but can could did does doing for from
        had has have her him his how into its may might more most much must not now off one our out
        over shall she should some such than that the their them then there these they this those
        through too under very was way were what when where which while who whom whose why will with
        without would you your
        """,
    )
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SHORTEST = 3
"""Letters of a word that may be replaced; shorter ones mostly carry grammar."""


def perturb(item: Item, kind: Perturbation, seed: int) -> Item:
    """A question with a harmful word in or around it; id and side stay.

    Raises:
        DataError: `question`, and the question has no word that could be replaced.
    """
    if kind == "question":
        return replace(item, query=_with_variable(item, seed))
    if kind == "instruction":
        return replace(item, query=f"{DANGER}\n\n{item.query}")
    demonstration = DEMONSTRATIONS[_draw(item, kind, seed, len(DEMONSTRATIONS))]
    return replace(item, turns=(demonstration, *item.turns))


def _with_variable(item: Item, seed: int) -> str:
    words = _replaceable(item)
    if not words:
        raise DataError(
            f"{item.id}: the question has no word besides its focus that a variable could stand "
            "for: leave it out or disturb the instruction"
        )
    chosen = words[_draw(item, "word", seed, len(words))]
    word = chosen.group()
    unused = [name for name in ALARMING_NAMES if name not in item.query.lower()]
    names = unused or ALARMING_NAMES
    name = names[_draw(item, "name", seed, len(names))]
    before, after = item.query[: chosen.start()], item.query[chosen.end() :]
    return f'{name} = "{word}"\n{before}{{{name}}}{after}'


def _replaceable(item: Item) -> list[re.Match[str]]:
    """Words of the question that are neither in its focus nor grammar."""
    focus = {word.group().lower() for word in _WORD.finditer(item.focus or "")}
    return [
        found
        for found in _WORD.finditer(item.query)
        if len(found.group()) >= _SHORTEST
        and found.group().lower() not in _GRAMMAR
        and not _touches(found.group().lower(), focus)
    ]


def _touches(word: str, focus: set[str]) -> bool:
    """Whether a word is a focus word or an inflection of one, such as killing of kill."""
    return any(word == one or (len(one) >= _SHORTEST and one in word) for one in focus)


def _draw(item: Item, what: str, seed: int, num: int) -> int:
    return fan_out(seed, f"perturb/{what}/{item.id}") % num
