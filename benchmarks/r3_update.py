"""PPO update and rollouts on R3's mix of start states, against a plain implementation.

Demonstrations of 100 question tokens and 100 rationale tokens, five start states each: prompts of
100 to 180 tokens, responses of 100 to 20. Two Llamas: one whose output head is most of the work, as
in small models with large vocabularies, and one whose trunk is.

The peer re-states what the official trainer does: prompts padded on the left to the longest and
responses on the right, logits and log-softmax of every position, rows in the order they came in.
Both make the same update: their gradients are compared before anything is measured. For rollouts
the peer is transformers' `generate` on the same prompts in batches of the same size; both draw
from the whole vocabulary, and every row ends when question and rationale are 200 tokens together.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from harness import Options, Ratio, Result, Row, finish, measure, ratio
from onelayer import cpu_options, load_note
from papercore.rl.actor_critic import ActorCritic
from papercore.rl.rollouts import Rollout, token_mask
from papercore.rl.sampling import sample
from papercore.rl.settings import PPOSettings, Sampling
from papercore.rl.update import Experience, ppo_update
from papercore.tiny import tiny_llama

QUESTION_TOK, RATIONALE_TOK, STATES = 100, 100, 5
NUM_ROLLOUTS, MICRO_BATCH = 20, 4
PAD, EOS = 0, 1
SETTINGS = PPOSettings(epochs=1, minibatches=1, micro_batch=MICRO_BATCH, value_coef=0.5)


@dataclass(frozen=True)
class Shape:
    """One of the two models."""

    name: str
    vocabulary: int
    hidden: int
    layers: int


SHAPES = (
    Shape("head", vocabulary=16_000, hidden=256, layers=2),
    Shape("trunk", vocabulary=500, hidden=256, layers=6),
)
QUICK = (Shape("quick", vocabulary=200, hidden=32, layers=2),)


def main(options: Options) -> int:
    """Check that both do the same, then measure."""
    rows: list[Row] = []
    ratios: list[Ratio] = []
    notes: list[str] = []
    for shape in QUICK if options.quick else SHAPES:
        model = tiny_llama(
            shape.vocabulary,
            hidden=shape.hidden,
            layers=shape.layers,
            heads=shape.hidden // 32,
            max_positions=512,
        )
        policy = ActorCritic.build(model, reference="none")
        experience = _experience(shape.vocabulary)
        worst = _largest_difference(policy, experience)
        assert worst < 1e-4, f"the two updates differ by {worst}"
        for what, ways in (
            ("update", _updates(policy, experience)),
            ("rollouts", _rollouts(policy.actor, experience.rollouts)),
        ):
            found = measure({f"{shape.name} {what}, {k}": w for k, w in ways.items()}, options)
            plain, ours = found.values()
            rows += found.values()
            goal = 2.0 if (shape.name, what) == ("head", "update") else None
            ratios.append(ratio(f"{shape.name}: {what}, plain / ours", plain, ours, at_least=goal))
            notes.append(_speed(shape, what, experience.rollouts, plain, ours))
        notes.append(f"{shape.name}: largest relative difference of a gradient {worst:.1e}")
    result = Result(
        "r3_update",
        f"{NUM_ROLLOUTS} rollouts from {STATES} even start states, prompts of {QUESTION_TOK} to "
        f"{QUESTION_TOK + RATIONALE_TOK * (STATES - 1) // STATES} tokens and answers to 200: an "
        "update is at least twice as fast as one that computes logits of all positions, where the "
        "head is most of the work",
        tuple(rows),
        tuple(ratios),
        notes=(*notes, load_note()),
    )
    return finish(result, options)


def _experience(vocabulary: int) -> Experience:
    random = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        drawn: list[int] = torch.randint(2, vocabulary, (count,), generator=random).tolist()
        return tuple(drawn)

    rollouts = []
    for index in range(NUM_ROLLOUTS):
        cut = RATIONALE_TOK * (index * 3 % STATES) // STATES
        response = tokens(RATIONALE_TOK - cut)
        logps = (-1.0,) * len(response)
        rollouts.append(Rollout(tokens(QUESTION_TOK + cut), response, logps, ended=True))
    mask_BG = token_mask([len(one.response) for one in rollouts])

    def values(mean: float) -> Tensor:
        return (mean + torch.randn(mask_BG.shape, generator=random)) * mask_BG

    logs = float(torch.tensor(1 / vocabulary).log())
    return Experience(tuple(rollouts), mask_BG, values(logs), values(0.0), values(0.5), values(0.5))


def _updates(policy: ActorCritic, experience: Experience) -> dict[str, Callable[[], object]]:
    """A learning rate of nothing: every repetition does the same work on the same weights."""
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)

    def ours() -> object:
        return ppo_update(policy, optimizer, experience, SETTINGS, pad_id=PAD, seed=0)

    def plain() -> None:
        optimizer.zero_grad()
        _plain_gradient(policy, experience)
        nn.utils.clip_grad_norm_(policy.parameters(), SETTINGS.grad_clip)
        optimizer.step()

    return {"plain": plain, "ours": ours}


def _plain_gradient(policy: ActorCritic, experience: Experience) -> None:
    """The same loss, the way a trainer computes it that looks at all positions."""
    total = experience.mask_BG.sum()
    for start in range(0, len(experience.rollouts), MICRO_BATCH):
        chosen = slice(start, start + MICRO_BATCH)
        rollouts = experience.rollouts[chosen]
        width = max(len(one.response) for one in rollouts)
        logps_BG, values_BG = _plain_scores(policy, rollouts, width)

        def of(values_BG: Tensor, chosen: slice = chosen, width: int = width) -> Tensor:
            return values_BG[chosen, :width]

        ratio_BG = (logps_BG - of(experience.old_logps_BG)).exp()
        advantages_BG, returns_BG = of(experience.advantages_BG), of(experience.returns_BG)
        clipped_BG = ratio_BG.clamp(1 - SETTINGS.clip, 1 + SETTINGS.clip)
        policy_BG = -torch.minimum(ratio_BG * advantages_BG, clipped_BG * advantages_BG)
        old_BG = of(experience.old_values_BG)
        assert SETTINGS.value_clip is not None
        near_BG = old_BG + (values_BG - old_BG).clamp(-SETTINGS.value_clip, SETTINGS.value_clip)
        value_BG = 0.5 * torch.maximum((values_BG - returns_BG) ** 2, (near_BG - returns_BG) ** 2)
        loss_BG = (policy_BG + SETTINGS.value_coef * value_BG) * of(experience.mask_BG)
        (loss_BG.sum() / total).backward()  # type: ignore[no-untyped-call]


def _plain_scores(
    policy: ActorCritic, rollouts: Sequence[Rollout], width: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of the responses, `[B, G]`, by logits of all positions."""
    prompt_tok = max(len(one.prompt) for one in rollouts)
    ids_BT = torch.full((len(rollouts), prompt_tok + width), PAD)
    mask_BT = torch.zeros_like(ids_BT)
    for row, one in enumerate(rollouts):
        first, last = prompt_tok - len(one.prompt), prompt_tok + len(one.response)
        ids_BT[row, first:last] = torch.tensor(one.prompt + one.response)
        mask_BT[row, first:last] = 1
    out = policy.actor(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0),
        output_hidden_states=True,
        use_cache=False,
    )
    logps_BTV = out.logits[:, :-1].float().log_softmax(-1)
    logps_BT = logps_BTV.gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
    values_BT = policy.value_head(out.hidden_states[-1].float()).squeeze(-1)
    return logps_BT[:, prompt_tok - 1 :], values_BT[:, prompt_tok - 1 : -1]


