"""The official scorer as it is, faults included, except that it never crashes.

    score_text(case, answer).scores
    score_text(case, answer, version=2).crash      # what the official run dies of, or None

What it does, and `scoring` does not (each has a test):

* The tool is what stands between the first `Action:` (and one more character) and the first
  `Action Input:`, less one line break; nothing is stripped.
* An answer whose arguments cannot be parsed, or are an empty object, scores 0 on everything.
* Wildcards are dropped from the prediction itself, so the order of the golds matters.
* A gold call whose tool happens to be named `finish` or `ask_to_user` has free values.
* `finish` becomes the last tool's name for all golds that follow the one that asks for it.

Source: official evaluation script, re-stated; NexusRaven's answers are read in `raven_official`.
Deviation: where the script crashes, and with it the whole run, the case scores 0 and says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rotbench.cases import ANY_VALUE, NUM_SPECIAL, Case
from rotbench.crashes import Crash, Crashed
from rotbench.literals import nesting
from rotbench.predictions import MAX_TEXT
from rotbench.raven_official import read_raven
from rotbench.scoring import FINISH, NO_SCORES, Scores

__all__ = ["OfficialScores", "Version", "react_text", "score_text"]

Version: TypeAlias = Literal[0, 1, 2]
"""0: ReAct text; 1 and 2: answers of NexusRaven v1 and v2."""
ASK = "ask_to_user"
MAX_DEPTH = 500
"""Where `json` gives up depends on the interpreter; from here on it counts as given up."""

_FAILED = 0
"""What the script calls arguments that it could not parse."""


@dataclass(frozen=True, slots=True)
class OfficialScores:
    """What the official scorer says."""

    scores: Scores
    crash: Crash | None = None


def score_text(case: Case, text: str, version: Version = 0) -> OfficialScores:
    """Scores one answer."""
    if len(text) > MAX_TEXT:
        return OfficialScores(NO_SCORES, "too_long")
    try:
        if version:
            name, arguments = read_raven(text, version, case.tools)
        else:
            name, arguments = _read_react(text)
        return OfficialScores(_compare(case, name, arguments))
    except Crashed as crashed:
        return OfficialScores(NO_SCORES, crashed.crash)


def react_text(name: str, arguments: str) -> str:
    """A call of a tool interface as the text that the official scorer reads."""
    return f"Thought:\nAction: {name}\nAction Input: {arguments}"


def _read_react(text: str) -> tuple[str, object]:
    """Name and arguments; a missing label is -1, as `str.find` has it, and cuts somewhere."""
    given = text.find("Action Input:")
    name = text[text.find("Action:") + 8 : given]
    if not name:
        raise Crashed("IndexError")
    return name.removesuffix("\n"), _read_json(text, given + 14)


def _read_json(text: str, start: int) -> object:
    if nesting(text, start) > MAX_DEPTH:
        raise Crashed("RecursionError")
    try:
        value: object = json.loads(text[start:])
    except json.JSONDecodeError:
        return _FAILED
    except ValueError:  # an integer of more than 4,300 digits
        raise Crashed("ValueError") from None
    except RecursionError:
        raise Crashed("RecursionError") from None
    return _FAILED if isinstance(value, str) else value


def _compare(case: Case, name: str, arguments: object) -> Scores:
    if not arguments:
        return NO_SCORES
    special = [tool.name for tool in case.tools[-NUM_SPECIAL:]] if case.num_special else []
    last = special[-1] if special else None
    ts = pi = False
    left: dict[object, object] = {}
    for gold in case.golds:
        if name == FINISH and gold.name == last:
            name = gold.name
        if gold.name != name:
            continue
        if not isinstance(arguments, dict):
            raise Crashed("AttributeError")
        if not ts:
            ts, left = True, dict(arguments)
        pi = pi or gold.arguments.keys() == arguments.keys()
        if gold.arguments.keys() != left.keys():
            continue
        wanted = {key: item for key, item in gold.arguments.items() if item != ANY_VALUE}
        left = {key: left[key] for key in wanted}
        if wanted == left or gold.name in special or gold.name in (FINISH, ASK):
            return Scores(ts=True, pi=True, cf=True)
    return Scores(ts=ts, pi=pi, cf=False)
