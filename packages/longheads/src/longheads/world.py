"""The miniature's world: noise that hides a few facts, and questions about them (spec 8.1).

A document is made of fillers (landscapes); among them stand facts, each a key (an animal) and its
value (something that grows), written once or several times in a row. It ends with questions: a key,
then the value that was hidden with it. The keys of a document differ, so a question has one answer.

    crag fen hare rice hare rice mist ... fen hare -> rice

    documents = write_documents(np.random.default_rng(0), 4, Layout(length=256))

No torch here. Axes: B documents, T words, N facts, Q questions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FILLERS",
    "KEYS",
    "VALUES",
    "WORDS",
    "Documents",
    "Example",
    "Layout",
    "content_hash",
    "to_text",
    "write_copies",
    "write_documents",
    "write_example",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FILLERS = _words(
    "fen moss reed peat bog heath fern dune marsh brook mist loam clay sedge vale crag"
)
KEYS = _words("fox owl hare crow seal moth toad wren lynx newt swan mole stag pike wasp boar")
VALUES = _words("plum pear fig rye oat leek sage mint kale bean lime date corn beet nut rice")
WORDS = FILLERS + KEYS + VALUES
"""The vocabulary; the id of a word is its place here."""

FIRST_KEY = len(FILLERS)
FIRST_VALUE = len(FILLERS) + len(KEYS)

FACT_TOK = 2
"""Words of a fact written once, and of a question with its answer."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """What stands in a document.

    Attributes:
        length: Words, the questions and their answers included.
        facts: Facts hidden in the noise, at most one per key.
        questions: Questions at the end; no more than facts: each fact is asked for at most once,
            else facts are drawn with repetition.
        repeats: How often each fact is written, back to back.
    """

    length: int
    facts: int = 4
    questions: int = 4
    repeats: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.facts <= len(KEYS):
            raise ValueError(f"facts={self.facts} is not between 1 and {len(KEYS)}, one per key")
        if self.questions < 1 or self.repeats < 1:
            raise ValueError("a document needs at least one question, a fact one repeat")
        if self.noise < 0:
            raise ValueError(
                f"length={self.length} is too short for {self.facts} facts written {self.repeats} "
                f"times and {self.questions} questions: it needs {self.length - self.noise}"
            )

    @property
    def body(self) -> int:
        """Words before the first question."""
        return self.length - FACT_TOK * self.questions

    @property
    def fact_tok(self) -> int:
        """Words of a fact with its repeats."""
        return FACT_TOK * self.repeats

    @property
    def noise(self) -> int:
        """Filler words."""
        return self.body - self.fact_tok * self.facts

    @property
    def answers(self) -> Ids:
        """Place of each answer, Q; the question is the word before it."""
        return self.body + FACT_TOK * np.arange(self.questions) + 1


@dataclass(frozen=True)
class Documents:
    """Documents of one layout.

    Attributes:
        layout: What stands in each of them.
        ids: Words as places in `WORDS`, BT.
        needles: Where the fact of each question begins, BQ.
    """

    layout: Layout
    ids: Ids
    needles: Ids

    @property
    def values(self) -> Ids:
        """Places at which the wanted value stands in the body, BQR with R repeats."""
        return self.needles[..., None] + FACT_TOK * np.arange(self.layout.repeats) + 1

    @property
    def depths(self) -> NDArray[np.float64]:
        """How deep in the body the fact of each question begins, 0 to 1, BQ."""
        return self.needles / self.layout.body


@dataclass(frozen=True)
class Example:
    """A document as a person would put it into a file.

    Attributes:
        text: Words with one space between; the last one is the key that is asked for.
        answer: The value that should follow.
        depth: How deep in the document its fact begins, 0 to 1.
    """

    text: str
    answer: str
    depth: float


def write_documents(rng: np.random.Generator, count: int, layout: Layout) -> Documents:
    """Writes documents: noise, facts at random places that do not touch each other, questions."""
    ids = rng.integers(0, len(FILLERS), (count, layout.length))
    keys_BN = FIRST_KEY + _choices(rng, count, len(KEYS), layout.facts)
    values_BN = FIRST_VALUE + rng.integers(0, len(VALUES), (count, layout.facts))
    starts_BN = _starts(rng, count, layout)
    for repeat in range(layout.repeats):
        place_BN = starts_BN + FACT_TOK * repeat
        np.put_along_axis(ids, place_BN, keys_BN, axis=1)
        np.put_along_axis(ids, place_BN + 1, values_BN, axis=1)
    asked_BQ = _asked(rng, count, layout)
    ids[:, layout.answers - 1] = np.take_along_axis(keys_BN, asked_BQ, axis=1)
    ids[:, layout.answers] = np.take_along_axis(values_BN, asked_BQ, axis=1)
    return Documents(layout, ids, np.take_along_axis(starts_BN, asked_BQ, axis=1))


def write_copies(rng: np.random.Generator, count: int, length: int) -> Ids:
    """Writes random strings over the whole vocabulary, each of them twice in a row."""
    string_BT = rng.integers(0, len(WORDS), (count, length))
    return np.concatenate([string_BT, string_BT], axis=1)


def write_example(seed: int, length: int, *, facts: int = 4, repeats: int = 2) -> Example:
    """Writes one document of `length` words that ends with a question; its answer is left out."""
    layout = Layout(length + 1, facts=facts, questions=1, repeats=repeats)
    documents = write_documents(np.random.default_rng([seed, length]), 1, layout)
    text = to_text(documents.ids[0])
    question, _, answer = text.rpartition(" ")
    return Example(question, answer, float(documents.depths[0, 0]))


def to_text(ids: Sequence[int] | Ids) -> str:
    """The words of a document with one space between."""
    return " ".join(WORDS[index] for index in ids)


def content_hash(ids: Sequence[int] | Ids) -> str:
    """Hash of what a document says: equal for equal texts, whatever made them."""
    return hashlib.sha256(to_text(ids).encode()).hexdigest()[:16]


def _choices(rng: np.random.Generator, count: int, options: int, chosen: int) -> Ids:
    """Different numbers below `options` in random order, one row per document."""
    return rng.permuted(np.tile(np.arange(options), (count, 1)), axis=1)[:, :chosen]


def _starts(rng: np.random.Generator, count: int, layout: Layout) -> Ids:
    """Where facts begin: every arrangement of facts and fillers is equally likely.

    A fact stands for one filler while places are drawn; its further words then push later ones on.
    """
    drawn = _choices(rng, count, layout.noise + layout.facts, layout.facts)
    return np.sort(drawn, axis=1) + (layout.fact_tok - 1) * np.arange(layout.facts)


def _asked(rng: np.random.Generator, count: int, layout: Layout) -> Ids:
    if layout.questions <= layout.facts:
        return _choices(rng, count, layout.facts, layout.questions)
    return rng.integers(0, layout.facts, (count, layout.questions))
