"""The golden values, again with slow loops over plain numbers, and our code against them.

As a program it writes the file: `python shared/tests/test_rl_golden.py`.
"""

import inspect
import json
import math
from pathlib import Path

import pytest
import torch

import papercore.testing.golden as golden_module
from papercore.rl.estimators import gae, kl_estimate, token_rewards, whiten
from papercore.rl.losses import policy_loss, token_weights, value_loss
from papercore.testing.golden import FILE, GoldenCase, golden

VALUES = [[0.3, -0.1, 0.7, 0.25], [0.9, 0.0, 0.0, 0.0], [-0.4, 0.6, 0.0, 0.0]]
REWARDS = [[-0.01, 0.02, -0.03, 1.0], [0.2, 0.0, 0.0, 0.0], [0.0, -1.5, 0.0, 0.0]]
RAGGED = [[True] * 4, [True, False, False, False], [True, True, False, False]]
HOLES = [[True, False, True, True], [False] * 4, [False, True, False, True]]
LOGPS = [-0.1, -2.3, -0.7, -4.0, -1.2, -0.05, -3.3]
OTHERS = [-0.4, -1.1, -0.7, -4.6, -1.1, -0.06, -1.3]

GIVEN = {
    "token_rewards": {
        "score only": {"scores_B": [1.0, 0.2, -0.5], "lengths": [4, 1, 2]},
        "penalty": {
            "scores_B": [1.0, 0.2, -0.5],
            "lengths": [4, 1, 2],
            "kl_BG": VALUES,
            "beta": 0.3,
        },
        "clipped score and penalty": {
            "scores_B": [9.0, 0.2, -7.5],
            "lengths": [4, 1, 2],
            "kl_BG": VALUES,
            "beta": 0.05,
            "score_clip": 5.0,
        },
    },
    "gae": {
        "as in the paper": {
            "rewards_BG": REWARDS,
            "values_BG": VALUES,
            "mask_BG": RAGGED,
            "gamma": 1.0,
            "lam": 0.95,
        },
        "discounted, two cut off": {
            "rewards_BG": REWARDS,
            "values_BG": VALUES,
            "mask_BG": RAGGED,
            "gamma": 0.9,
            "lam": 0.8,
            "bootstrap_B": [0.4, 0.0, -0.8],
        },
        "holes": {
            "rewards_BG": REWARDS,
            "values_BG": VALUES,
            "mask_BG": HOLES,
            "gamma": 0.99,
            "lam": 0.5,
            "bootstrap_B": [0.0, 0.3, 0.2],
        },
    },
    "whiten": {
        "ragged": {"x_BG": VALUES, "mask_BG": RAGGED, "shift_mean": True},
        "mean kept": {"x_BG": VALUES, "mask_BG": RAGGED, "shift_mean": False},
        "holes": {"x_BG": REWARDS, "mask_BG": HOLES, "shift_mean": True},
        "one token": {"x_BG": [[0.7, 0.1]], "mask_BG": [[True, False]], "shift_mean": True},
        "one token, mean kept": {
            "x_BG": [[0.7, 0.1]],
            "mask_BG": [[True, False]],
            "shift_mean": False,
        },
        "all equal": {"x_BG": [[0.5, 0.5]], "mask_BG": [[True, True]], "shift_mean": True},
    },
    "kl": {
        kind: {"logps_N": LOGPS, "ref_logps_N": OTHERS, "kind": kind} for kind in ("k1", "k2", "k3")
    },
    "policy_loss": {
        "both signs": {
            "logps_N": LOGPS,
            "old_logps_N": OTHERS,
            "advantages_N": [1.5, 1.5, -0.3, -0.3, 0.0, -2.0, -2.0],
            "clip": 0.2,
        },
        "other signs, weighted": {
            "logps_N": LOGPS,
            "old_logps_N": OTHERS,
            "advantages_N": [-1.5, -1.5, 0.3, 0.3, 2.0, 2.0, 2.0],
            "weights_N": [1.0, 0.5, 2.0, 1.0, 0.0, 1.3, 0.1],
            "clip": 0.1,
        },
    },
    "value_loss": {
        "clipped": {
            "values_N": [0.3, 0.9, -0.5, 0.0, 1.0],
            "old_values_N": [0.2, 0.1, 0.1, 0.0, 2.0],
            "returns_N": [1.0, 1.0, 1.0, 0.0, 0.5],
            "clip": 0.2,
        },
        "free": {
            "values_N": [0.3, 0.9, -0.5, 0.0, 1.0],
            "old_values_N": [0.2, 0.1, 0.1, 0.0, 2.0],
            "returns_N": [1.0, 1.0, 1.0, 0.0, 0.5],
            "clip": None,
        },
    },
    "token_weights": {
        "token": {"mask_BG": RAGGED, "reduction": "token"},
        "sequence": {"mask_BG": RAGGED, "reduction": "sequence"},
        "masked, token": {"mask_BG": HOLES, "reduction": "token"},
        "masked, sequence": {"mask_BG": HOLES, "reduction": "sequence"},
        "masked, divided by all, sequence": {
            "mask_BG": [[True, False, True, True], [False] * 4, [False, True, False, False]],
            "count_BG": RAGGED,
            "reduction": "sequence",
        },
    },
}


