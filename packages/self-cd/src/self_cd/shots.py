"""The example of the baseline `icl`: the pair of our pool whose question is most like the query.

    question, answer = Retriever().nearest("How do I kill a hung process?")

Source: 2401.17633 finds one safe pair by SimCSE among its held-out questions.
Deviation: the pool is our own (`wording.POOL`), and without an encoder words are compared: counts
    of words, weighted by how rare they are in the pool (TF-IDF), by their cosine.

An encoder's vector of a text is the last hidden state of its first token, before any head, as
SimCSE takes it at test time. Equal similarities go to the pair that comes first in the pool.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from papercore.errors import ConfigError, DataError, ModelError
from self_cd.wording import POOL, Shot

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Retriever", "retriever_for"]

# Axis legend: N pairs of the pool, F features (words of the pool, or the encoder's width).
Vectors = NDArray[np.float64]


class _Space(Protocol):
    """Turns texts into rows of length one, or of zeros for a text without features."""

    def vectors(self, texts: Sequence[str]) -> Vectors: ...


class Retriever:
    """Finds the pair of a pool whose question is most similar to a query."""

    def __init__(self, pool: Sequence[Shot] = POOL, *, encoder: str | None = None) -> None:
        """Reads the pool.

        Args:
            pool: Questions with their answers.
            encoder: Hub id or folder of an encoder with a first token `[CLS]`; None compares words.

        Raises:
            ConfigError: The pool is empty.
            ModelError: The encoder cannot be loaded or is none.
        """
        if not pool:
            raise ConfigError("the pool of examples is empty: give at least one pair")
        self._pool = tuple(pool)
        questions = [question for question, _ in self._pool]
        self._space: _Space = _Words(questions) if encoder is None else _Encoder(encoder)
        self._pool_NF = self._space.vectors(questions)

    def nearest(self, query: str) -> Shot:
        """The most similar pair; never the query itself with its answer.

        Raises:
            DataError: The pool holds nothing but the query.
        """
        similar_N = self.similarities(query)
        same_N = np.array([_same(question) == _same(query) for question, _ in self._pool])
        if same_N.all():
            raise DataError("the pool of examples holds nothing but the query: give more pairs")
        return self._pool[int(np.where(same_N, -np.inf, similar_N).argmax())]

    def similarities(self, query: str) -> Vectors:
        """Cosine of the query with every question of the pool."""
        # Rounding must not decide between pairs that are equally similar.
        similar_N: Vectors = self._pool_NF @ self._space.vectors([query])[0]
        return similar_N.round(9)


@cache
def retriever_for(encoder: str | None) -> Retriever:
    """The retriever over our pool; an encoder is loaded once."""
    return Retriever(encoder=encoder)


class _Words:
    """TF-IDF over the words of some texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        found = [set(_words(text)) for text in texts]
        self._places = {word: place for place, word in enumerate(sorted(set().union(*found)))}
        counts = Counter(word for words in found for word in words)
        counts_F = np.array([counts[word] for word in self._places])
        self._rarity_F = np.log((1 + len(texts)) / (1 + counts_F)) + 1

    def vectors(self, texts: Sequence[str]) -> Vectors:
        counts_NF = np.zeros((len(texts), len(self._places)))
        for row, text in enumerate(texts):
            for word in _words(text):
                if word in self._places:
                    counts_NF[row, self._places[word]] += 1
        return _unit(counts_NF * self._rarity_F)


class _Encoder:
    """The first token's last hidden state of a transformers encoder, on the CPU in float32."""

    def __init__(self, name: str) -> None:
        self._model, self._tokenizer = _load(name)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        # One at a time: a text's vector must not depend on the padding that its neighbours need.
        return _unit(np.stack([self._vector(text) for text in texts]))

    def _vector(self, text: str) -> Vectors:
        import torch

        inputs = self._tokenizer(
            text,
            truncation=True,
            max_length=self._room,
            return_tensors="pt",
            split_special_tokens=True,  # a query's [SEP] is plain text
        )
        with torch.inference_mode():
            hidden_1TF = self._model(**inputs).last_hidden_state
        return np.asarray(hidden_1TF[0, 0].double().numpy())

    @property
    def _room(self) -> int:
        """Tokens that the encoder can read; RoBERTa's positions begin after two unused ones."""
        positions = getattr(self._model.config, "max_position_embeddings", 512)
        return min(int(self._tokenizer.model_max_length), positions - 2)


def _load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoModel

    from papercore.models import read_tokenizer
    from papercore.refs import directory, id_or_directory

    place = str(directory(name) or id_or_directory(name))
    tokenizer = read_tokenizer(place)
    if tokenizer.cls_token is None:
        raise ModelError(
            f"icl_encoder {name!r} has no CLS token: give an encoder such as SimCSE's, or leave it "
            "out to compare words"
        )
    try:
        found, report = AutoModel.from_pretrained(
            place,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"icl_encoder {name!r} cannot be loaded: {reason}") from error
    # The head over the first token is not used, so it may be missing.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(f"icl_encoder {name!r} lacks weights, first {missing[0]}")
    return cast("PreTrainedModel", found).eval(), tokenizer  # type: ignore[no-untyped-call]


def _unit(rows_NF: Vectors) -> Vectors:
    norms_N1 = np.linalg.norm(rows_NF, axis=1, keepdims=True)
    unit_NF: Vectors = rows_NF / np.where(norms_N1 > 0, norms_N1, 1.0)
    return unit_NF


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _same(text: str) -> str:
    """A text without what does not make it another question."""
    return " ".join(_words(text))
