"""Asks a model the questions of documents from the miniature's world, by any method.

    answers = ask(model, "longheads", documents, rows=range(8), config=LongHeadsConfig(...))

`oracle` is LongHeads whose last layer must read the chunks that hold the wanted facts: it tells
what is lost in the choice of chunks from what is lost elsewhere.

Axes: B documents, T words, Q questions, R repeats of a fact, H heads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from longheads.baselines import apply_method
from longheads.config import LongHeadsConfig, Method
from longheads.plugin import Handle
from longheads.trace import Recorder, oracle, record
from longheads.world import Documents, Ids

__all__ = ["Answers", "Reader", "ask", "count_same_words"]

Reader = Method | Literal["oracle"]
"""A method, or LongHeads with the choice of its last layer given away."""


@dataclass(frozen=True)
class Answers:
    """What a model answered, one row per document.

    Attributes:
        predicted: Most likely word after each question, BQ.
        finders: Heads of the last layer that read a chunk with the wanted value, BQ; None for
            methods that read no chunks.
    """

    predicted: Ids
    finders: Ids | None


def ask(
    model: PreTrainedModel,
    reader: Reader,
    documents: Documents,
    rows: Sequence[int],
    *,
    config: LongHeadsConfig,
    factor: float = 1.0,
) -> Answers:
    """Reads some of the documents in one batch and answers their questions.

    Args:
        model: A decoder in evaluation mode.
        reader: How it reads.
        documents: The documents.
        rows: Which of them to read.
        config: Settings of the readers that read chunks.
        factor: Stretch of the positions, for pi, ntk and yarn.
    """
    asked_Q = torch.from_numpy(documents.layout.answers - 1)
    ids_BT = torch.from_numpy(documents.ids[list(rows)])
    values_BQR = documents.values[list(rows)]
    with _reading(model, reader, config, factor, values_BQR) as handle:
        if handle is None:
            return Answers(_predict(model, ids_BT, asked_Q), None)
        with record(handle, [asked_Q.tolist()] * len(rows)) as recorder:
            predicted = _predict(model, ids_BT, asked_Q)
    finders = _count_finders(recorder, values_BQR, asked_Q.tolist(), config.chunk_len)
    return Answers(predicted, finders)


def count_same_words(
    model: PreTrainedModel, documents: Documents, rows: Sequence[int], *, config: LongHeadsConfig
) -> Ids:
    """In how many places of each document LongHeads and full attention predict the same word, B."""
    ids_BT = torch.from_numpy(documents.ids[list(rows)])
    everywhere_T = torch.arange(ids_BT.shape[1])
    full = _predict(model, ids_BT, everywhere_T)
    with apply_method(model, "longheads", config, factor=1.0):
        ours = _predict(model, ids_BT, everywhere_T)
    return np.asarray((full == ours).sum(axis=1))


@contextmanager
def _reading(
    model: PreTrainedModel,
    reader: Reader,
    config: LongHeadsConfig,
    factor: float,
    values_BQR: Ids,
) -> Iterator[Handle | None]:
    if reader != "oracle":
        with apply_method(model, reader, config, factor=factor) as handle:
            yield handle
        return
    chunks = [sorted(set((row // config.chunk_len).ravel().tolist())) for row in values_BQR]
    with apply_method(model, "longheads", config, factor=factor) as handle:
        assert handle is not None
        with oracle(handle, chunks):
            yield handle


def _predict(model: PreTrainedModel, ids_BT: Tensor, places_T: Tensor) -> Ids:
    """Most likely next word at some places."""
    with torch.inference_mode():
        logits = model(input_ids=ids_BT, logits_to_keep=places_T, use_cache=False).logits
    predicted: Ids = logits.argmax(dim=-1).numpy()
    return predicted


def _count_finders(
    recorder: Recorder, values_BQR: Ids, asked: Sequence[int], chunk_len: int
) -> Ids:
    last_layer = max(choice.layer for choice in recorder.choices)
    finders = np.zeros(values_BQR.shape[:2], dtype=np.int64)
    for choice in recorder.choices:
        if choice.layer == last_layer:
            question = asked.index(choice.position)
            wanted = set((values_BQR[choice.row, question] // chunk_len).tolist())
            finders[choice.row, question] = sum(bool(wanted & set(h)) for h in choice.heads)
    return finders
