"""A tiny policy and tiny experience; as a program, one of several processes that update together.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python tinyrl.py <folder>

The program runs every case of `CASES` and writes `<folder>/<rank>.json`.
"""

import json
import math
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from papercore.cli import leave_process_group
from papercore.rl.rollouts import Rollout, pack, padded, ragged
from papercore.rl.settings import PPOSettings
from papercore.rl.update import Experience, ppo_update

VOCAB, WIDTH, PAD = 11, 6, 0
LENGTHS = (4, 1, 6, 2, 3, 5)
PLAIN = PPOSettings(micro_batch=3, grad_clip=1e9)


class Scored(NamedTuple):
    logps_N: torch.Tensor
    entropy_N: torch.Tensor
    values_N: torch.Tensor


class TinyPolicy(nn.Module):
    """Each token from the running mean of embeddings before it; values from the same, or own."""

    def __init__(self, seed=0, *, shared=True):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, WIDTH, dtype=torch.float64)
        self.head = nn.Linear(WIDTH, VOCAB, dtype=torch.float64)
        self.critic = None if shared else nn.Embedding(VOCAB, WIDTH, dtype=torch.float64)
        self.value = nn.Linear(WIDTH, 1, dtype=torch.float64)

    def hidden(self, embed, ids_BT):
        count_T1 = torch.arange(1, ids_BT.shape[1] + 1, dtype=torch.float64)[:, None]
        return torch.tanh(embed(ids_BT).cumsum(dim=1) / count_T1)

    def forward(self, batch, *, temperature=1.0):
        at = (batch.row_N, batch.at_N - 1)
        hidden_ND = self.hidden(self.embed, batch.ids_BT)[at]
        all_NV = torch.log_softmax(self.head(hidden_ND) / temperature, dim=-1)
        if self.critic is not None:
            hidden_ND = self.hidden(self.critic, batch.ids_BT)[at]
        return Scored(
            all_NV.gather(1, batch.targets_N[:, None])[:, 0],
            -(all_NV.exp() * all_NV).sum(dim=1),
            self.value(hidden_ND)[:, 0],
        )

    def groups(self):
        critic = [*self.value.parameters(), *(self.critic.parameters() if self.critic else ())]
        own = {id(one) for one in critic}
        policy = [one for one in self.parameters() if id(one) not in own]
        return [{"params": policy, "name": "policy"}, {"params": critic, "lr": 0.05}]

    def sgd(self):
        """Unlike Adam it shows the size of a gradient."""
        return torch.optim.SGD(self.groups(), lr=0.3)

    def adamw(self):
        """It moves parameters that have a gradient of zero."""
        return torch.optim.AdamW(self.groups(), lr=0.02, weight_decay=0.1)

    def weights(self):
        return {name: one.tolist() for name, one in self.state_dict().items()}


def experience(policy, lengths, seed=0, *, temperature=1.0, **changes):
    """Rollouts of these lengths with old values near the policy's, and made-up worth."""
    make = torch.Generator().manual_seed(seed)

    def draw(count):
        return tuple(torch.randint(VOCAB, (count,), generator=make).tolist())

    def noise(scale):
        shape = (len(lengths), max(lengths, default=0))
        return scale * torch.randn(shape, generator=make, dtype=torch.float64)

    rollouts = tuple(Rollout(draw(1 + n % 3), draw(n), (0.0,) * n, ended=True) for n in lengths)
    if not rollouts:
        nothing_BG = torch.zeros(0, 0, dtype=torch.float64)
        return Experience((), nothing_BG.bool(), *[nothing_BG] * 4, ref_logps_BG=nothing_BG)
    with torch.no_grad():
        scored = policy(pack(rollouts, pad_id=PAD), temperature=temperature)
    logps_BG = padded(scored.logps_N, lengths)
    values_BG = padded(scored.values_N, lengths)
    found = Experience(
        rollouts,
        mask_BG=padded(torch.ones(sum(lengths)), lengths) > 0,
        old_logps_BG=logps_BG + noise(0.2),
        advantages_BG=noise(1.0),
        returns_BG=values_BG + noise(0.5),
        old_values_BG=values_BG + noise(0.2),
        ref_logps_BG=logps_BG + noise(0.3),
    )
    return replace(found, **changes)


def joined(parts):
    """The rollouts of several processes in one."""
    parts = [one for one in parts if one.rollouts]
    rollouts = tuple(row for one in parts for row in one.rollouts)
    lengths = [len(one.response) for one in rollouts]

    def join(name):
        found = [getattr(one, name) for one in parts]
        if found[0] is None:
            return None
        flat = [ragged(x, one.lengths) for x, one in zip(found, parts, strict=True)]
        return padded(torch.cat(flat), lengths)

    names = [one.name for one in fields(Experience)][1:]
    return Experience(rollouts, **{name: join(name) for name in names})


