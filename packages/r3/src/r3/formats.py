"""The layouts that data sets are released in, recognised by the names of their fields.

    layout = recognise(first_rows, TASKS["gsm8k"], {}, "train.jsonl")
    for example in layout.read(Fields(row.fields), TASKS["gsm8k"]):
        ...

Layouts were read in data set cards and released files; the words around questions are ours. No
torch here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from papercore.config import near_miss
from papercore.errors import ConfigError, DataError
from r3.config import TaskName
from r3.examples import BadRow, Example, Fields
from r3.rationales import belongs
from r3.rows import Row
from r3.tasks import OPTIONS, Task, read_answer, split_answer

__all__ = [
    "LAYOUTS",
    "Layout",
    "UnknownLayoutError",
    "check_names",
    "layouts_of",
    "recognise",
    "renamed",
]

MIX_MARK = "### Response:"
"""Stands in the questions of the official mix files, before the beginning of a demonstration."""

COT = "CoT-Collection"

_LIST_HEAD = re.compile(r"\s*OPTIONS?:?[ \t]*", re.IGNORECASE)
"""The line before the options, as FLAN and CoT-Collection write it."""


class UnknownLayoutError(DataError):
    """The fields of a file are of no layout of the task."""


@dataclass(frozen=True)
class Layout:
    """A way to write examples as rows.

    Attributes:
        name: For a person.
        tasks: Whose data may be written so.
        needed: Fields that every row has.
        optional: Fields that are read if they are there.
        read: Makes examples of a row, or raises BadRow.
    """

    name: str
    tasks: frozenset[TaskName]
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Fields, Task], Iterable[Example]]

    @property
    def names(self) -> tuple[str, ...]:
        """All fields that it knows."""
        return self.needed + self.optional


def layouts_of(task: Task) -> tuple[Layout, ...]:
    """The layouts that a task's data may have, the most specific first."""
    return tuple(layout for layout in LAYOUTS if task.name in layout.tasks)


def check_names(task: Task, names: Mapping[str, str]) -> None:
    """Whether the user gave names for fields that there are.

    Args:
        names: Our name -> the name in the file.

    Raises:
        ConfigError: One is not.
    """
    known = sorted({name for layout in layouts_of(task) for name in layout.names})
    for name in names:
        if name not in known:
            raise ConfigError(
                f"fields.{name}: {task.name} has no such field{near_miss(name, known)}"
                f" (there are: {', '.join(known)})"
            )


def renamed(row: Mapping[str, object], names: Mapping[str, str]) -> Mapping[str, object]:
    """A row with our names for its fields where the user gave some: our name -> the file's."""
    if not names:
        return row
    theirs = set(names.values())
    kept = {name: value for name, value in row.items() if name not in theirs}
    return kept | {ours: row[name] for ours, name in names.items() if name in row}


def recognise(rows: Sequence[Row], task: Task, names: Mapping[str, str], where: str) -> Layout:
    """The layout of a file, by its first rows.

    Args:
        rows: The first rows, renamed.
        task: Whose data these are.
        names: What the user named: only layouts that know all of these are looked at.
        where: The file, for messages.

    Raises:
        UnknownLayoutError: The fields are of none.
        DataError: No row can be read.
    """
    fitting = [one for one in layouts_of(task) if set(names) <= set(one.names)]
    for row in rows:
        for layout in fitting:
            if row.problem is None and set(layout.needed) <= set(row.fields):
                return layout
    found = next((sorted(map(str, row.fields)) for row in rows if row.problem is None), None)
    if found is None:
        first = f": {rows[0].where} {rows[0].problem}" if rows else ": it has no rows"
        raise DataError(f"{where}: no row can be read{first}")
    expected = "; ".join(f"{', '.join(one.needed)} ({one.name})" for one in fitting)
    raise UnknownLayoutError(
        f"{where}: its fields are {_short(found)}, but {task.name} is read from "
        f"{expected or 'no fields of these names'}: name yours with"
        " --fields, as in --fields question body"
    )


def _short(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[:20]]
    return ", ".join(shown) + (", ..." if len(names) > 20 else "")


