"""A policy made by hand, of which one knows how often it succeeds from each depth.

    rates = depth_rates(0.8, num=20_000, seed=0)
    [(rate.depth, rate.successes / rate.num, rate.expected) for rate in rates]

Each of its steps is right with probability p; it slips once at most, and never gets back onto the
right chain. So it is right from behind k of T steps with probability p^(T-k). It goes through the
cutter, the sampler and the verifier that training uses, so all of these are checked by it.

Source: 2402.05808, the argument for starting near the answer.

Axes: B rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from papercore.rl.rollouts import Rollout
from papercore.rl.settings import Sampling
from r3.config import CutConfig, RewardConfig
from r3.curriculum import starts_for
from r3.cutting import encode_all
from r3.demos import Encoded, Start
from r3.mini_model import make_tokenizer
from r3.presets import TINY_PROMPT, TRAIN
from r3.prompting import pad_id
from r3.rewards import Reward, reward_for
from r3.rollout_batch import judge, roll_out, row_seeds
from r3.world import MODULUS, STEPS, chain, successor, training_demos

__all__ = ["DepthRate", "TabularPolicy", "depth_rates"]

CUT: Final = CutConfig(rule="tokens", states="all")
MAX_ROWS: Final = 10_000
"""Rollouts that are drawn at once."""


@dataclass(frozen=True)
class DepthRate:
    """How often the policy succeeded from one depth.

    Attributes:
        depth: Right steps that were given.
        successes: Rollouts that the verifier found right.
        num: Rollouts.
        expected: The chance of one.
    """

    depth: int
    successes: int
    num: int
    expected: float


class TabularConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """What a sampler wants to know."""

    model_type = "r3-tabular"

    def __init__(self, vocab_size: int = MODULUS, eos_token_id: int = 0) -> None:
        super().__init__()
        self.vocab_size, self.eos_token_id = vocab_size, eos_token_id


class TabularPolicy(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Steps of the world's map, right with one probability; a causal language model.

    Token ids of values are the values. Its cache holds the tokens that it has read.

    Attributes:
        right: Probability of a right step.
    """

    config_class = TabularConfig

    def __init__(self, config: TabularConfig, *, right: float) -> None:
        super().__init__(config)
        self.right = nn.Parameter(torch.tensor(right, dtype=torch.float64))
        values = range(MODULUS)
        self._steps_V = torch.tensor([successor(value) for value in values])
        self._chains_VT = torch.tensor([(value, *chain(value)) for value in values])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        use_cache: bool = True,
    ) -> CausalLMOutputWithPast:
        """Logits of the token after the last one."""
        del attention_mask, use_cache  # padding is no value
        cache = DynamicCache() if past_key_values is None else past_key_values
        keys = input_ids.double()[:, None, :, None]
        ids_BT = cache.update(keys, keys, 0)[0][:, 0, :, 0].long()
        return CausalLMOutputWithPast(logits=self._logits(ids_BT)[:, None], past_key_values=cache)

    @torch.no_grad()
    def _logits(self, ids_BT: Tensor) -> Tensor:
        is_value_BT = ids_BT < MODULUS
        place_B1 = is_value_BT.sum(1, keepdim=True) - 1  # 0 at the start value
        first_B1 = ids_BT.gather(1, is_value_BT.long().argmax(1, keepdim=True))
        last_B1 = ids_BT[:, -1:].clamp(max=MODULUS - 1)
        wanted_B1 = self._chains_VT[first_B1[:, 0]].gather(1, place_B1.clamp(max=STEPS))
        step_B1 = self._steps_V[last_B1]
        right_B1 = torch.where(last_B1 == wanted_B1, self.right, 1.0)
        probs_BV = torch.zeros(len(ids_BT), self.config.vocab_size, dtype=torch.float64)
        probs_BV.scatter_add_(1, step_B1, right_B1)
        probs_BV.scatter_add_(1, (step_B1 + 1) % MODULUS, 1 - right_B1)
        end_V = torch.zeros(self.config.vocab_size, dtype=torch.float64)
        end_V[self.config.eos_token_id] = 1.0
        return torch.where(place_B1 >= STEPS, end_V, probs_BV).log()


def depth_rates(right: float, *, num: int, seed: int) -> list[DepthRate]:
    """Draws rollouts from every depth of the world's demonstrations and verifies them.

    Args:
        right: Probability of a right step.
        num: Rollouts from each depth.
        seed: Of demonstrations and draws.
    """
    tokenizer = make_tokenizer()
    end = tokenizer.eos_token_id
    assert isinstance(end, int), "the tokenizer is ours"
    config = TRAIN["tiny"]
    demos = training_demos(seed)
    encoded, _ = encode_all(demos, tokenizer, TINY_PROMPT, CUT, "world")
    states = starts_for(config.curriculum, encoded, CUT)
    policy = TabularPolicy(TabularConfig(len(tokenizer), end), right=right)
    sampling = Sampling(config.max_new_tokens, frozenset({end}), max_rows=MAX_ROWS)
    found = []
    for depth in sorted({state.depth for state in states}):
        there = [state for state in states if state.depth == depth]
        starts = [there[row % len(there)] for row in range(num)]
        rollouts = roll_out(
            *(policy, starts, encoded, row_seeds(seed, depth, range(num))),
            sampling=sampling,
            pad_id=pad_id(tokenizer),
        )
        reward = reward_for("world", RewardConfig())
        judged = _Memory(encoded, reward)
        successes = sum(map(judged.is_right, starts, rollouts))
        found.append(DepthRate(depth, successes, num, right ** (STEPS - starts[0].cut)))
    return found


class _Memory:
    """Verdicts on rollouts; equal ones, of which there are many, are verified once."""

    def __init__(self, encoded: Sequence[Encoded], reward: Reward) -> None:
        self._encoded, self._reward = encoded, reward
        self._tokenizer = make_tokenizer()
        self._known: dict[tuple[Start, tuple[int, ...]], bool] = {}

    def is_right(self, start: Start, rollout: Rollout) -> bool:
        """Whether the verifier finds it right."""
        key = (replace(start, weight=1), rollout.response)
        if key not in self._known:
            (one,) = judge([rollout], [start], self._encoded, self._tokenizer, self._reward)
            self._known[key] = one.outcome.correct
        return self._known[key]
