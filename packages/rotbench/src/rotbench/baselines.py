"""Answers without a model: they bound what scores mean.

    generator = BaselineGenerator("lexical", prompts, mode="react")

`oracle` gives the first accepted call, `random` any tool, `first` the first tool, `lexical` the
tool whose words are most like the query's. All but the oracle fill in what a tool requires from the
query. A baseline is a backend like any other: its answers are texts in the format of the mode and
go the way of a model's.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import JsonValue

from papercore.errors import ConfigError
from papercore.generate.types import Completion, Request, ToolCall, Usage
from papercore.seeds import fan_out
from rotbench.cases import Call, Case, Tool
from rotbench.config import Mode
from rotbench.prompts import Prompt
from rotbench.raven_prompts import python_call
from rotbench.rewrite import call_text

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineGenerator",
    "baseline_call",
    "baseline_of",
    "write_call",
]

Baseline = Literal["oracle", "random", "first", "lexical"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
SCHEME = "baseline:"
_NO_COUNT = Usage(known=False)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_QUOTED = re.compile(r"'([^'\n]{1,200})'|\"([^\"\n]{1,200})\"|\u201c([^\u201d\n]{1,200})\u201d")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NAME = re.compile(r"(?<![.?!] )(?<!^)\b[A-Z][\w-]*(?: [A-Z][\w-]*)*")
_NUMERIC = frozenset(
    {"amount", "count", "integer", "limit", "max", "number", "page", "size", "year"}
)
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can do for from have how i in is it me my of on or please the "
        "this to tool used user want what which with you your",
    )
)


def baseline_of(model: str) -> Baseline | None:
    """The baseline that a model reference names, with or without `baseline:` before it.

    Raises:
        ConfigError: It begins with `baseline:` but there is none of that name.
    """
    name = model.removeprefix(SCHEME)
    for known in BASELINES:
        if name == known:
            return known
    if model.startswith(SCHEME):
        raise ConfigError(f"there is no baseline {name!r} (there are: {', '.join(BASELINES)})")
    return None


def baseline_call(baseline: Baseline, case: Case, seed: int = 0) -> Call:
    """What a baseline answers; `random` depends on the seed and the case's key alone."""
    if baseline == "oracle":
        return case.golds[0]
    if baseline == "random":
        draw = random.Random(fan_out(seed, f"baseline/{case.key}"))
        tool = draw.choice(case.tools)
    elif baseline == "first":
        tool = case.tools[0]
    else:
        tool = _most_alike(case)
    return Call(tool.name, _filled(tool, case.query))


def write_call(call: Call, mode: Mode) -> str:
    """A call as a model writes it, in the modes that are text."""
    if mode == "raven1":
        return f"Initial Answer: {python_call(call)}\nReflection: "
    if mode == "raven2":
        return f"Call: {python_call(call)} \nThought: "
    return f"Thought:\n{call_text(call)}"


class BaselineGenerator:
    """A baseline as a backend, for the prompts that it will be asked."""

    def __init__(
        self, baseline: Baseline, prompts: Sequence[Prompt], *, mode: Mode = "react", seed: int = 0
    ) -> None:
        """Keeps the cases, since their keys and accepted calls are not in the requests."""
        self._baseline = baseline
        self._prompts = {prompt.request.id: prompt for prompt in prompts}
        self._mode = mode
        self._seed = seed

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completes every request."""
        return [self._answer(self._prompts[request.id]) for request in requests]

    def _answer(self, prompt: Prompt) -> Completion:
        call = baseline_call(self._baseline, prompt.case, self._seed)
        name = prompt.request.id
        if prompt.toolbox is not None:
            alias, arguments = prompt.toolbox.disguised(call.name, call.arguments)
            made = ToolCall(id="call00000", name=alias, arguments=arguments)
            return Completion(id=name, tool_calls=(made,), finish_reason="stop", usage=_NO_COUNT)
        text = write_call(call, self._mode)
        return Completion(id=name, text=text, finish_reason="stop", usage=_NO_COUNT)


def _most_alike(case: Case) -> Tool:
    """The tool with most of the query's words, rare ones counting more; the first of equals."""
    bags = [Counter(_words(_shown(tool))) for tool in case.tools]
    spread = Counter(word for bag in bags for word in bag)
    weight = {word: math.log(1 + len(bags) / count) for word, count in spread.items()}
    asked = set(_words(case.query))

    def likeness(bag: Counter[str]) -> float:
        norm = math.sqrt(sum((count * weight[word]) ** 2 for word, count in bag.items()))
        return sum(bag[word] * weight[word] ** 2 for word in asked & bag.keys()) / (norm or 1.0)

    best = max(range(len(bags)), key=lambda place: (likeness(bags[place]), -place))
    return case.tools[best]


def _shown(tool: Tool) -> str:
    schemas = (
        f"{name} {schema.get('description', '')}" for name, schema in tool.parameters.items()
    )
    return " ".join([tool.name, tool.description, *schemas])


def _words(text: str) -> list[str]:
    """Words in lower case without a plural's s, names such as `getWeather_now` taken apart."""
    found = (word.lower() for word in _WORD.findall(text))
    return [
        word.removesuffix("s") if len(word) > 3 else word for word in found if word not in _STOP
    ]


def _filled(tool: Tool, query: str) -> dict[str, JsonValue]:
    """What a tool requires, from quoted texts, numbers and names of the query in their order."""
    texts = [next(filter(None, match)) for match in _QUOTED.findall(query)]
    texts += [name for name in _NAME.findall(query) if name not in texts]
    numbers = _NUMBER.findall(query)
    arguments: dict[str, JsonValue] = {}
    for key in tool.required:
        pool = numbers if _wants_number(key, tool) and numbers else texts
        arguments[key] = pool.pop(0) if pool else query
    return arguments


def _wants_number(key: str, tool: Tool) -> bool:
    schema = tool.parameters.get(key, {})
    words = _words(f"{key} {schema.get('description', '')}")
    return schema.get("type") in ("integer", "number") or not _NUMERIC.isdisjoint(words)
