"""Where demonstrations are cut: at steps of the text, on token ids, and without any loss.

    encoded, counts = encode_all(demos, tokenizer, prompt, cut, "gsm8k")
    states = starts(encoded, cut)

A demonstration is tokenized once, as a whole, and its cuts are numbers of these tokens: prefix and
rest together always are the demonstration. A boundary of a step that lies inside a token moves to
the end of that token. No prefix reaches into the statement of the answer or states one itself;
boundaries where it would are left out and counted. No torch here.

Deviation: official data were cut as text and joined with blanks, which changed most rationales.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from r3.config import CutConfig, PromptConfig
from r3.demos import Demo, Encoded, Start
from r3.prompting import prompt_ids, target_ids
from r3.steps import segments
from r3.tasks import task_named
from r3.verifiers import verifier_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Cuts",
    "cut_points",
    "encode",
    "encode_all",
    "find_cuts",
    "segments",
    "starts",
    "within",
]

Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Cuts:
    """Where one demonstration may be cut.

    Attributes:
        points: Numbers of tokens that a prefix may hold, rising, the first one 0.
        moved: Boundaries of steps that lay inside a token.
        met: Boundaries that fell on the token end of another one.
        behind: Boundaries whose token reaches into the statement of the answer.
        leaking: Boundaries behind something that reads as a statement of an answer.
        uniform: Whether `auto` cut at tokens, since the rationale has no lines.
    """

    points: tuple[int, ...]
    moved: int = 0
    met: int = 0
    behind: int = 0
    leaking: int = 0
    uniform: bool = False


def cut_points(
    text: str, spans: Sequence[Span], *, answer_at: int, cut: CutConfig
) -> tuple[int, ...]:
    """Numbers of tokens after which a demonstration may be cut; see `find_cuts`."""
    return find_cuts(text, spans, answer_at=answer_at, cut=cut).points


def find_cuts(
    text: str,
    spans: Sequence[Span],
    *,
    answer_at: int,
    cut: CutConfig,
    or_tokens: bool = False,
    leaks: Callable[[str], bool] | None = None,
) -> Cuts:
    """Where a demonstration may be cut.

    Args:
        text: The demonstration.
        spans: Characters that each of its tokens stands for, begin and end, as `target_ids` gives.
        answer_at: Where the statement of the answer begins; it is one step, and the last one.
        cut: What a step is, and how many at the end stay; `auto` must have been resolved.
        or_tokens: Cut at tokens where no step ends before the answer. Source: 2402.05808 (notes):
            line breaks where the rationale has lines, otherwise uniform cuts.
        leaks: Whether a prefix states an answer.

    Raises:
        ConfigError: The regex is none.
    """
    assert cut.rule != "auto", "the task says what it is"
    spans = _closed(spans)
    at_tokens = [end for end in _token_ends(spans) if end <= answer_at]
    ends = at_tokens
    if cut.rule != "tokens":
        ends = segments(text, cut.rule, cut.regex)
        ends = [end for end in ends if end <= answer_at and end < len(text)]
    uniform = or_tokens and not ends and bool(at_tokens)
    if uniform:
        ends = at_tokens
    found = _at_tokens(text, spans, ends, answer_at, leaks)
    kept = max(1, len(found.points) - (cut.tail - 1))
    return replace(found, points=found.points[:kept], uniform=uniform)


def encode(
    demo: Demo,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    cut: CutConfig,
    task: str,
) -> Encoded:
    """A demonstration as token ids with its cuts.

    Raises:
        ConfigError: The prompt does not fit the model, or the regex is none.
        ModelError: The tokenizer cannot do what is needed.
    """
    return _encoded(demo, tokenizer, prompt, cut, task)[0]


def encode_all(
    demos: Sequence[Demo],
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    cut: CutConfig,
    task: str,
) -> tuple[list[Encoded], dict[str, int]]:
    """All demonstrations, and what was met while they were cut.

    Returns:
        The demonstrations, in their order; and counts: `demos`; `cuts`, the bare questions among
        them; `only_question`, demonstrations that cannot be cut; `moved`, `met`, `behind`,
        `leaking`, boundaries as `Cuts` says; `uniform`, rationales without lines.

    Raises:
        ConfigError: The prompt does not fit the model, or the regex is none.
        ModelError: The tokenizer cannot do what is needed.
    """
    counts = Counter(dict.fromkeys((*_COUNTED, "demos", "cuts", "only_question", "uniform"), 0))
    encoded: list[Encoded] = []
    for demo in demos:
        one, cuts = _encoded(demo, tokenizer, prompt, cut, task)
        encoded.append(one)
        counts.update({name: getattr(cuts, name) for name in _COUNTED})
        counts.update(
            demos=1,
            cuts=len(cuts.points),
            only_question=int(len(cuts.points) == 1),
            uniform=int(cuts.uniform),
        )
    return encoded, dict(counts)


def starts(encoded: Sequence[Encoded], cut: CutConfig) -> list[Start]:
    """Start states of demonstrations, those that fall together merged, with their weights added.

    State k of M, from k = 0, the bare question, stands behind round(T * k / M) of T steps, halves
    rounded down, and never so far back that fewer steps than `tail` are left. Each demonstration
    has M shares, however few different states it has.

    Source: inferred from the official data: T=7 and M=5 give 0, 1, 3, 4, 6; T=6 gives 0, 1, 2, 4,
    5; T=4 has 2 twice. Its programs are cut by the same rule and M, T counting all their lines,
    signature and docstring too: T=8 gives 0, 2, 3, 5, 6 (44 of 44 records that were looked at).
    """
    found: list[Start] = []
    for index, one in enumerate(encoded):
        places = _places(len(one.cuts), cut)
        length = max(1, len(one.target) - 1)  # the last token is the end of the sequence
        for depth, place in enumerate(sorted(places)):
            at = one.cuts[place]
            found.append(Start(index, at, depth, at / length, places[place]))
    return found


def within(
    states: Sequence[Start], encoded: Sequence[Encoded], max_length: int
) -> tuple[list[Start], int]:
    """The states whose question and prefix leave room for a token, and how many have none.

    A prefix is never shortened to fit. Of a demonstration whose longest prefixes do not fit, the
    other states stay with their weights.
    """
    kept = [
        state for state in states if len(encoded[state.demo].prompt) + state.cut + 1 <= max_length
    ]
    return kept, len(states) - len(kept)


_COUNTED = ("moved", "met", "behind", "leaking")


def _encoded(
    demo: Demo,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    cut: CutConfig,
    task: str,
) -> tuple[Encoded, Cuts]:
    own = task_named(task).cut
    chosen = cut if cut.rule != "auto" else cut.model_copy(update={"rule": own})
    target = target_ids(tokenizer, demo.target)
    cuts = find_cuts(
        demo.target,
        target.spans[:-1],
        answer_at=demo.answer_at,
        cut=chosen,
        or_tokens=cut.rule == "auto" and own == "lines",
        leaks=verifier_for(task).states_answer,
    )
    asked = prompt_ids(tokenizer, demo.question, prompt)
    return Encoded(demo, asked, target.ids, cuts.points), cuts


def _places(num: int, cut: CutConfig) -> Counter[int]:
    """Which of a demonstration's cuts are start states, and how many of the M shares each has."""
    if cut.states == "all":
        return Counter(range(num))
    steps, shares = num + cut.tail - 1, cut.states
    # round(steps * k / shares), halves down, in whole numbers
    rounded = (-((shares - 2 * steps * k) // (2 * shares)) for k in range(shares))
    return Counter(min(place, num - 1) for place in rounded)


def _closed(spans: Sequence[Span]) -> list[Span]:
    """Spans in which a token without characters has those that the one before it left out.

    Some tokenizers trim blanks off their spans, and a token of blanks alone then has none.
    """
    found: list[Span] = []
    reached = 0
    for begin, end in spans:
        found.append((reached if begin == end else begin, end))
        reached = end
    return found


def _token_ends(spans: Sequence[Span]) -> list[int]:
    """Where a token ends and a character does, too; the last token has nothing behind it."""
    pairs = pairwise(spans)
    return [end for (begin, end), (following, _) in pairs if following >= end > begin]


def _at_tokens(
    text: str,
    spans: Sequence[Span],
    ends: Sequence[int],
    answer_at: int,
    leaks: Callable[[str], bool] | None,
) -> Cuts:
    """The ends of steps as numbers of tokens, without those that must not be."""
    points = [0]
    moved = met = behind = leaking = 0
    num = 0
    for end in ends:
        while num < len(spans) and spans[num][0] < end:
            num += 1
        reached = _reach(spans, num)
        while num < len(spans) and spans[num][0] < reached:
            num += 1
            reached = _reach(spans, num)
        moved += reached > end
        if reached > answer_at or num == len(spans):
            behind += 1
        elif num == points[-1]:
            met += 1
        elif leaking or (leaks is not None and leaks(text[:reached])):
            leaking += 1  # so does every longer prefix
        else:
            points.append(num)
    return Cuts(tuple(points), moved, met, behind, leaking)


def _reach(spans: Sequence[Span], num: int) -> int:
    """How far the first tokens reach, in characters."""
    return spans[num - 1][1] if num else 0