class _Keeping(torch.optim.SGD):
    """Keeps the gradients of its last step."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        del closure
        found = (one.grad for group in self.param_groups for one in group["params"])
        self.kept = [grad.clone() for grad in found if grad is not None]


def _largest_difference(policy: ActorCritic, experience: Experience) -> float:
    """Between both gradients, relative to the largest entry of each parameter's."""
    unclipped = PPOSettings(micro_batch=MICRO_BATCH, value_coef=SETTINGS.value_coef, grad_clip=1e9)
    optimizer = _Keeping(policy.parameters(), lr=0.0)
    ppo_update(policy, optimizer, experience, unclipped, pad_id=PAD, seed=0)
    ours = optimizer.kept
    _plain_gradient(policy, experience)
    plain = [one.grad.clone() for one in policy.parameters() if one.grad is not None]
    policy.zero_grad()
    assert len(ours) == len(plain) == len(list(policy.parameters()))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, plain, strict=True))


def _rollouts(model: nn.Module, rollouts: Sequence[Rollout]) -> dict[str, Callable[[], object]]:
    assert isinstance(model, LlamaForCausalLM)
    prompts = [one.prompt for one in rollouts]
    sampling = Sampling(
        max_new_tokens=RATIONALE_TOK,
        eos_ids=frozenset({EOS}),
        max_length=QUESTION_TOK + RATIONALE_TOK,
        max_rows=MICRO_BATCH,
    )

    def ours() -> object:
        return sample(model, prompts, range(len(prompts)), sampling=sampling, pad_id=PAD)

    def plain() -> None:
        torch.manual_seed(0)
        for start in range(0, len(prompts), MICRO_BATCH):
            _generate(model, prompts[start : start + MICRO_BATCH])

    return {"plain": plain, "ours": ours}


@torch.no_grad()
def _generate(model: LlamaForCausalLM, prompts: Sequence[Sequence[int]]) -> None:
    width = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), width), PAD)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, width - len(prompt) :] = 1
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    model.generate(  # type: ignore[misc]
        ids_BT,
        attention_mask=mask_BT,
        do_sample=True,
        top_k=0,
        max_new_tokens=RATIONALE_TOK,
        pad_token_id=PAD,
        eos_token_id=EOS,
        stopping_criteria=StoppingCriteriaList([_FullRows(lengths, width)]),
    )


class _FullRows(StoppingCriteria):
    """Ends each row at its own length, as a policy would that has learnt when to stop."""

    def __init__(self, lengths_B: Tensor, width: int) -> None:
        self.room_B = QUESTION_TOK + RATIONALE_TOK - lengths_B
        self.width = width

    def __call__(self, input_ids: Tensor, scores: object, **kwargs: object) -> Tensor:
        del scores, kwargs
        return input_ids.shape[1] - self.width >= self.room_B


def _speed(shape: Shape, what: str, rollouts: Sequence[Rollout], plain: Row, ours: Row) -> str:
    tokens = sum(len(one.response) for one in rollouts)
    speeds = [tokens / statistics.median(row.seconds) for row in (plain, ours)]
    memory = [row.peak_bytes / 2**20 for row in (plain, ours)]
    return (
        f"{shape.name}, {what}: {speeds[0]:.0f} generated tokens/s plain, {speeds[1]:.0f} ours; "
        f"peak memory {memory[0]:.0f} and {memory[1]:.0f} MiB"
    )


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
