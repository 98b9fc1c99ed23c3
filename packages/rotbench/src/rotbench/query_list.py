"""Reading the queries that a model wrote: numbered, with bullets, as JSON, or one per line.

    read_queries(completion.text)      # ["Book a table for two.", "Find a film for tonight."]

Models are asked for a numbered list and write what they like. Nothing is evaluated, and every text
gives a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice

__all__ = ["MAX_CHARS", "MIN_WORDS", "read_queries"]

MAX_CHARS = 1_000
"""Longest query; whatever is longer is no query."""
MIN_WORDS = 3
"""Fewer words are no task."""

_MARK = re.compile(
    r"\s*(?:#{1,4}\s*)?(?:\(?\d{1,3}[.):、]\)?|[-*•–]|(?:query|task|question)\s*\d{0,3}\s*:)\s+(?=\S)",
    re.IGNORECASE,
)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*+"')
_FENCE = re.compile(r"```[\w-]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_FIELDS = ("query", "question", "task", "text", "instruction")
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}
_MAX_LISTS = 20
_DECODER = json.JSONDecoder()


def read_queries(text: str, *, complete: bool = True) -> list[str]:
    """The queries in a reply, in order, each once.

    Args:
        text: The reply.
        complete: False if it was cut off; the last query is then left out, since its end lacks.
    """
    found = _from_json(text)
    if found is None:
        found = _from_lines(text)
        if not complete:
            found = found[:-1]
    queries = (_clean(one) for one in found)
    return list(dict.fromkeys(query for query in queries if query))


def _from_json(text: str) -> list[str] | None:
    """The texts of the first JSON list that has some; of a torn list, those that are whole."""
    fenced = _FENCE.search(text)
    for part in (fenced[1], text) if fenced else (text,):
        for found in islice(re.finditer(r"\[", part), _MAX_LISTS):
            try:
                value, _ = _DECODER.raw_decode(part, found.start())
            except (ValueError, RecursionError):
                continue
            queries = list(_texts(value))
            if queries:
                return queries
        if part.lstrip().startswith(("[", "{")):
            return [json.loads(one) for one in _STRING.findall(part)]
    return None


def _texts(value: object) -> Iterator[str]:
    for item in value if isinstance(value, list) else ():
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from (item[name] for name in _FIELDS if isinstance(item.get(name), str))


def _from_lines(text: str) -> list[str]:
    """Marked items with the lines that belong to them; without any mark, every line is one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("```")]
    items: list[str] = []
    ended = True
    for line in lines:
        mark = _MARK.match(line)
        if mark:
            items.append(line[mark.end() :])
            ended = False
        elif not line.strip():
            ended = True
        elif not ended:
            items[-1] += " " + line.strip()
    if items:
        return items
    return [line for line in lines if line.strip() and not line.rstrip().endswith(":")]


def _clean(text: str) -> str:
    """One line without bold marks and quotes around it; empty if it is no query."""
    query = " ".join(text.split()).removeprefix("**").removesuffix("**").strip()
    while len(query) > 1 and _QUOTES.get(query[0]) == query[-1]:
        query = query[1:-1].strip()
    long_enough = len(query.split()) >= MIN_WORDS or (not query.isascii() and len(query) >= 6)
    return query if long_enough and len(query) <= MAX_CHARS else ""
