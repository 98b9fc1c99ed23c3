"""The miniature's world: environments of three tools whose names nearly follow from what they do.

A tool does something to something (`find hotel`); its clean name is the stems of both words and one
letter drawn at random (`xwqak`), so a name can be guessed but for its end. Parameters are named the
same way. A query gives values and says what is wanted. Everything is a `rotbench.cases.Case`, so
the package's own noise, reader and scorer work on it; `prompt_tokens` and `answer_tokens` write it
for a model with one token per letter, and `answer_text` turns the answer back into text.

    cases = draw_episode(random.Random(0), index=0)
    prompt_tokens(cases[0]) + answer_tokens(cases[0].golds[0])

Source: spec 8.1. No torch here.
"""

import hashlib
import random
import string
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from rotbench.cases import Call, Case, CaseKey, Tool
from rotbench.config import NoiseRules

__all__ = [
    "MARKS",
    "MAX_ANSWER_TOK",
    "NUM_TOOLS",
    "RULES",
    "STEM",
    "STEMS",
    "WORDS",
    "answer_text",
    "answer_tokens",
    "content_hash",
    "draw_episode",
    "draw_records",
    "prompt_tokens",
    "query_tokens",
    "rename_by_place",
    "tools_tokens",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TOOL, PARAMETER, QUERY, CALL, IS, STRING = MARKS = _words(
    "<tool> <parameter> <query> <call> = <string>"
)
"""Marks before the name of a tool, before that of a parameter, before a query, before a call,
between the name of a parameter and its value, and before a string that is to be copied."""
END = "<eos>"
"""Ends a call; the tokenizer brings it along."""

LETTERS = tuple(string.ascii_lowercase)
VERBS = _words("find book send read move copy join play lend make turn draw")
NOUNS = _words(
    "hotel train movie song mail file note loan car room game photo stock ticket recipe bill"
)
KINDS = _words("city date price name size color genre time limit owner style unit")
"""What parameters are for."""
VALUES = _words(
    "paris oslo rome lima cairo delhi quito seoul milan porto "
    "red blue green black white gold pink gray small large "
    "early late daily weekly monday friday june july north south "
    "east west basic super jazz rock metric euro dollar yen"
)
WORDS = (*MARKS, *LETTERS, *VERBS, *NOUNS, *KINDS, *VALUES)
"""The vocabulary but for the tokenizer's own three."""


STEM = 2
"""Letters of a stem."""


def _draw_stems() -> dict[str, str]:
    """A stem per word, the same in every run; words of one kind have different ones.

    Letters are drawn at random. With the first letters of the words, names of an environment share
    so many pairs of letters (`re`, `le`) that a model that copies loses its place.
    """
    rng = random.Random("rotbench/stems")
    stems_of_all = ["".join(letters) for letters in product(LETTERS, repeat=STEM)]
    stems: dict[str, str] = {}
    for words in (VERBS, NOUNS, KINDS):
        stems.update(zip(words, rng.sample(stems_of_all, len(words)), strict=True))
    return stems


STEMS = _draw_stems()
NUM_TOOLS = 3
NUM_PARAMETERS = 2

RULES = NoiseRules(
    alphabet=string.ascii_lowercase, nonsense_tool=7, nonsense_parameter=5, addendum=0.0
)
"""The noise of this world: letters it has, made-up names about as long as its own, and no added
parameters, whose order the model could not read."""

MAX_ANSWER_TOK = RULES.nonsense_tool + NUM_PARAMETERS * (RULES.nonsense_parameter + 3) + 1
"""Tokens of the longest right answer."""


def draw_episode(rng: random.Random, index: int) -> tuple[Case, ...]:
    """An environment with one clean case per tool, in random order.

    Args:
        rng: Where everything is drawn from.
        index: Number of the cases; they have the same, for they share an environment.
    """
    pairs = rng.sample([(verb, noun) for verb in VERBS for noun in NOUNS], NUM_TOOLS)
    tools = tuple(_draw_tool(rng, verb, noun) for verb, noun in pairs)
    asked = rng.sample(range(NUM_TOOLS), NUM_TOOLS)
    return tuple(_draw_case(rng, index, tools, place) for place in asked)


def draw_records(rng: random.Random, count: int) -> tuple[list[str], list[bool]]:
    """Keys with random strings, then the same in another order.

    Returns:
        The tokens, and which of them a model can know: the strings where they stand again.
    """
    records = [_draw_record(rng) for _ in range(count)]
    tokens, known = [], []
    for again, order in enumerate((records, rng.sample(records, count))):
        for key, letters in order:
            tokens += [*key, STRING, *letters]
            known += [False] * (len(key) + 1) + [bool(again)] * len(letters)
    return tokens, known


def rename_by_place(case: Case, disturbed: Case) -> Case:
    """A clean case as it is in the disturbed version of its environment: its call follows by place.

    Noise moves names over definitions and never moves a definition.
    """
    call = case.golds[0]
    place = [tool.name for tool in case.tools].index(call.name)
    old, new = case.tools[place], disturbed.tools[place]
    names = dict(zip(old.parameters, new.parameters, strict=True))
    arguments = {names[key]: value for key, value in call.arguments.items()}
    return replace(
        case,
        key=disturbed.key,
        tools=disturbed.tools,
        golds=(Call(new.name, arguments),),
        origin=None if disturbed.origin is None else case,
    )


def prompt_tokens(case: Case) -> list[str]:
    """What a model reads before it answers one query."""
    return [*tools_tokens(case.tools), *query_tokens(case)]


def tools_tokens(tools: Sequence[Tool]) -> list[str]:
    """The environment: what each tool does and its name, then the same for its parameters."""
    tokens = []
    for tool in tools:
        tokens += [*tool.description.split(), TOOL, *tool.name]
        for name, schema in tool.parameters.items():
            tokens += [str(schema["description"]), PARAMETER, *name]
    return tokens


def query_tokens(case: Case) -> list[str]:
    """A query, up to where the call begins."""
    return [QUERY, *case.query.split(), CALL]


def answer_tokens(call: Call) -> list[str]:
    """A call and its end."""
    tokens = [*call.name]
    for name, value in call.arguments.items():
        tokens += [PARAMETER, *name, IS, str(value)]
    return [*tokens, END]


def answer_text(tokens: Sequence[str]) -> str:
    """What a model wrote, in the form that the package reads: Thought, Action, Action Input.

    A piece that is no `name = value` stays as it is, so that the input is no JSON.
    """
    name, *pieces = _split(tokens, PARAMETER)
    arguments = ", ".join(_argument(piece) for piece in pieces)
    return f"Thought:\nAction: {''.join(name)}\nAction Input: {{{arguments}}}"


def content_hash(tokens: Sequence[str]) -> str:
    """Hash of what a text says, whatever made it."""
    return hashlib.sha256(" ".join(tokens).encode()).hexdigest()[:16]


def _draw_tool(rng: random.Random, verb: str, noun: str) -> Tool:
    kinds = rng.sample(KINDS, NUM_PARAMETERS)
    names = [_name(rng, kind) for kind in kinds]
    schemas = [{"type": "string", "description": kind} for kind in kinds]
    return Tool(
        name=_name(rng, verb, noun),
        description=f"{verb} {noun}",
        parameters=dict(zip(names, schemas, strict=True)),
        required=tuple(names),
    )


def _name(rng: random.Random, *words: str) -> str:
    return _stems(*words) + rng.choice(LETTERS)


def _stems(*words: str) -> str:
    return "".join(STEMS[word] for word in words)


def _draw_case(rng: random.Random, index: int, tools: tuple[Tool, ...], place: int) -> Case:
    tool = tools[place]
    values = {name: rng.choice(VALUES) for name in tool.parameters}
    given = [f"{tool.parameters[name]['description']} {value}" for name, value in values.items()]
    return Case(
        key=CaseKey("first", "clean", "whole", index),
        query=" ".join([*given, tool.description]),
        scenario="",
        preamble="",
        tools=tools,
        closing="",
        steps=(),
        golds=(Call(tool.name, values),),
        num_special=0,
    )


def _draw_record(rng: random.Random) -> tuple[list[str], list[str]]:
    key = [rng.choice(VERBS), rng.choice(NOUNS)]
    return key, rng.choices(LETTERS, k=rng.randint(3, RULES.nonsense_tool))


def _split(tokens: Sequence[str], mark: str) -> list[list[str]]:
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if token == mark:
            pieces.append([])
        elif token != END:
            pieces[-1].append(token)
    return pieces


def _argument(piece: Sequence[str]) -> str:
    if IS not in piece:
        return " ".join(piece)
    at = list(piece).index(IS)
    return f'"{"".join(piece[:at])}": "{" ".join(piece[at + 1 :])}"'