def _plain(fields: Fields, task: Task) -> Iterator[Example]:
    """The user's own."""
    question, answer = _question(fields.text("question")), fields.text("answer")
    yield Example(question, answer, fields.maybe("rationale"), fields.maybe("id"))


def _gsm8k(fields: Fields, task: Task) -> Iterator[Example]:
    """The answer holds the rationale and, in its last line behind `####`, the number."""
    question, answer = _question(fields.text("question")), fields.text("answer")
    before, marker, gold = answer.rpartition("####")
    if not marker and read_answer(task, answer) is None:
        raise BadRow("no answer", "'answer' has no last line #### and is no number")
    yield Example(question, gold, answer if before.strip() else None, fields.maybe("id"))


def _records(fields: Fields, task: Task) -> Iterator[Example]:
    """What ReFT and the official samples have for maths."""
    question, gold = _question(fields.text("question")), fields.text("answer_value")
    yield Example(question, gold, fields.maybe("answer_cot"), fields.maybe("item_id"))


def _svamp(fields: Fields, task: Task) -> Iterator[Example]:
    question, gold = f"{fields.text('Body')} {fields.text('Question')}", fields.text("Answer")
    yield Example(question, gold, fields.maybe("rationale"), fields.maybe("ID"))


def _nli(fields: Fields, task: Task) -> Iterator[Example]:
    """The hub's copies of SNLI and MNLI."""
    pair = fields.text("premise"), fields.text("hypothesis")
    label, rationale = fields.text("label"), fields.maybe("rationale")
    yield _entailment(task, pair, label, rationale, fields.maybe("id"))


def _nli_released(fields: Fields, task: Task) -> Iterator[Example]:
    """The JSON lines of SNLI's and MNLI's own releases."""
    pair = fields.text("sentence1"), fields.text("sentence2")
    label, rationale = fields.text("gold_label"), fields.maybe("rationale")
    yield _entailment(task, pair, label, rationale, fields.maybe("pairID"))


def _entailment(
    task: Task, pair: tuple[str, str], label: str, rationale: str | None, name: str | None
) -> Example:
    if label in ("-1", "-"):
        raise BadRow("no label", "its annotators did not agree on one")
    question = f"Premise: {pair[0]}\nHypothesis: {pair[1]}\n{task.closing}"
    return Example(question, label, rationale, name, group=pair[0], pair=pair)


def _race(fields: Fields, task: Task) -> Iterator[Example]:
    """The hub's copy of RACE."""
    pair = fields.text("article"), fields.text("question")
    options, gold = fields.texts("options"), fields.text("answer")
    name = fields.maybe("example_id") or fields.maybe("id")
    yield _choice(pair, options, gold, fields.maybe("rationale"), name)


def _race_released(fields: Fields, task: Task) -> Iterator[Example]:
    """RACE's own release: a file for each article, with all its questions."""
    article, name = fields.text("article"), fields.maybe("id")
    questions, options = fields.texts("questions"), fields.lists("options")
    golds = fields.texts("answers")
    if not len(questions) == len(options) == len(golds):
        raise BadRow("wrong type", "questions, options and answers are not equally many")
    for question, choices, gold in zip(questions, options, golds, strict=True):
        yield _choice((article, question), choices, gold, None, name)


def _choice(
    pair: tuple[str, str],
    options: tuple[str, ...],
    gold: str,
    rationale: str | None,
    name: str | None,
) -> Example:
    if not 2 <= len(options) <= len(OPTIONS):
        raise BadRow("wrong type", f"{len(options)} options: 2 to {len(OPTIONS)} are read")
    listed = "\n".join(f"{letter}) {text}" for letter, text in zip(OPTIONS, options, strict=False))
    question = f"{pair[0]}\n\nQuestion: {pair[1]}\n{listed}"
    return Example(question, gold, rationale, name, group=pair[0], pair=pair, options=options)


def _boardgame(fields: Fields, task: Task) -> Iterator[Example]:
    """BoardgameQA: `example` is the game in words, `proof` the way to the label."""
    question, label = fields.text("example"), fields.text("label")
    yield Example(question, label, fields.maybe("proof"), fields.maybe("id"))


