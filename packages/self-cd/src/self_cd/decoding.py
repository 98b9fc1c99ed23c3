"""The decoding loop: pairs of contexts in, tokens out.

    decoded = decode(model, jobs, SelfCDConfig(alpha=2.5), eos_ids={2}, detokenize=tokenizer.decode)

Every row (a pair, or a pair at one of several strengths) has its own parameters, limit and random
generator, and gets the tokens that it would get alone. Axes: B live rows, V vocabulary, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from transformers import PreTrainedModel

from papercore.generate.decoding import Decode, RowSampler, RowStopper
from papercore.generate.types import FinishReason, SamplingParams
from self_cd.config import SelfCDConfig
from self_cd.contexts import Contexts
from self_cd.contrast import contrast
from self_cd.paired import Paired

__all__ = ["Decoded", "Decoding", "PairJob", "StepView", "decode"]

NOT_FINITE = "the model's logits are not finite"
DROP_SHARE = 0.25
"""Rows that ended leave the batch once they are this share of it: leaving copies the cache."""


@dataclass(frozen=True)
class PairJob:
    """A pair of contexts to continue.

    Attributes:
        contexts: Both prompts.
        params: How to choose tokens; their seed is not looked at.
        seed: Of its random draws, one per token.
        alpha: Its strength; None takes the config's.
        max_new_tokens: Room in the context, if that is less than `params` ask for.
        guarded: Decodes it in the plain context alone.
    """

    contexts: Contexts
    params: SamplingParams
    seed: int = 0
    alpha: float | None = None
    max_new_tokens: int | None = None
    guarded: bool = False

    @property
    def limit(self) -> int:
        """Most new tokens."""
        asked = self.params.max_new_tokens
        return asked if self.max_new_tokens is None else min(asked, self.max_new_tokens)


@dataclass(frozen=True)
class Decoded:
    """What came of one row.

    Attributes:
        token_ids: New tokens; the one that ended it is among them.
        reason: Why it ended; `error` if its logits were not finite.
        alpha: Its strength after the schedule.
        guarded: Whether it was decoded in the plain context alone.
        logprobs: Of each token among the contrasted logits, at temperature 1, if asked for.
    """

    token_ids: tuple[int, ...]
    reason: FinishReason
    alpha: float
    logprobs: tuple[float, ...] | None = None
    guarded: bool = False

    @property
    def error(self) -> str | None:
        """What went wrong, if something did."""
        return NOT_FINITE if self.reason == "error" else None


@dataclass(frozen=True)
class StepView:
    """One step of the loop, for those who watch. Its tensors are to be read, not changed.

    Attributes:
        step: Counts from 0.
        rows: Which rows had not ended, as places in the result of `decode`.
        emphasis_BV: Logits with the safety prompt; None where only the plain context goes on.
        plain_BV: Logits without it.
        combined_BV: What was chosen from; before temperature and truncation.
        alpha_B: The strength of each row at this token; None without a contrast.
        tokens: What was chosen.
    """

    step: int
    rows: tuple[int, ...]
    emphasis_BV: Tensor | None
    plain_BV: Tensor
    combined_BV: Tensor
    alpha_B: Tensor | None
    tokens: tuple[int, ...]


def decode(
    model: PreTrainedModel,
    jobs: Sequence[PairJob],
    config: SelfCDConfig,
    *,
    eos_ids: Collection[int],
    detokenize: Decode,
    alphas: Sequence[float] | None = None,
    observe: Callable[[StepView], None] | None = None,
) -> list[Decoded]:
    """Continues pairs as one batch.

    Args:
        eos_ids: All that end an answer.
        detokenize: Text of token ids, for stop strings.
        alphas: Decodes every job at each of these strengths, after one prefill.
        observe: Called after every step.

    Returns:
        One per job, in their order; with `alphas` one per strength of each job, job after job.

    Raises:
        ModelError: The model cannot read pairs.
    """
    decoding = Decoding(model, jobs, config, eos_ids=eos_ids, detokenize=detokenize, alphas=alphas)
    for view in decoding.steps():
        if observe is not None:
            observe(view)
    return decoding.results()


class Decoding:
    """A batch while it is decoded; the arguments are those of `decode`."""

    def __init__(
        self,
        model: PreTrainedModel,
        jobs: Sequence[PairJob],
        config: SelfCDConfig,
        *,
        eos_ids: Collection[int],
        detokenize: Decode,
        alphas: Sequence[float] | None = None,
    ) -> None:
        self.paired = Paired(
            model,
            [job.contexts for job in jobs],
            share_prefix=config.share_prefix,
            float32_head=config.float32_head,
        )
        times = 1 if alphas is None else len(alphas)
        if times > 1:
            self.paired.repeat(times)
        self._config = config
        self._jobs = [job for job in jobs for _ in range(times)]
        self._alphas = (
            [config.alpha if job.alpha is None else job.alpha for job in jobs]
            if alphas is None
            else [*alphas] * len(jobs)
        )
        self._device = self.paired.plain_BV.device
        # log-probabilities are taken here: the core's sampler keeps them for all its rows
        drawn = [job.params.model_copy(update={"logprobs": False}) for job in self._jobs]
        self._sampler = _Sampler(drawn, [job.seed for job in self._jobs], self._device)
        self._stopper = RowStopper(
            drawn,
            [job.limit for job in self._jobs],
            prompt_length=0,
            eos_ids=frozenset(eos_ids),
            decode=detokenize,
        )
        self._taken_BT = torch.zeros(
            len(self._jobs), max(job.limit for job in self._jobs), dtype=torch.long
        )
        self._logprobs: list[list[float]] = [[] for _ in self._jobs]
        self._broken: set[int] = set()
        self._rows = list(range(len(self._jobs)))  # of the batch: also some that have ended

    def steps(self) -> Iterator[StepView]:
        """Decodes token by token until every row has ended."""
        for step in count():
            if step == self._config.first_steps:
                self.paired.drop_emphasis()
            scores_BV, alpha_B = self._contrasted(step)
            tokens_B = self._choose(step, scores_BV)
            view = self._view(step, scores_BV, alpha_B)
            if view.rows:
                yield view
            self._stopper(self._taken_BT[:, : step + 1], None)
            live = self._live()
            if not live:
                return
            if len(live) <= (1 - DROP_SHARE) * len(self._rows) or self._overruns(step):
                tokens_B = tokens_B[live]
                self._keep(live)
            self.paired.step(tokens_B)

    def results(self) -> list[Decoded]:
        """What has come of every row."""
        return [self._result(row) for row in range(len(self._jobs))]

    def _contrasted(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Logits to choose from, and the strengths that they have."""
        paired, config = self.paired, self._config
        if paired.emphasis_BV is None:
            return paired.plain_BV, None
        guarded = [self._jobs[row].guarded for row in self._rows]
        scheduled = config.scheduled(step)
        alphas = [
            1.0 if safe else self._alphas[row] if scheduled is None else scheduled
            for row, safe in zip(self._rows, guarded, strict=True)
        ]
        return contrast(
            paired.emphasis_BV,
            paired.plain_BV,
            torch.tensor(alphas, device=self._device),
            beta=config.beta,
            adaptive=config.adaptive,
            fixed_B=torch.tensor(guarded, device=self._device),
        )

    def _choose(self, step: int, scores_BV: Tensor) -> Tensor:
        """Takes a token per row of the batch, and notes it."""
        tokens_B = self._sampler(self._taken_BT, scores_BV).argmax(-1)
        wanted = any(self._jobs[row].params.logprobs for row in self._rows)
        logprob_B = _logprob(scores_BV, tokens_B) if wanted else None
        # one wait for the device per step
        tokens, broken = torch.stack([tokens_B, self._sampler.broken_B.long()]).tolist()
        # a row that has ended keeps its answer, whatever is read after it
        self._broken |= {
            row
            for row, bad in zip(self._rows, broken, strict=True)
            if bad and self._stopper.reasons[row] is None
        }
        self._taken_BT[self._rows, step] = torch.tensor(tokens)
        if logprob_B is not None:
            for row, logprob in zip(self._rows, logprob_B.tolist(), strict=True):
                self._logprobs[row].append(logprob)
        return tokens_B

    def _view(self, step: int, scores_BV: Tensor, alpha_B: Tensor | None) -> StepView:
        """What an observer sees: of the rows that had not ended before this step."""
        live = self._live()
        everything = len(live) == len(self._rows)

        def seen(values: Tensor | None) -> Tensor | None:
            return values if values is None or everything else values[live]

        plain_BV, combined_BV = seen(self.paired.plain_BV), seen(scores_BV)
        assert plain_BV is not None
        assert combined_BV is not None
        rows = [self._rows[place] for place in live]
        return StepView(
            step=step,
            rows=tuple(rows),
            emphasis_BV=seen(self.paired.emphasis_BV),
            plain_BV=plain_BV,
            combined_BV=combined_BV,
            alpha_B=seen(alpha_B),
            tokens=tuple(self._taken_BT[rows, step].tolist()),
        )

    def _live(self) -> list[int]:
        """Places in the batch of rows that go on."""
        reasons = self._stopper.reasons
        return [
            place
            for place, row in enumerate(self._rows)
            if reasons[row] is None and row not in self._broken
        ]

    def _overruns(self, step: int) -> bool:
        """Whether a row that has ended would be read beyond its room, where positions may end."""
        reasons = self._stopper.reasons
        return any(reasons[row] is not None and step >= self._jobs[row].limit for row in self._rows)

    def _keep(self, places: Sequence[int]) -> None:
        """Goes on with these rows of the batch."""
        self._rows = [self._rows[place] for place in places]
        self._sampler.keep(places)
        self.paired.keep(places)

    def _result(self, row: int) -> Decoded:
        alpha = self._alphas[row]
        if row in self._broken:
            return Decoded((), "error", alpha, guarded=self._jobs[row].guarded)
        length = self._stopper.lengths[row]
        return Decoded(
            token_ids=tuple(self._taken_BT[row, :length].tolist()),
            reason=self._stopper.reasons[row] or "length",
            alpha=alpha,
            logprobs=tuple(self._logprobs[row][:length])
            if self._jobs[row].params.logprobs
            else None,
            guarded=self._jobs[row].guarded,
        )


class _Sampler(RowSampler):
    """The core's sampler, whose rows can leave."""

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows; the draws of each go on where they were."""
        self._generators = [self._generators[row] for row in rows]
        self._top_k = [self._top_k[row] for row in rows]
        self._temperature_B = self._temperature_B[rows]
        self._top_p_B = self._top_p_B[rows]
        self.broken_B = self.broken_B[rows]


def _logprob(scores_BV: Tensor, tokens_B: Tensor) -> Tensor:
    return scores_BV.gather(-1, tokens_B[:, None]).squeeze(-1) - scores_BV.logsumexp(-1)
