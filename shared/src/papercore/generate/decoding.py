"""Row-wise decoding for the transformers backend: every row of a batch has its own parameters.

    sampler = RowSampler(params, seeds, device)
    stopper = RowStopper(params, limits, prompt_length=T, eos_ids=eos_ids, decode=decode)

Both plug into `model.generate` with greedy search: the sampler adds Gumbel noise to the log-weights
of the rows that sample, so that the most likely token of the noisy row is an exact draw. Each row
draws from a generator of its own, so its tokens do not depend on the rows next to it.

Axes: B batch, V vocabulary, T tokens with prompt.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from papercore.generate.types import FinishReason, SamplingParams

Decode = Callable[[Sequence[int]], str]


class RowSampler(LogitsProcessor):
    """Turns logits into scores whose largest entry is the token to take; keeps log-probabilities.

    Attributes:
        broken_B: Rows whose logits were not finite at some step.
    """

    def __init__(
        self, params: Sequence[SamplingParams], seeds: Sequence[int], device: torch.device
    ) -> None:
        self._generators = [
            None if one.greedy else torch.Generator(device).manual_seed(seed)
            for one, seed in zip(params, seeds, strict=True)
        ]
        self._temperature_B = torch.tensor(
            [one.temperature or 1.0 for one in params], device=device
        )
        self._top_p_B = torch.tensor(
            [1.0 if one.greedy else one.top_p for one in params], device=device
        )
        self._top_k = [None if one.greedy else one.top_k for one in params]
        self._wants_logprobs = any(one.logprobs for one in params)
        self._previous_BV: Tensor | None = None
        self._logprobs: list[Tensor] = []
        self.broken_B = torch.zeros(len(params), dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores of the next step; called by `generate`."""
        self.record(input_ids)
        self.broken_B |= ~scores.amax(-1).isfinite()
        if self._wants_logprobs:
            self._previous_BV = scores
        if not any(self._generators):
            return scores
        return self._noisy(self._truncated(scores / self._temperature_B[:, None]))

    def record(self, input_ids_BT: Tensor) -> None:
        """Notes the log-probability of the token taken last; call it once more after the end."""
        if self._previous_BV is not None:
            taken_B1 = input_ids_BT[:, -1:].to(self._previous_BV.device)
            logits_B = self._previous_BV.gather(-1, taken_B1).squeeze(-1)
            self._logprobs.append(logits_B - self._previous_BV.logsumexp(-1))
            self._previous_BV = None

    def logprobs(self, row: int, length: int) -> tuple[float, ...]:
        """Log-probabilities of the first tokens of a row under the model, at temperature 1."""
        return tuple(float(step_B[row]) for step_B in self._logprobs[:length])

    def _truncated(self, scores_BV: Tensor) -> Tensor:
        """Top-k, then top-p, each row with its own numbers."""
        vocabulary = scores_BV.shape[-1]
        top_k = [min(k or vocabulary, vocabulary) for k in self._top_k]
        if min(top_k) == vocabulary and bool((self._top_p_B == 1).all()):
            return scores_BV
        sorted_BV, order_BV = scores_BV.sort(dim=-1, descending=True)
        ranks_V = torch.arange(vocabulary, device=scores_BV.device)
        top_k_B1 = torch.tensor(top_k, device=scores_BV.device)[:, None]
        sorted_BV = sorted_BV.masked_fill(ranks_V >= top_k_B1, -torch.inf)
        probs_BV = sorted_BV.softmax(-1)
        before_BV = probs_BV.cumsum(-1) - probs_BV
        cut_BV = (before_BV >= self._top_p_B[:, None]) & (self._top_p_B[:, None] < 1)
        sorted_BV = sorted_BV.masked_fill(cut_BV, -torch.inf)
        return torch.full_like(scores_BV, -torch.inf).scatter(-1, order_BV, sorted_BV)

    def _noisy(self, scores_BV: Tensor) -> Tensor:
        noise_BV = torch.zeros_like(scores_BV)
        for noise_V, generator in zip(noise_BV, self._generators, strict=True):
            if generator is not None:
                noise_V.exponential_(generator=generator).clamp_(min=1e-38).log_()
        return scores_BV - noise_BV


class RowStopper(StoppingCriteria):
    """Ends each row at its own length limit, stop string or end-of-sequence token.

    Attributes:
        lengths: New tokens of each row so far, the one that ended it included.
        reasons: Why each row ended; `None` while it goes on.
    """

    def __init__(
        self,
        params: Sequence[SamplingParams],
        limits: Sequence[int],
        *,
        prompt_length: int,
        eos_ids: frozenset[int],
        decode: Decode,
    ) -> None:
        self.eos_token_id = sorted(eos_ids)  # its presence makes `generate` pad the rows that ended
        self.lengths = [0] * len(params)
        self.reasons: list[FinishReason | None] = [None] * len(params)
        self._stops = [one.stop for one in params]
        self._limits = limits
        self._prompt_length = prompt_length
        self._eos_ids = eos_ids
        self._decode = decode

    def __call__(self, input_ids: Tensor, scores: object, **kwargs: object) -> Tensor:
        """Which rows have ended; called by `generate` after each token."""
        del scores, kwargs
        taken = input_ids[:, -1].tolist()
        for row, token in enumerate(taken):
            if self.reasons[row] is None:
                self.lengths[row] += 1
                self.reasons[row] = self._reason(row, token, input_ids)
        ended = [reason is not None for reason in self.reasons]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)

    def _reason(self, row: int, token: int, input_ids_BT: Tensor) -> FinishReason | None:
        if token in self._eos_ids or self._meets_stop(row, input_ids_BT):
            return "stop"
        return "length" if self.lengths[row] >= self._limits[row] else None

    def _meets_stop(self, row: int, input_ids_BT: Tensor) -> bool:
        """Looks at the last tokens only: 4 for each character of the longest stop string."""
        if not self._stops[row]:
            return False
        reach = 4 * max(map(len, self._stops[row])) + 16
        start = max(self._prompt_length, input_ids_BT.shape[1] - reach)
        text = self._decode(input_ids_BT[row, start:].tolist())
        return any(stop in text for stop in self._stops[row])