# --- slow and plain


def slow_token_rewards(scores_B, lengths, kl_BG=None, beta=0.0, score_clip=math.inf):
    rows = []
    for row, (score, length) in enumerate(zip(scores_B, lengths, strict=True)):
        found = [0.0] * max(lengths)
        for token in range(length):
            found[token] = -beta * kl_BG[row][token] if kl_BG else 0.0
        found[length - 1] += min(max(score, -score_clip), score_clip)
        rows.append(found)
    return {"rewards_BG": rows}


def slow_gae(rewards_BG, values_BG, mask_BG, gamma, lam, bootstrap_B=None):
    advantages_BG, returns_BG = [], []
    for row, mask in enumerate(mask_BG):
        at = [token for token, on in enumerate(mask) if on]
        values = [values_BG[row][token] for token in at]
        values.append(bootstrap_B[row] if bootstrap_B else 0.0)
        rewards = [rewards_BG[row][token] for token in at]
        errors = [rewards[i] + gamma * values[i + 1] - values[i] for i in range(len(at))]
        advantages, returns = [0.0] * len(mask), [0.0] * len(mask)
        for i, token in enumerate(at):
            terms = [(gamma * lam) ** (j - i) * errors[j] for j in range(i, len(at))]
            advantages[token] = math.fsum(terms)
            returns[token] = advantages[token] + values[i]
        advantages_BG.append(advantages)
        returns_BG.append(returns)
    return {"advantages_BG": advantages_BG, "returns_BG": returns_BG}


def slow_whiten(x_BG, mask_BG, shift_mean):
    places = [(b, g) for b, row in enumerate(mask_BG) for g, on in enumerate(row) if on]
    kept = [x_BG[b][g] for b, g in places]
    mean = math.fsum(kept) / len(kept)
    var = 0.0
    if len(kept) > 1:
        var = math.fsum((value - mean) ** 2 for value in kept) / (len(kept) - 1)
    divisor = math.sqrt(var + 1e-8) if var > 1e-8 else 1.0
    found = [[0.0] * len(row) for row in x_BG]
    for b, g in places:
        found[b][g] = (x_BG[b][g] - (mean if shift_mean else 0.0)) / divisor
    return {"whitened_BG": found}


def slow_kl(logps_N, ref_logps_N, kind):
    found = []
    for logp, reference in zip(logps_N, ref_logps_N, strict=True):
        ratio = math.exp(reference) / math.exp(logp)
        estimates = {
            "k1": -math.log(ratio),
            "k2": math.log(ratio) ** 2 / 2,
            "k3": ratio - 1 - math.log(ratio),
        }
        found.append(estimates[kind])
    return {"kl_N": found}


def slow_policy_loss(logps_N, old_logps_N, advantages_N, clip, weights_N=None):
    losses, flags = [], []
    for i, advantage in enumerate(advantages_N):
        ratio = math.exp(logps_N[i]) / math.exp(old_logps_N[i])
        held = min(max(ratio, 1 - clip), 1 + clip)
        gain = min(ratio * advantage, held * advantage)
        losses.append(-gain * (weights_N[i] if weights_N else 1.0))
        flags.append(gain < ratio * advantage)
    return {"loss_N": losses, "clipped_N": flags}


