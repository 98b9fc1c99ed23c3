r"""Where the steps of a text end: lines, sentences, logical lines of Python, matches of a regex.

    segments("One and one.\nThat is 2. Done.", "sentences")  # [13, 23, 29]

Ends are numbers of characters; the last one is the length of the text, and the pieces between them
are the text, nothing added and nothing lost. No torch here.
"""

from __future__ import annotations

import io
import re
import tokenize
from typing import Literal, TypeAlias

from papercore.errors import ConfigError

__all__ = ["TextRule", "segments"]

TextRule: TypeAlias = Literal["lines", "sentences", "code-lines", "regex"]
"""Rules that need the text alone; tokens are cut by their own boundaries."""

_ENDS = ".!?…"
_WIDE_ENDS = "。！？｡．"
"""Ends of sentences after which no blank is needed."""
_CLOSERS = "\"'”’»)]}*_$」』）】"
"""What may stand between the end of a sentence and the blank behind it."""
_NEVER = frozenset(
    [
        *("mr", "mrs", "ms", "dr", "prof", "st", "mt", "gen", "sen", "rep", "rev", "hon", "capt"),
        *("vs", "cf", "viz", "e.g", "i.e", "eg", "ie", "eq", "eqs", "fig", "figs", "approx", "ca"),
    ]
)
"""Abbreviations that something always follows."""
_BEFORE_NUMBERS = frozenset(["no", "nos", "nr", "p", "pp", "vol", "ch", "sec", "art", "op"])
"""Abbreviations if a number follows; the ends of sentences otherwise."""
_INITIALS = re.compile(r"(?:[A-Z]\.){0,5}[A-Z]")
_WORD = re.compile(r"[A-Za-z0-9.]{1,12}\Z")


def segments(text: str, rule: TextRule, regex: str | None = None) -> list[int]:
    """Ends of the steps of a text, rising; the last one is the end of the text.

    Args:
        rule: `lines` that are not empty (empty ones belong to the line before); `sentences`, which
            end at the ends of lines as well; `code-lines`, logical lines of Python, never inside
            brackets or a string over several lines (`lines` where the text is no Python); `regex`,
            wherever a match ends.
        regex: For `regex`. It is yours and runs unguarded: one that backtracks without bounds, such
            as `(a+)+b`, takes as long as it takes.

    Returns:
        None for an empty text.

    Raises:
        ConfigError: The regex is none.
    """
    if not text:
        return []
    if rule == "lines":
        return _lines(text)
    if rule == "sentences":
        return _sentences(text)
    if rule == "code-lines":
        return _code_lines(text)
    assert regex is not None, "the settings see to it"
    return _matches(text, regex)


def _lines(text: str) -> list[int]:
    """Lines with their line breaks and the empty lines behind them."""
    ends: list[int] = []
    at = 0
    for line in text.split("\n"):
        at = min(at + len(line) + 1, len(text))
        if ends and not line.strip():
            ends[-1] = at
        elif line.strip():
            ends.append(at)
    return ends or [len(text)]


def _sentences(text: str) -> list[int]:
    """Sentences, and what stands on a line of its own."""
    ends: list[int] = []
    at = 0
    for line_end in _lines(text):
        ends += _sentences_of(text, at, line_end)
        ends.append(line_end)
        at = line_end
    return ends


def _sentences_of(text: str, begin: int, end: int) -> list[int]:
    """Ends of the sentences within a line, the last one left out. The blank begins the next."""
    visible = begin + len(text[begin:end].rstrip())
    ends: list[int] = []
    at = begin
    while at < visible:
        if text[at] not in _ENDS and text[at] not in _WIDE_ENDS:
            at += 1
            continue
        dot = at
        while at < visible and text[at] in _ENDS + _WIDE_ENDS:
            at += 1
        wide = text[at - 1] in _WIDE_ENDS
        while at < visible and text[at] in _CLOSERS:
            at += 1
        since = ends[-1] if ends else begin
        if at < visible and (wide or (text[at].isspace() and _is_end(text, since, dot, at))):
            ends.append(at)
    return ends


def _is_end(text: str, begin: int, dot: int, at: int) -> bool:
    """Whether the mark at `dot` ends the sentence that began at `begin`; a blank is at `at`."""
    following = text[at : at + 20].lstrip()[:1]
    if following.islower():
        return False
    if text[dot] != "." or text[dot : dot + 2] == "..":
        return True
    found = _WORD.search(text, max(begin, dot - 12), dot)
    if found is None:
        return True
    word = found[0]
    if word.lower() in _NEVER or (_INITIALS.fullmatch(word) and word != "I"):
        return False
    if word.isdigit() and not text[begin : found.start()].strip(" \t(*-"):
        return False  # the number of a list's item
    return not (word.lower() in _BEFORE_NUMBERS and following.isdigit())


def _code_lines(text: str) -> list[int]:
    """Logical lines; empty ones belong to the line before, comments to the one behind."""
    if "\r" in text.replace("\r\n", ""):
        return _lines(text)  # Python's tokenizer would count other lines than we do
    begins = [0]
    for line in text.split("\n"):
        begins.append(begins[-1] + len(line) + 1)
    ends: list[int] = []
    after_line = False
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline="\n").readline):
            end = min(begins[token.end[0] - 1] + token.end[1], len(text))
            if token.type == tokenize.ERRORTOKEN:
                return _lines(text)
            if token.type == tokenize.NEWLINE:
                ends.append(end)
                after_line = True
            elif token.type == tokenize.NL and after_line:
                ends[-1] = end
            elif token.type not in {tokenize.INDENT, tokenize.DEDENT}:
                after_line = False
    except (tokenize.TokenError, SyntaxError, ValueError, IndexError):
        return _lines(text)
    return _rising(ends, text)


def _matches(text: str, regex: str) -> list[int]:
    """Ends of matches; an empty match ends a step where it is."""
    try:
        pattern = re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"cut.regex={regex!r} is no regular expression: {error}") from None
    return _rising([found.end() for found in pattern.finditer(text)], text)


def _rising(ends: list[int], text: str) -> list[int]:
    """The ends that are inside of a text, each once, and its own; no piece is blank.

    What is blank belongs to the piece before, at the beginning to the first one.
    """
    found: list[int] = []
    last = 0
    for end in sorted({*(one for one in ends if 0 < one < len(text)), len(text)}):
        if text[last:end].strip():
            found.append(end)
            last = end
        elif found:
            found[-1] = last = end
    return found or [len(text)]
