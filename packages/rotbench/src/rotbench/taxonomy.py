"""What went wrong with a call, in one word: the kinds exclude each other and sum to n.

    explain(case, prediction, scores).kind        # 'corrected_tool'

Read from top to bottom, the first that fits is the kind:

* `correct`: all three scores.
* `format`: no tool or no arguments could be read, whatever the tool was.
* `duplicate_keys`: the same key twice, so the call means two things.
* the tool is no gold's:
  `swapped_tool`: another tool of the environment (a literal `finish` is its last tool);
  `corrected_tool`: the name is nowhere in the environment, but it was the gold tool's clean name;
  `corrected_other`: the same, of another tool of the environment;
  `invented_tool`: a name that neither the disturbed nor the clean environment has.
* the keys are no gold's (compared with the gold of that tool that has the nearest keys):
  `corrected_key`: a key that the disturbed tool lacks, and that is the clean name of one missing;
  `addendum_missed`: only keys that the noise added, and told the model to set, are missing;
  `missing_key`: another key is missing (there may be extra ones as well);
  `extra_key`: nothing is missing, but something is too much.
* `wrong_value`: tool and keys are right.

Noise correction, the paper's mechanism for GPT models, is `corrected_tool`, `corrected_other` and
`corrected_key`. A wrong name that nearly is the clean one (`near_clean`) is counted apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from rotbench.cases import Call, Case, Tool
from rotbench.predictions import Prediction
from rotbench.scoring import FINISH, Scores, finish_name

__all__ = ["CORRECTIONS", "ERROR_KINDS", "KINDS", "ErrorKind", "Explained", "edits", "explain"]

ErrorKind: TypeAlias = Literal[
    "correct",
    "format",
    "duplicate_keys",
    "swapped_tool",
    "corrected_tool",
    "corrected_other",
    "invented_tool",
    "corrected_key",
    "addendum_missed",
    "missing_key",
    "extra_key",
    "wrong_value",
]
KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
ERROR_KINDS: tuple[ErrorKind, ...] = KINDS[1:]
CORRECTIONS: tuple[ErrorKind, ...] = ("corrected_tool", "corrected_other", "corrected_key")
"""The kinds that are noise correction: the model wrote the name that the noise had replaced."""

MAX_COMPARED = 128
"""Letters of a name that are compared when edits are counted."""


@dataclass(frozen=True, slots=True)
class Explained:
    """The kind of an error, and what else is worth knowing of it."""

    kind: ErrorKind
    clean_name: bool = False
    """The predicted name is the clean name of the gold's tool, and the gold now has another.
    With `swapped_tool` the name now belongs to another tool: the model followed the name."""
    near_clean: bool = False
    """With `invented_tool`: the name is nearer, in edits, to the gold tool's clean name than to its
    disturbed one, and shares more than half of the clean name's letters with it."""

    @property
    def corrected(self) -> bool:
        """Whether this is noise correction."""
        return self.kind in CORRECTIONS


def explain(case: Case, prediction: Prediction, scores: Scores) -> Explained:
    """Names the kind of error; `scores` are those of the default scorer for this prediction."""
    if scores.cf:
        return Explained("correct")
    if prediction.problem == "duplicate_keys":
        return Explained("duplicate_keys")
    if prediction.name is None or prediction.arguments is None:
        return Explained("format")
    if scores.pi:
        return Explained("wrong_value")
    if scores.ts:
        return Explained(_key_kind(case, prediction.name, frozenset(prediction.arguments)))
    return _tool_error(case, prediction.name)


def edits(a: str, b: str) -> int:
    """Insertions, omissions and substitutions between two names, long ones cut."""
    a, b = a[:MAX_COMPARED], b[:MAX_COMPARED]
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


def _tool_error(case: Case, name: str) -> Explained:
    """The tool is no gold's."""
    renamed = list(zip(case.golds, case.clean.golds, strict=False))
    clean_name = any(name == clean.name for _, clean in renamed)
    finish = finish_name(case)
    if (name == FINISH and finish is not None) or any(tool.name == name for tool in case.tools):
        return Explained("swapped_tool", clean_name=clean_name)
    if clean_name:
        return Explained("corrected_tool", clean_name=True)
    if any(tool.name == name for tool in case.clean.tools):
        return Explained("corrected_other")
    near = any(_nearer(name, clean.name, noisy.name) for noisy, clean in renamed)
    return Explained("invented_tool", near_clean=near)


def _nearer(name: str, clean: str, noisy: str) -> bool:
    to_clean = edits(name, clean)
    return to_clean < edits(name, noisy) and 2 * to_clean < len(clean)


def _key_kind(case: Case, name: str, keys: frozenset[str]) -> ErrorKind:
    """The tool is right, the keys are no gold's."""
    place = min(
        (i for i, gold in enumerate(case.golds) if _is_called(case, gold, name)),
        key=lambda i: _distance(keys, case.golds[i].arguments.keys()),
    )
    gold = case.golds[place]
    missing, extra = gold.arguments.keys() - keys, keys - gold.arguments.keys()
    here, clean = _tools_of(case, place)
    clean_of = _clean_keys(here, clean)
    if any(clean_of.get(key) in extra - here.parameters.keys() for key in missing):
        return "corrected_key"
    if not missing:
        return "extra_key"
    return "addendum_missed" if missing <= _added(here, clean) else "missing_key"


def _distance(keys: frozenset[str], wanted: AbstractSet[str]) -> tuple[int, int]:
    """Keys that are in one only; among equals, the more keys in common the nearer."""
    return len(keys ^ wanted), -len(keys & wanted)


def _is_called(case: Case, gold: Call, name: str) -> bool:
    return gold.name == name or (name == FINISH and gold.name == finish_name(case))


def _tools_of(case: Case, place: int) -> tuple[Tool, Tool]:
    """The tool that a gold calls, as it is and as it was; tools keep their places under noise.

    Several tools may share the name: then it is the one with most of the gold's keys.
    """
    gold = case.golds[place]
    keys = gold.arguments.keys()
    pairs = [
        (here, clean)
        for here, clean in zip(case.tools, case.clean.tools, strict=False)
        if here.name == gold.name
    ]
    if not pairs:
        unknown = Tool(gold.name, "", {})
        return unknown, unknown
    return max(pairs, key=lambda pair: len(keys & pair[0].parameters.keys()))


def _clean_keys(here: Tool, clean: Tool) -> Mapping[str, str]:
    """Disturbed name of a parameter -> its clean one, where they differ; they keep their places."""
    return {
        noisy: original
        for noisy, original in zip(here.parameters, clean.parameters, strict=False)
        if noisy != original
    }


def _added(here: Tool, clean: Tool) -> frozenset[str]:
    """Parameters that the noise has put behind the others."""
    return frozenset(list(here.parameters)[len(clean.parameters) :])