def slow_value_loss(values_N, old_values_N, returns_N, clip):
    losses = []
    for value, old, target in zip(values_N, old_values_N, returns_N, strict=True):
        worst = (value - target) ** 2
        if clip is not None:
            held = min(max(value, old - clip), old + clip)
            worst = max(worst, (held - target) ** 2)
        losses.append(worst / 2)
    return {"loss_N": losses}


def slow_token_weights(mask_BG, reduction, count_BG=None):
    counts = [sum(row) for row in count_BG or mask_BG]
    rows = []
    for mask, count in zip(mask_BG, counts, strict=True):
        if reduction == "token":
            weight = 1 / sum(counts)
        else:
            weight = 1 / count / sum(other > 0 for other in counts) if count else 0.0
        rows.append([weight if on else 0.0 for on in mask])
    return {"weights_BG": rows}


SLOW = {
    "token_rewards": slow_token_rewards,
    "gae": slow_gae,
    "whiten": slow_whiten,
    "kl": slow_kl,
    "policy_loss": slow_policy_loss,
    "value_loss": slow_value_loss,
    "token_weights": slow_token_weights,
}


# --- the file, and our code


def close(found, expected, **tolerance):
    """Nested lists of numbers, booleans exactly."""
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other, **tolerance)
    elif isinstance(expected, bool):
        assert found is expected
    else:
        assert found == pytest.approx(expected, **tolerance)


def compare(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        close(found[name], value, **tolerance)


def ours(name, given, dtype):
    """The function under test on tensors."""
    args = {
        key: torch.tensor(value, dtype=None if "mask" in key or "count" in key else dtype)
        if key.endswith(("_BG", "_B", "_N"))
        else value
        for key, value in given.items()
    }
    if name == "token_rewards":
        found = {"rewards_BG": token_rewards(**args)}
    elif name == "gae":
        found = dict(zip(("advantages_BG", "returns_BG"), gae(**args), strict=True))
    elif name == "whiten":
        found = {"whitened_BG": whiten(**args)}
    elif name == "kl":
        found = {"kl_N": kl_estimate(args["logps_N"], args["ref_logps_N"], args["kind"])}
    elif name == "policy_loss":
        found = dict(zip(("loss_N", "clipped_N"), policy_loss(**args), strict=True))
    elif name == "value_loss":
        found = {"loss_N": value_loss(**args)}
    else:
        found = {"weights_BG": token_weights(**args)}
    return {key: value.tolist() for key, value in found.items()}


CASES = [
    pytest.param(name, case, id=f"{name}, {case.name}") for name in SLOW for case in golden(name)
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_file_holds_what_slow_loops_find(name, case):
    assert GIVEN[name][case.name] == case.given
    compare(SLOW[name](**case.given), case.expected, rel=1e-12, abs=1e-15)


def test_the_file_holds_every_case():
    found = {name: [case.name for case in golden(name)] for name in SLOW}
    assert found == {name: list(cases) for name, cases in GIVEN.items()}


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=["64", "32"]
)
def test_our_code_finds_what_the_file_holds(name, case, dtype, tolerance):
    compare(ours(name, case.given, dtype), case.expected, rel=tolerance, abs=tolerance)


def test_the_losses_cover_every_side_of_the_clip():
    sides = set()
    for case in golden("policy_loss"):
        given = case.given
        for i, advantage in enumerate(given["advantages_N"]):
            ratio = math.exp(given["logps_N"][i] - given["old_logps_N"][i])
            place = (ratio > 1 + given["clip"]) - (ratio < 1 - given["clip"])
            sides.add((place, (advantage > 0) - (advantage < 0)))
    assert {(place, sign) for place in (-1, 0, 1) for sign in (-1, 1)} <= sides


def test_a_case_names_its_arguments():
    case = golden("kl")[0]
    assert isinstance(case, GoldenCase)
    assert list(case.given) == ["logps_N", "ref_logps_N", "kind"]


def write():
    """Writes the file next to its reader."""
    document = {
        name: [
            {"name": case, "given": given, "expected": SLOW[name](**given)}
            for case, given in cases.items()
        ]
        for name, cases in GIVEN.items()
    }
    rows = []
    for name, cases in document.items():
        lines = ",\n".join("    " + json.dumps(case) for case in cases)
        rows.append(f'  "{name}": [\n{lines}\n  ]')
    path = Path(inspect.getfile(golden_module)).parent / FILE
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    write()