def updated(settings, part=None, *, seed=5, policy=None, optimizer=None, **options):
    """A policy after an update, and what the update said."""
    policy = policy or TinyPolicy()
    part = part or experience(policy, LENGTHS)
    optimizer = optimizer or policy.sgd()
    stats = ppo_update(policy, optimizer, part, settings, pad_id=0, seed=seed, **options)
    return policy, stats


class Case(NamedTuple):
    lengths: tuple[tuple[int, ...], ...]
    """Of each process's rollouts."""
    settings: PPOSettings
    shared: bool = True
    train_policy: bool = True
    spoil: bool = False
    """Whether the last process has an advantage that is not a number."""
    policy_share: int = 1
    """Every how manieth token bears the policy loss."""
    updates: int = 1
    adamw: bool = False

    def settings_of_one(self):
        """What makes one process deal the rollouts of all like they do."""
        equal = len({len(one) for one in self.lengths}) == 1
        return replace(self.settings, shards=len(self.lengths) if equal else 1)


EVEN = ((1, 5, 3, 2, 7, 4), (6, 2, 9, 1, 1, 8))
UNEVEN = ((4, 1, 6, 2, 3), (9, 2, 5))
TWICE = PPOSettings(epochs=2, minibatches=2, micro_batch=2, grad_clip=1e9)
ONCE = PPOSettings(epochs=2, micro_batch=2, grad_clip=1e9)
CASES = {
    "token": Case(EVEN, replace(TWICE, kl_coef=0.1, entropy_coef=0.05)),
    "sequence": Case(EVEN, replace(TWICE, reduction="sequence")),
    "clipped gradient": Case(EVEN, replace(TWICE, grad_clip=0.05)),
    "uneven token": Case(UNEVEN, ONCE),
    "uneven sequence": Case(UNEVEN, replace(ONCE, reduction="sequence")),
    "one has none": Case(((4, 1, 6), ()), ONCE),
    "masked, by all": Case(EVEN, replace(TWICE, normalise="all"), policy_share=3),
    "masked, by its own": Case(EVEN, replace(TWICE, reduction="sequence"), policy_share=3),
    "separate critic": Case(EVEN, TWICE, shared=False, updates=2, adamw=True),
    "warm-up": Case(EVEN, TWICE, train_policy=False, updates=2, adamw=True),
    "warm-up, separate critic": Case(
        *(EVEN, TWICE), shared=False, train_policy=False, updates=2, adamw=True
    ),
    "spoilt": Case(EVEN, ONCE, spoil=True),
}


def parts_of(case, policy):
    """Each process's experience."""
    parts = []
    for rank, lengths in enumerate(case.lengths):
        part = experience(policy, lengths, seed=rank)
        if case.policy_share > 1:
            places = torch.arange(part.mask_BG.numel()).view(part.mask_BG.shape)
            masked = part.mask_BG & (places % case.policy_share == 0)
            part = replace(part, policy_mask_BG=masked)
        parts.append(part)
    if case.spoil:
        parts[-1].advantages_BG[0, 0] = math.nan
    return parts


def run(case, policy, optimizer, part, settings, accelerator=None):
    """Updates on the same experience, with a deal of its own each."""
    return [
        ppo_update(
            policy,
            optimizer,
            part,
            settings,
            pad_id=PAD,
            seed=seed,
            accelerator=accelerator,
            train_policy=case.train_policy,
        )
        for seed in range(case.updates)
    ]


def main(folder):
    from accelerate import Accelerator

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    found = {"processes": accelerator.num_processes}
    for name, case in CASES.items():
        tiny = TinyPolicy(shared=case.shared)
        part = parts_of(case, tiny)[accelerator.process_index]
        optimizer = tiny.adamw() if case.adamw else tiny.sgd()
        policy, optimizer = accelerator.prepare(tiny, optimizer)
        stats = run(case, policy, optimizer, part, case.settings, accelerator)
        found[name] = {
            "weights": tiny.weights(),
            "stats": [asdict(one) for one in stats],
        }
    path = Path(folder) / f"{accelerator.process_index}.json"
    path.write_text(json.dumps(found))
    del policy, optimizer  # they hold the group
    leave_process_group()
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in threads), "the group lives on"


if __name__ == "__main__":
    main(sys.argv[1])
