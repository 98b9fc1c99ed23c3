"""Answers to questions by Self-Contrastive Decoding.

completions = generate(model, tokenizer, ["How do I kill a process?"], SelfCDConfig(alpha=2.5))
grid = generate(model, tokenizer, queries, alphas=(1.0, 2.5))  # per question one per strength
for piece in stream(model, tokenizer, "How do I kill a process?"): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, overload

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.errors import ConfigError, DataError, GenerationError
from papercore.generate.defaults import eos_ids
from papercore.generate.jobs import decode as detokenize
from papercore.generate.jobs import failed
from papercore.generate.texts import cut_at_stop
from papercore.generate.types import Completion, Request, SamplingParams, Usage
from self_cd.batching import Batches, Failure
from self_cd.config import MAX_ALPHA, SelfCDConfig
from self_cd.decoding import Decoded, Decoding, PairJob, decode
from self_cd.intake import Asked, Intake, request_of
from self_cd.items import Item
from self_cd.margins import context_margins
from self_cd.openings import encode_openings
from self_cd.prompts import Prompter
from self_cd.streaming import Pieces

__all__ = ["ContrastCompletion", "ContrastGenerator", "Stream", "generate", "stream"]

AUTO_BATCH_SIZE = 64
"""Where `batch_size="auto"` starts; it is halved whenever a batch does not fit into memory."""

DEFAULT_PARAMS = SamplingParams(max_new_tokens=200)
"""Greedy, 200 tokens. Source: official script."""

BatchSize = int | Literal["auto"]


@overload
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str | Item],
    config: SelfCDConfig = ...,
    *,
    params: SamplingParams = ...,
    alphas: None = ...,
    seed: int = ...,
    batch_size: BatchSize = ...,
    max_context: int | None = ...,
) -> list[Completion]: ...


@overload
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str | Item],
    config: SelfCDConfig = ...,
    *,
    params: SamplingParams = ...,
    alphas: Sequence[float],
    seed: int = ...,
    batch_size: BatchSize = ...,
    max_context: int | None = ...,
) -> list[list[Completion]]: ...


def generate(  # noqa: PLR0913  (the package's front door)
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str | Item],
    config: SelfCDConfig = SelfCDConfig(),  # noqa: B008 - frozen
    *,
    params: SamplingParams = DEFAULT_PARAMS,
    alphas: Sequence[float] | None = None,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    max_context: int | None = None,
) -> list[Completion] | list[list[Completion]]:
    """Answers questions; one that cannot be answered gives a completion with an error.

    Args:
        queries: Questions, or items, whose ids and earlier turns are taken over.
        params: How to choose tokens, for all questions.
        alphas: Answers every question at each of these strengths, after reading it once.
        seed: From which a sampled answer gets its own, by the id of its question.
        batch_size: Most questions at once.
        max_context: Prompt and answer in tokens; by default what the model's config says.

    Returns:
        One completion per question, in their order; with `alphas` a list of them, one per strength.

    Raises:
        DataError: The queries are no list of texts or items.
        ModelError: The model or its chat template cannot be used.
    """
    if isinstance(queries, str) or not all(isinstance(one, str | Item) for one in queries):
        raise DataError("queries should be a list of texts or items, not one text or other things")
    generator = ContrastGenerator(
        model, tokenizer, config, batch_size=batch_size, seed=seed, max_context=max_context
    )
    requests = [request_of(place, query, params) for place, query in enumerate(queries)]
    return generator.generate(requests) if alphas is None else generator.sweep(requests, alphas)


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    query: str | Item,
    config: SelfCDConfig = SelfCDConfig(),  # noqa: B008 - frozen
    *,
    params: SamplingParams = DEFAULT_PARAMS,
    seed: int = 0,
    max_context: int | None = None,
) -> Stream:
    """Answers one question piece by piece; the pieces together are the text of `generate`.

    Raises:
        DataError: The question cannot be asked.
        ModelError: The model or its chat template cannot be used.
    """
    generator = ContrastGenerator(model, tokenizer, config, seed=seed, max_context=max_context)
    return generator.stream(request_of(0, query, params))


class ContrastCompletion(Completion):
    """A completion that says whether the guard kept it from being contrasted."""

    guarded: bool = False


class ContrastGenerator:
    """The contrast as a backend of papercore's `Generator` protocol.

    A request is a prompt, which is the question, or messages of a user and an assistant in turn,
    the last of which is the question. The system prompts are the method's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: SelfCDConfig = SelfCDConfig(),  # noqa: B008 - frozen
        *,
        batch_size: BatchSize = "auto",
        seed: int = 0,
        max_context: int | None = None,
    ) -> None:
        """Wraps a loaded model; the arguments are those of `generate`."""
        if batch_size != "auto" and batch_size < 1:
            raise GenerationError(f"batch_size={batch_size}: must be at least 1, or auto")
        self.prompter = Prompter(tokenizer, config.prompts)
        self._intake = Intake(model, self.prompter, seed=seed, max_context=max_context)
        self._model = model
        self._tokenizer = tokenizer
        self._config = config
        self._eos_ids = eos_ids(model, tokenizer)
        self._detokenize = partial(detokenize, tokenizer)
        self._is_auto = batch_size == "auto"
        self._batches = Batches(AUTO_BATCH_SIZE if batch_size == "auto" else batch_size)
        self._openings = (
            None if config.guard is None else encode_openings(tokenizer, config.openings)
        )

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers every request, in their order."""
        return [row[0] for row in self._answer(requests, self._batches, None)]

    def sweep(self, requests: Sequence[Request], alphas: Sequence[float]) -> list[list[Completion]]:
        """Answers every request at each of these strengths, which share one prefill.

        Raises:
            ConfigError: A strength is none.
        """
        for alpha in alphas:
            if not 0.0 <= alpha <= MAX_ALPHA:  # true of NaN, too
                raise ConfigError(f"alphas: {alpha} is no strength: give 0 to {MAX_ALPHA:g}")
        size = self._batches.size
        batches = Batches(max(1, size // max(1, len(alphas)))) if self._is_auto else self._batches
        return self._answer(requests, batches, alphas)

    def stream(self, request: Request) -> Stream:
        """Answers one request piece by piece.

        Raises:
            DataError: It cannot be answered.
        """
        prepared = self._intake.read(0, request)
        if isinstance(prepared, Completion):
            raise DataError(prepared.error or "the question cannot be asked")
        return Stream(self._pieces(prepared))

    def _answer(
        self, requests: Sequence[Request], batches: Batches, alphas: Sequence[float] | None
    ) -> list[list[Completion]]:
        times = 1 if alphas is None else len(alphas)
        if times == 0:
            return [[] for _ in requests]
        prepared = [self._intake.read(place, request) for place, request in enumerate(requests)]
        results = {
            place: [one] * times
            for place, one in enumerate(prepared)
            if isinstance(one, Completion)
        }
        queue = [one for one in prepared if isinstance(one, Asked)]
        # The longest first: if memory is short, that shows at once.
        queue.sort(key=lambda one: (one.job.limit, one.job.contexts.longest), reverse=True)
        rows = batches.run(queue, partial(self._decode, alphas=alphas))
        for one, row in zip(queue, rows, strict=True):
            results[one.place] = (
                [failed(one.request, row.problem, "backend", one.prompt_tok)] * times
                if isinstance(row, Failure)
                else [self._completion(one, decoded) for decoded in row]
            )
        return [results[place] for place in range(len(requests))]

    def _decode(
        self, batch: Sequence[Asked], alphas: Sequence[float] | None
    ) -> list[list[Decoded]]:
        decoded = decode(
            self._model,
            self._guarded([one.job for one in batch]),
            self._config,
            eos_ids=self._eos_ids,
            detokenize=self._detokenize,
            alphas=alphas,
        )
        times = len(decoded) // len(batch)
        return [decoded[place : place + times] for place in range(0, len(decoded), times)]

    def _guarded(self, jobs: Sequence[PairJob]) -> list[PairJob]:
        """Jobs, of which those that the plain context refuses clearly are not contrasted."""
        if self._openings is None or self._config.guard is None:
            return list(jobs)
        plain = [job.contexts.plain for job in jobs]
        margins = context_margins(
            self._model, plain, self._openings, float32_head=self._config.float32_head
        ).tolist()
        return [
            replace(job, guarded=margin > self._config.guard)
            for job, margin in zip(jobs, margins, strict=True)
        ]

    def _pieces(self, one: Asked) -> Iterator[str | Completion]:
        """Pieces of text, then the completion."""
        decoding = Decoding(
            self._model,
            self._guarded([one.job]),
            self._config,
            eos_ids=self._eos_ids,
            detokenize=self._detokenize,
        )
        pieces = Pieces(self._detokenize, stops=one.job.params.stop)
        tokens: list[int] = []
        for view in decoding.steps():
            tokens += view.tokens
            if piece := pieces.more(tokens):
                yield piece
        decoded = decoding.results()[0]
        if decoded.error is not None:
            raise GenerationError(decoded.error)
        if piece := pieces.more(decoded.token_ids, ended=True):
            yield piece
        yield self._completion(one, decoded)

    def _completion(self, one: Asked, decoded: Decoded) -> Completion:
        if decoded.error is not None:
            return failed(one.request, decoded.error, "backend", one.prompt_tok)
        text = self._detokenize(decoded.token_ids)
        return ContrastCompletion(
            guarded=decoded.guarded,
            id=one.request.id,
            text=cut_at_stop(text, one.job.params.stop),
            token_ids=decoded.token_ids,
            logprobs=decoded.logprobs,
            finish_reason=decoded.reason,
            usage=Usage(prompt_tokens=one.prompt_tok, completion_tokens=len(decoded.token_ids)),
        )


class Stream(Iterator[str]):
    """Pieces of an answer; at their end there is the completion that they are of."""

    def __init__(self, pieces: Iterator[str | Completion]) -> None:
        self._pieces = pieces
        self._completion: Completion | None = None

    def __next__(self) -> str:
        piece = next(self._pieces)
        if isinstance(piece, Completion):
            self._completion = piece
            raise StopIteration
        return piece

    @property
    def completion(self) -> Completion:
        """The whole answer; what is left of it is decoded first."""
        for _ in self:
            pass
        if self._completion is None:
            raise GenerationError("the stream failed before its end: ask again")
        return self._completion
