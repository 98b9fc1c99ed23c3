"""The official noise algorithm, re-stated plainly, on entries as the released files hold them.

It is what the tests compare `noise` with, in distribution, and the benchmark in speed. It was
written from a description of the algorithm, shares no code with `noise` and draws as the official
one does, with `random`. Two bugs of the official generator are mended, as in `official` mode: golds
of exchanged tools get their names, and turns of the assistant are texts.

    noisy = disturb_entry(entry, "heavy", "tool", random.Random(0))
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
import string
from typing import Any

from rotbench.cases import Half, Level

__all__ = ["disturb_entry"]

LETTERS = string.ascii_letters
Entry = dict[str, Any]


def disturb_entry(entry: Entry, level: Level, half: Half, rng: random.Random) -> Entry:
    """One disturbed entry; union draws a level for tools and one for parameters."""
    if level == "union":
        levels: list[Level] = ["slight", "medium", "heavy"]
        entry = disturb_entry(entry, rng.choice(levels), "tool", rng)
        return disturb_entry(entry, rng.choice(levels), "parameter", rng)
    entry = copy.deepcopy(entry)
    conversation = entry["conversations"]
    system = conversation[0]["value"]
    start = system.index("\n[{") + 1
    tools, end = json.JSONDecoder().raw_decode(system, start)
    golds = [parse(text) for text in conversation[-1]["value"]]
    if half == "tool":
        names = tool_names(level, tools, golds[0][0], rng)
        for tool, name in zip(tools, names.values(), strict=False):
            tool["name"] = name
        conversation[1:] = [rename_tools(turn, names) for turn in conversation[1:]]
    else:
        maps, added = parameter_names(level, tools, golds[0], rng)
        called = ""
        for turn in conversation[2:]:
            called = rename_parameters(turn, maps, added, called)
    conversation[0]["value"] = system[:start] + json.dumps(tools) + system[end:]
    return entry


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a call."""
    found = re.search(r"Action: (.*)\nAction Input: (.*)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"no call: {text!r}")
    return found[1], json.loads(found[2])


def tool_names(level: Level, tools: list[Entry], gold: str, rng: random.Random) -> dict[int, str]:
    """Place -> new name."""
    old = [tool["name"] for tool in tools]
    new = list(old)
    g = len(old) - 1 - old[::-1].index(gold) if gold in old else -1
    if level == "heavy":
        rng.shuffle(new)
        while g >= 0 and new[g] == old[g]:
            rng.shuffle(new)
    else:
        chosen = set(rng.sample(range(len(old)), math.ceil(len(old) / 2))) | {g}
        for place in range(len(old)):
            if place in chosen:
                new[place] = new_name(level, old[place], place == g, 10, rng)
    return dict(enumerate(new)) | {-1 - i: name for i, name in enumerate(old)}


def parameter_names(
    level: Level, tools: list[Entry], gold: tuple[str, dict[str, Any]], rng: random.Random
) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, str]]]:
    """Tool -> old to new names of its parameters; tool -> name and value of the added one."""
    maps: dict[str, dict[str, str]] = {}
    added: dict[str, tuple[str, str]] = {}
    real = tools[:-2]
    places = [i for i, tool in enumerate(real) if tool["name"] == gold[0]]
    chosen = set(rng.sample(range(len(real)), math.ceil(len(real) / 2))) | set(places[-1:])
    for place, tool in enumerate(real):
        schema = tool["parameters"]
        old = list(schema["properties"])
        new = list(old)
        keys = gold[1] if place in places[-1:] else {}
        if level == "heavy":
            if place not in chosen:
                continue
            if rng.random() < 0.5 or len(old) < 2:
                name, value = nonsense(5, rng), nonsense(3, rng)
                added[tool["name"]] = (name, value)
                schema["properties"][name] = {
                    "type": "string",
                    "description": f'Always give this parameter, and always set it to "{value}".',
                }
                schema["required"].append(name)
                continue
            rng.shuffle(new)
            while any(a == b and a in keys for a, b in zip(old, new, strict=True)):
                rng.shuffle(new)
        else:
            drawn = set(rng.sample(old, math.ceil(len(old) / 2))) | set(keys)
            new = [
                new_name(level, name, name in gold[1], 5, rng) if name in drawn else name
                for name in old
            ]
        names = dict(zip(old, new, strict=True))
        maps[tool["name"]] = names
        schema["properties"] = {names[name]: value for name, value in schema["properties"].items()}
        schema["required"] = [names.get(name, name) for name in schema["required"]]
    return maps, added


def new_name(level: Level, name: str, surely: bool, longest: int, rng: random.Random) -> str:
    """One disturbed name."""
    if level == "medium":
        if name == name[::-1] or rng.random() < 0.5:
            return nonsense(longest, rng)
        return name[::-1]
    most = math.ceil(len(name) / 3) - 1
    k = (1 if most <= 1 else rng.randint(1, most)) if surely else rng.randint(0, max(0, most))
    operator = rng.choice(["insertion", "omission", "substitution"])
    letters = list(name)
    for place in sorted(rng.sample(range(len(name)), k), reverse=True):
        if operator == "insertion":
            letters.insert(place, rng.choice(LETTERS))
        elif operator == "omission":
            letters.pop(place)
        else:
            letters[place] = rng.choice(LETTERS)
    return "".join(letters)


def nonsense(longest: int, rng: random.Random) -> str:
    """Random letters."""
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(1, longest)))


def rename_tools(turn: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    """A turn with other names of tools."""
    num = len(names) // 2
    new = {names[-1 - place]: names[place] for place in range(num)}
    value = turn["value"]
    if turn["from"] == "assistant" and isinstance(value, list):
        return {**turn, "value": [rename_action(text, new) for text in value]}
    if turn["from"] == "assistant":
        return {**turn, "value": rename_action(value, new)}
    if turn["from"] == "function":
        for place, name in enumerate(new):
            value = value.replace(name, f"<<<{place}>>>")
        for place, name in enumerate(new.values()):
            value = value.replace(f"<<<{place}>>>", name)
        return {**turn, "value": value}
    return turn


def rename_action(text: str, new: dict[str, str]) -> str:
    """A call with another name of its tool."""
    name, arguments = parse(text)
    return f"Thought:\nAction: {new.get(name, name)}\nAction Input: {json.dumps(arguments)}"


def rename_parameters(
    turn: dict[str, Any],
    maps: dict[str, dict[str, str]],
    added: dict[str, tuple[str, str]],
    called: str,
) -> str:
    """Renames parameters in a turn; gives the tool that was called last."""
    value = turn["value"]
    if turn["from"] == "function":
        if "argument" in value:
            for old, new in maps.get(called, {}).items():
                value = value.replace(f"'{old}'", f"'<<<{new}>>>'")
            turn["value"] = value.replace("<<<", "").replace(">>>", "")
        return called
    if turn["from"] != "assistant":
        return called
    texts = value if isinstance(value, list) else [value]
    done = []
    for text in texts:
        called, arguments = parse(text)
        names = maps.get(called, {})
        renamed = {names.get(key, key): item for key, item in arguments.items()}
        if called in added:
            renamed[added[called][0]] = added[called][1]
        done.append(f"Thought:\nAction: {called}\nAction Input: {json.dumps(renamed)}")
    turn["value"] = done if isinstance(value, list) else done[0]
    return called
