"""What `train` trains on: sequences of tokens from files of trajectories, and what was left out.

    data = read_training_set(paths, tokenizer, config)
    data.counts["skipped"]           # longer than max_length

Nothing is dropped silently: rows that are no trajectories are problems, too long sequences are
skipped or cut as the config says, and both are counted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset, Features, List, Value

from papercore.errors import DataError
from papercore.log import progress
from rotbench.augment import Problem
from rotbench.cases import LEVELS
from rotbench.config import TrainConfig
from rotbench.sequences import Encoder, TokenSequence
from rotbench.trajectories import Trajectory, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TrainingSet", "read_training_set"]

_FEATURES = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})


@dataclass(frozen=True)
class TrainingSet:
    """Sequences, and what happened on the way to them."""

    dataset: Dataset
    """Columns `input_ids` and `labels`; 8 bytes per token in memory."""
    counts: Mapping[str, int]
    """Trajectories by level, sequences, tokens, tokens that bear loss, skipped and cut."""
    problems: tuple[Problem, ...]
    data_hash: str
    """Of the token ids and labels."""


def read_training_set(
    paths: Sequence[Path], tokenizer: PreTrainedTokenizerBase, config: TrainConfig
) -> TrainingSet:
    """Reads and encodes all trajectories.

    Raises:
        DataError: A file cannot be read, or nothing is left to train on.
        ModelError: The tokenizer cannot be used in this style.
    """
    encoder = Encoder(tokenizer, config.prompt_style)
    counts = Counter(
        dict.fromkeys(("trajectories", "sequences", "tokens", "loss_tokens", "skipped", "cut"), 0)
    )
    counts.update(dict.fromkeys(LEVELS, 0))
    problems: list[Problem] = []
    ids: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    digest = hashlib.sha256()
    for trajectory in progress(_trajectories(paths, config, problems), "tokenize"):
        try:
            made = encoder.sequences(trajectory)
        except DataError as error:
            problems.append(Problem(trajectory.id, str(error)))
            continue
        counts["trajectories"] += 1
        counts[trajectory.level] += 1
        for sequence in _fitting(made, config, counts):
            ids.append(np.asarray(sequence.input_ids, dtype=np.int32))
            labels.append(np.asarray(sequence.labels, dtype=np.int32))
            digest.update(ids[-1].tobytes() + labels[-1].tobytes())
    if not ids:
        raise DataError(_nothing_left(counts, problems, config))
    dataset = Dataset.from_dict({"input_ids": ids, "labels": labels}, features=_FEATURES)
    return TrainingSet(dataset, counts, tuple(problems), digest.hexdigest())


def _trajectories(
    paths: Sequence[Path], config: TrainConfig, problems: list[Problem]
) -> Iterator[Trajectory]:
    """The trajectories that are wanted; rows that are none are added to the problems."""
    read = 0
    for path in paths:
        left = None if config.limit is None else config.limit - read
        for row in read_rows(path, limit=left):
            read += 1
            if row.trajectory is None:
                problems.append(Problem(f"{path.name}: {row.place}", str(row.problem)))
            elif not config.clean_only or row.trajectory.level == "clean":
                yield row.trajectory


def _fitting(
    sequences: Sequence[TokenSequence], config: TrainConfig, counts: Counter[str]
) -> Iterator[TokenSequence]:
    """Sequences of at most the allowed length that bear loss."""
    for made in sequences:
        sequence = made
        if len(sequence.input_ids) > config.max_length:
            cut = sequence.cut(config.max_length)
            if config.too_long == "skip" or not cut.num_loss:
                counts["skipped"] += 1
                continue
            counts["cut"] += 1
            sequence = cut
        counts["sequences"] += 1
        counts["tokens"] += len(sequence.input_ids)
        counts["loss_tokens"] += sequence.num_loss
        yield sequence


def _nothing_left(counts: Counter[str], problems: Sequence[Problem], config: TrainConfig) -> str:
    if counts["skipped"]:
        return (
            f"all {counts['skipped']} sequences are longer than max_length={config.max_length}: "
            "raise it, or set --too-long cut"
        )
    if problems:
        return f"no row is a trajectory: {problems[0].place}: {problems[0].reason}"
    return f"{config.data} holds no {'clean ' if config.clean_only else ''}trajectory"
