"""From what a backend gave back to a graded record; the same way for models and baselines.

record = record_of(task, prompt, completion, mode="react", model="baseline:oracle")

A completion that is an error becomes a record without scores: it is never a wrong answer.
"""

from __future__ import annotations

import json

from pydantic import JsonValue

from papercore.generate.types import Completion, ErrorKind
from papercore.records import Record
from rotbench.baselines import write_call
from rotbench.cases import Case
from rotbench.config import Mode
from rotbench.grading import Answer, grade
from rotbench.markup import calls_in
from rotbench.native import RawCall
from rotbench.prompts import Prompt
from rotbench.tasks import Task

__all__ = ["MAX_STORED", "answer_of", "failed", "graded", "record_of"]

MAX_STORED = 20_000
"""Characters of an answer that are kept in its record. It is graded whole."""


def answer_of(prompt: Prompt, completion: Completion) -> Answer:
    """A completion as the grader reads it: calls read out and under the case's own names."""
    if prompt.toolbox is None:
        return Answer(completion.text)
    found: list[RawCall] = [(call.name, call.arguments) for call in completion.tool_calls]
    calls = found or calls_in(completion.text)
    return Answer(completion.text, tuple(prompt.toolbox.restored(call) for call in calls))


def record_of(
    task: Task, prompt: Prompt, completion: Completion, *, mode: Mode, model: str
) -> Record:
    """The record of a completion: graded, or an error without scores."""
    aliases = None if prompt.toolbox is None else prompt.toolbox.num_aliases
    if completion.finish_reason == "error":
        reason = completion.error or "the backend gave no reason"
        return failed(task, reason, mode=mode, model=model, kind=completion.error_kind)
    record = graded(task, answer_of(prompt, completion), mode=mode, model=model)
    record.data["finish_reason"] = completion.finish_reason
    if completion.usage.known:
        record.data["prompt_tok"] = completion.usage.prompt_tokens
        record.data["new_tok"] = completion.usage.completion_tokens
    if aliases is not None:
        record.data["aliases"] = aliases
    return record


def graded(task: Task, answer: Answer, *, mode: Mode, model: str) -> Record:
    """The record of an answer."""
    calls: list[JsonValue] = [
        {"name": name[:MAX_STORED], "arguments": arguments[:MAX_STORED]}
        for name, arguments in answer.tool_calls
    ]
    data: dict[str, JsonValue] = {
        **_about(task, mode, model),
        "text": _storable(answer.text[:MAX_STORED]),
        "text_chars": len(answer.text),
        "tool_calls": calls,
        **grade(task.case, answer, mode).to_json(),
        "best": _best(task.case, mode),
    }
    return Record(id=task.name, data=data)


def failed(
    task: Task, reason: str, *, mode: Mode, model: str, kind: ErrorKind | None = None
) -> Record:
    """The record of a case without an answer."""
    data: dict[str, JsonValue] = {**_about(task, mode, model), "error_kind": kind}
    return Record(id=task.name, status="error", error=reason or "no reason", data=data)


def _best(case: Case, mode: Mode) -> dict[str, JsonValue]:
    """Whether each scorer calls the first accepted answer right: where not, nobody can be right."""
    call = case.golds[0]
    if mode == "native":
        answer = Answer("", ((call.name, json.dumps(call.arguments, ensure_ascii=False)),))
    else:
        answer = Answer(write_call(call, mode))
    perfect = grade(case, answer, mode)
    return {"fixed": perfect.fixed.cf, "official": perfect.official.cf}


def _about(task: Task, mode: Mode, model: str) -> dict[str, JsonValue]:
    key = task.case.key
    return {
        "turn": key.turn,
        "level": key.level,
        "half": key.half,
        "index": key.index,
        "query": key.query,
        "scenario": task.case.scenario,
        "operators": list(task.operators()),
        "noise_seed": task.noise_seed,
        "model": model,
        "mode": mode,
    }


def _storable(text: str) -> str:
    """The text without halves of characters, which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
