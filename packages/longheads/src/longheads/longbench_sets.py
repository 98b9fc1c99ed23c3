"""The 16 English sets of LongBench: kind of task, score, length of the answer. No torch here.

SETS["hotpotqa"].max_new_tok

LongBench: Bai et al., arXiv 2308.14508, github.com/THUDM/LongBench (code: MIT).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast, get_args

SetName = Literal[
    "narrativeqa",
    "qasper",
    "multifieldqa_en",
    "hotpotqa",
    "2wikimqa",
    "musique",
    "gov_report",
    "qmsum",
    "multi_news",
    "trec",
    "triviaqa",
    "samsum",
    "passage_count",
    "passage_retrieval_en",
    "lcc",
    "repobench-p",
]
Category = Literal["single-doc", "multi-doc", "summary", "few-shot", "synthetic", "code"]
Metric = Literal["f1", "rouge_l", "classification", "retrieval", "count", "code_similarity"]

SET_NAMES: tuple[SetName, ...] = get_args(SetName)
CATEGORIES: tuple[Category, ...] = get_args(Category)


@dataclass(frozen=True)
class TaskSet:
    """A set of LongBench.

    Attributes:
        category: one of the six kinds that the benchmark averages over.
        metric: how an answer is scored.
        max_new_tok: tokens that an answer may have.
        first_line: only the first line of an answer is scored.
        chat: chat models get the prompt through their chat template.
        stops_at_newline: an answer ends with its first line already while it is written.
        extended: LongBench-E has this set too.
    """

    category: Category
    metric: Metric
    max_new_tok: int
    first_line: bool = False
    chat: bool = True
    stops_at_newline: bool = False
    extended: bool = True


# source: LongBench's config/dataset2maxlen.json, eval.py and pred.py; categories: its README
SETS: Mapping[SetName, TaskSet] = MappingProxyType(
    {
        "narrativeqa": TaskSet("single-doc", "f1", 128, extended=False),
        "qasper": TaskSet("single-doc", "f1", 128),
        "multifieldqa_en": TaskSet("single-doc", "f1", 64),
        "hotpotqa": TaskSet("multi-doc", "f1", 32),
        "2wikimqa": TaskSet("multi-doc", "f1", 32),
        "musique": TaskSet("multi-doc", "f1", 32, extended=False),
        "gov_report": TaskSet("summary", "rouge_l", 512),
        "qmsum": TaskSet("summary", "rouge_l", 512, extended=False),
        "multi_news": TaskSet("summary", "rouge_l", 512),
        "trec": TaskSet("few-shot", "classification", 64, first_line=True, chat=False),
        "triviaqa": TaskSet("few-shot", "f1", 32, first_line=True, chat=False),
        "samsum": TaskSet(
            "few-shot", "rouge_l", 128, first_line=True, chat=False, stops_at_newline=True
        ),
        "passage_count": TaskSet("synthetic", "count", 32),
        "passage_retrieval_en": TaskSet("synthetic", "retrieval", 32),
        "lcc": TaskSet("code", "code_similarity", 64, chat=False),
        "repobench-p": TaskSet("code", "code_similarity", 64, chat=False),
    }
)
"""Every set by name, in the order of LongBench's tables."""


def sets_of(*, extended: bool) -> tuple[SetName, ...]:
    """All sets of LongBench, or of LongBench-E."""
    return tuple(name for name in SET_NAMES if SETS[name].extended or not extended)


def set_of_file(data: str, *, extended: bool = False) -> SetName | None:
    """The set that one file of the released format holds, by its name; None for all else."""
    name = data.rsplit("/", 1)[-1].removesuffix(".gz")
    end = "_e.jsonl" if extended else ".jsonl"
    stem = name.removesuffix(end)
    return cast("SetName", stem) if stem in SETS and stem != name else None
