"""Kinds of noise that the paper has not, off by default: `NoiseRules(extra=("casing",))`.

`casing` turns snake_case into camelCase and back in names that the level left as they were; `order`
shuffles the tools; `description` swaps neighbouring letters in words of descriptions.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rotbench.cases import Case, Tool
from rotbench.operators import Draw, shuffled

__all__ = ["recased", "reordered", "typos", "with_typos"]

TYPO_EVERY = 8
"""One word in so many of a description gets a typo. Ours."""

_WORD = re.compile(r"[^\W\d_]{4,}")


def recased(name: str) -> str:
    """`get_news` as `getNews` and back; a name of one word stays."""
    if re.search(r"[a-z0-9]_[a-z]", name):
        return re.sub(r"(?<=[a-z0-9])_([a-z])", lambda found: found[1].upper(), name)
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found[1].lower()}", name)


def reordered(case: Case, draw: Draw) -> Case:
    """The clean case with its tools in another order; the special ones stay last."""
    num_real = len(case.tools) - case.num_special
    real = shuffled(draw, case.tools[:num_real])
    return replace(case, tools=(*real, *case.tools[num_real:]))


def typos(text: str, draw: Draw) -> str:
    """Two neighbouring letters inside of some words change places; first and last letters stay."""

    def swap(found: re.Match[str]) -> str:
        word = found[0]
        if draw() * TYPO_EVERY >= 1:
            return word
        place = 1 + int(draw() * (len(word) - 3))
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return _WORD.sub(swap, text)


def with_typos(tool: Tool, draw: Draw, *, spared: str | None = None) -> Tool:
    """The tool with typos in its description and those of its parameters.

    Args:
        tool: As the noise left it.
        draw: Random numbers.
        spared: A parameter that the noise added: its description orders a value, letter by letter.
    """
    parameters = {
        name: {**schema, "description": typos(text, draw)}
        if name != spared and isinstance(text := schema.get("description"), str)
        else schema
        for name, schema in tool.parameters.items()
    }
    return replace(tool, description=typos(tool.description, draw), parameters=parameters)