def _cot(fields: Fields, task: Task) -> Iterator[Example]:
    """CoT-Collection alone: its instruction is the question."""
    named = fields.maybe("task")
    if named is not None and not belongs(named, task.name):
        raise BadRow("of another task", named[:40])
    question, target = _reworded(fields.text("source"), task), fields.text("target")
    yield Example(question, target, fields.text("rationale"))


def _instruction(fields: Fields, task: Task) -> Iterator[Example]:
    """The official samples: the output is a rationale and, behind `###` or `####`, the answer."""
    asked = "\n".join(filter(None, (fields.text("instruction"), fields.maybe("input"))))
    output = fields.text("output")
    found = split_answer(task, output)
    if found.stated:
        rationale = output if found.body else None
        yield Example(_reworded(asked, task), found.stated[0], rationale)
    elif read_answer(task, output) is not None:
        yield Example(_reworded(asked, task), output)
    else:
        raise BadRow("no answer", f"'output' states none behind {task.marker}")


def _question(text: str) -> str:
    """Refuses the questions of the official mix files: they hold a part of the demonstration."""
    if MIX_MARK in text:
        raise BadRow(
            "record of a mix file",
            f"behind {MIX_MARK!r} the question holds the beginning of a demonstration, but r3 cuts "
            "them itself: give the file of whole demonstrations",
        )
    return text


def _reworded(text: str, task: Task) -> str:
    """An instruction of others; a list of other words for our labels gives way to ours."""
    text = _question(text)
    return f"{_without_options(text)}\n{task.closing}" if task.closing else text


def _without_options(text: str) -> str:
    """Without the options at the end, a line with a dash each, and the line that announces them.

    The lines are counted from the end: one pattern for all of it would take a time cubic in the
    number of empty lines.
    """
    lines = text.rstrip().split("\n")
    head = len(lines) - 1
    while head > 0 and lines[head].lstrip(" \t").startswith("-"):
        head -= 1
    listed = 0 < head < len(lines) - 1 and _LIST_HEAD.fullmatch(lines[head])
    return "\n".join(lines[:head]).rstrip() if listed else text


_MATHS: frozenset[TaskName] = frozenset({"gsm8k", "gsm8k-pcot", "svamp"})
_NLI: frozenset[TaskName] = frozenset({"mnli", "snli"})
_RACE: frozenset[TaskName] = frozenset({"race-high", "race-middle"})
_BOARDGAME: frozenset[TaskName] = frozenset({"boardgame"})
_ALL = _MATHS | _NLI | _RACE | _BOARDGAME

LAYOUTS: tuple[Layout, ...] = (
    Layout("records", _MATHS, ("question", "answer_value"), ("answer_cot", "item_id"), _records),
    Layout("SVAMP", _MATHS, ("Body", "Question", "Answer"), ("ID", "rationale"), _svamp),
    Layout(
        *("RACE", _RACE, ("article", "question", "options", "answer")),
        *(("example_id", "id", "rationale"), _race),
    ),
    Layout(
        *("RACE as released", _RACE, ("article", "questions", "options", "answers")),
        *(("id",), _race_released),
    ),
    Layout("NLI", _NLI, ("premise", "hypothesis", "label"), ("rationale", "id"), _nli),
    Layout(
        *("NLI as released", _NLI, ("sentence1", "sentence2", "gold_label")),
        *(("pairID", "rationale"), _nli_released),
    ),
    Layout("BoardgameQA", _BOARDGAME, ("example", "label"), ("proof", "id"), _boardgame),
    Layout(COT, _ALL, ("source", "target", "rationale"), ("task",), _cot),
    Layout("instructions", _ALL, ("instruction", "output"), ("input",), _instruction),
    Layout("plain", _ALL, ("question", "rationale", "answer"), ("id",), _plain),
    Layout("GSM8K", _MATHS, ("question", "answer"), ("id",), _gsm8k),
    Layout("plain, without rationales", _ALL, ("question", "answer"), ("id", "rationale"), _plain),
)
"""All layouts, a more specific one before a more general one."""
