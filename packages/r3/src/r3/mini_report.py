"""What the miniature comes to, from its records alone. No torch here.

Records: `look/<arm>/<step>` (which start values were solved), `arm/<arm>` (what an arm was given
and how its rollouts did), `depths` (a policy made by hand), `gradients` (of one training step).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, cast

import numpy as np

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, lines_with_intervals
from papercore.records import Record
from papercore.stats import Floats, bootstrap, bootstrap_mean, exact, paired_difference, wilson
from papercore.tables import Table

__all__ = [
    "ARMS",
    "DEPTHS",
    "GRADIENTS",
    "GROUPS",
    "METHOD",
    "TUNED",
    "arm_id",
    "figures",
    "look_id",
    "summarise",
    "tables",
]

TUNED: Final = "sft"
"""The tuned model, where all arms start."""
METHOD: Final = "r3"
PLAIN: Final = "rl"
FREE: Final = "free"
"""Plain RL that the KL penalty holds back less."""
STAGED: Final = "staged"
ARMS: Final = (METHOD, PLAIN, FREE, STAGED)
NAMES: Mapping[str, str] = {
    METHOD: "R3",
    PLAIN: "plain RL",
    FREE: "plain RL, beta 0.01",
    STAGED: "staged RL",
}

GROUPS: Final = ("held_out", "trained")
"""Start values that begin no demonstration, and those that do."""

DEPTHS: Final = "depths"
GRADIENTS: Final = "gradients"

MODES: Final = ("greedy", "sampled")
BIN_STEPS: Final = 5
"""Steps whose rollouts are counted together in a figure."""

STAGED_NOTE: Final = (
    "Staged RL is shown without a bar: this task has one skill that is the same at every depth, "
    "and there it may win; the paper's tasks are not so."
)


def arm_id(arm: str) -> str:
    """Id of the record of an arm."""
    return f"arm/{arm}"


def look_id(arm: str, step: int) -> str:
    """Id of the record of what an arm solves after so many steps."""
    return f"look/{arm}/{step}"


@dataclass(frozen=True)
class _Score:
    """Right answers by start value, of so many each."""

    starts: tuple[int, ...]
    right: tuple[int, ...]
    draws: int

    @property
    def shares(self) -> Floats:
        """Of each start value."""
        return np.asarray(self.right, dtype=np.float64) / self.draws

    def share(self) -> Estimate:
        """Over all of them; draws from one start value share its fate, so these are clusters."""
        if self.draws == 1:
            return wilson(sum(self.right), len(self.right))
        return bootstrap_mean(self.shares, groups=self.starts)


Key: TypeAlias = tuple[str, int, str, str]
"""Arm, step, group, and what is counted: `greedy`, `sampled`, or either with `_steps`."""
Scores: TypeAlias = Mapping[Key, _Score]


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Every metric of the miniature.

    `<arm>_<greedy or sampled>_<step>` is the share of held-out questions that are solved from the
    bare question; with `_every_step` those whose every step is right; with `_trained` the same of
    the start values that demonstrations begin with. `sft` is the tuned model, at step 0.
    `rl_over_r3_sampled_<step>` and `r3_minus_rl_sampled_<step>` are paired over held-out questions;
    so are those of `free`.
    `tokens_<arm>` were generated, `tokens_r3_over_rl` is their ratio.

    `tabular_gap` is the largest distance over depths between how often a policy made by hand
    succeeds and the chance that it should have. `prefix_gradient` is the largest gradient of the
    loss at a token of question or prefix, `generated_learnt` the share of generated tokens that
    have one.
    """
    scores = _scores(records)
    found = {_metric(key): score.share() for key, score in scores.items()}
    return found | _compared(scores) | _tokens(records) | _tabular(records) | _gradients(records)


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Success by step, success of rollouts by depth, and the check of the policy made by hand."""
    scores = _scores(records)
    if not scores:
        return []
    made = [_curves(scores, into, mode) for mode in ("sampled", "greedy")]
    made += [_shortcuts(scores, into), _by_depth(records, into)]
    return made + [_tabular_figure(rows, into) for rows in _rates(records)]


def tables(records: Sequence[Record]) -> list[Table]:
    """All looks at all arms."""
    scores = _scores(records)
    if not scores:
        return []
    looks = list(dict.fromkeys((arm, step) for arm, step, *_ in scores))
    counted = [f"{mode}{part}" for mode in MODES for part in ("", "_steps")]
    header = [
        f"{group.replace('_', ' ')}, {kind.replace('_steps', ', every step')}"
        for group in GROUPS
        for kind in counted
    ]
    rows: list[list[str | int | float]] = []
    for arm, step in looks:
        cells = [(arm, step, group, kind) for group in GROUPS for kind in counted]
        shares = [scores[cell].share().value for cell in cells]
        rows.append([NAMES.get(arm, "tuned model"), step, *shares])
    return [
        Table(
            "looks",
            "Solved from the bare question",
            "Shares of start values (greedy) or of answers to them (sampled, temperature 1). An "
            "answer is right if its last value is; 'every step' asks for the whole chain, which "
            f"one wrong chain in a hundred does not need to end well. {STAGED_NOTE}",
            ("arm", "step", *header),
            rows,
        )
    ]


def _scores(records: Sequence[Record]) -> Scores:
    return dict(_read(records))


def _read(records: Sequence[Record]) -> Iterator[tuple[Key, _Score]]:
    for record in records:
        if not record.id.startswith("look/"):
            continue
        arm, step = cast("str", record.data["arm"]), cast("int", record.data["step"])
        for group in GROUPS:
            data = cast("Mapping[str, Sequence[int]]", record.data[group])
            starts, draws = tuple(data["starts"]), cast("int", data["draws"])
            for mode in MODES:
                for kind in (mode, f"{mode}_steps"):
                    num = draws if mode == "sampled" else 1
                    yield (arm, step, group, kind), _Score(starts, tuple(data[kind]), num)


def _metric(key: Key) -> str:
    arm, step, group, kind = key
    mode = kind.removesuffix("_steps")
    trained = "_trained" if group == "trained" else ""
    return f"{arm}_{mode}_{step}{trained}{'_every_step' if kind != mode else ''}"


def _compared(scores: Scores) -> dict[str, Estimate]:
    """R3 against plain RL, start value by start value."""
    found: dict[str, Estimate] = {}
    for (arm, step, group, kind), theirs in scores.items():
        ours = scores.get((METHOD, step, group, kind))
        if arm not in (PLAIN, FREE) or (group, kind) != ("held_out", "sampled") or ours is None:
            continue
        pair, groups = (ours.shares, theirs.shares), ours.starts
        found[f"{arm}_over_r3_sampled_{step}"] = bootstrap(_ratio, *pair[::-1], groups=groups)
        found[f"r3_minus_{arm}_sampled_{step}"] = paired_difference(*pair, groups=groups)
    return found


def _ratio(over: Floats, under: Floats) -> float:
    """Of means; NaN if there is nothing to compare with."""
    return float(over.mean() / under.mean()) if under.any() else float("nan")


def _arms(records: Sequence[Record]) -> dict[str, Record]:
    return {arm: one for arm in ARMS for one in records if one.id == arm_id(arm)}


def _tokens(records: Sequence[Record]) -> dict[str, Estimate]:
    counts = {arm: cast("int", one.data["tokens"]) for arm, one in _arms(records).items()}
    found = {f"tokens_{arm}": exact(count, 1) for arm, count in counts.items()}
    if METHOD in counts and PLAIN in counts:
        found["tokens_r3_over_rl"] = exact(counts[METHOD] / counts[PLAIN], 1)
    return found


def _rates(records: Sequence[Record]) -> list[Sequence[Mapping[str, float]]]:
    """The rows of the policy made by hand, if it was measured."""
    return [
        cast("Sequence[Mapping[str, float]]", one.data["depths"])
        for one in records
        if one.id == DEPTHS
    ]


def _tabular(records: Sequence[Record]) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for rows in _rates(records):
        gap = max(abs(row["right"] / row["num"] - row["expected"]) for row in rows)
        found["tabular_gap"] = exact(gap, len(rows))
    return found


def _gradients(records: Sequence[Record]) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for one in records:
        if one.id == GRADIENTS:
            data = cast("Mapping[str, float]", one.data)
            found["prefix_gradient"] = exact(data["given"], int(data["num_given"]))
            found["generated_learnt"] = exact(data["learnt"], int(data["num_generated"]))
    return found


def _curves(scores: Scores, into: Path, mode: str) -> Figure:
    drawn = mode == "sampled"
    how = "drawn tokens (temperature 1)" if drawn else "the likeliest tokens"
    bands = "from a bootstrap over start values" if drawn else "Wilson, over start values"
    frame = Frame(
        f"solved_{mode}",
        f"Held-out questions solved from the bare question, {mode}",
        f"With {how}. All arms have the same rollouts and updates per step. Bands: 95 %, {bands}. "
        f"{STAGED_NOTE}",
        x="training steps",
        y="share solved",
        y_range=(0.0, 1.0),
    )
    return lines_with_intervals(into, frame, _by_arm(scores, "held_out", mode))


def _shortcuts(scores: Scores, into: Path) -> Figure:
    series = {
        f"{NAMES[arm]}: {said}": points
        for kind, said in (("sampled", "right answer"), ("sampled_steps", "right in every step"))
        for arm, points in _by_arm(scores, "trained", kind, named=False).items()
        if arm != STAGED
    }
    frame = Frame(
        "shortcuts",
        "Questions of the demonstrations: right answers, and right chains",
        "Sampled, from start values that training has seen. A wrong chain ends on the right value "
        "once in a hundred times, and outcome reward cannot tell: whatever an arm gains in right "
        "answers beyond right chains is such chains, learnt start value by start value. "
        "Bands: 95 %, from a bootstrap over start values.",
        x="training steps",
        y="share of answers",
        y_range=(0.0, 1.0),
    )
    return lines_with_intervals(into, frame, series)


def _by_arm(
    scores: Scores, group: str, kind: str, *, named: bool = True
) -> dict[str, dict[float, Estimate]]:
    """Arm -> step -> share; all of them begin at the tuned model."""
    found: dict[str, dict[float, Estimate]] = {}
    for arm in ARMS:
        points = {
            float(step): score.share()
            for (who, step, where, what), score in scores.items()
            if who in (TUNED, arm) and (where, what) == (group, kind)
        }
        found[NAMES[arm] if named else arm] = dict(sorted(points.items()))
    return found


def _by_depth(records: Sequence[Record], into: Path) -> Figure:
    frame = Frame(
        "depths",
        "Success of rollouts in training, by where they start",
        f"Depth 0 is the bare question; {BIN_STEPS} steps are counted together. R3 earns rewards "
        "near the answer from the first step on, and farther away as the steps there are learnt; "
        "plain RL waits for a whole chain. Bands: 95 %, Wilson, over rollouts, which share start "
        "values.",
        x="training steps",
        y="share of rollouts",
        y_range=(0.0, 1.0),
    )
    series: dict[str, dict[float, Estimate]] = {}
    arms = _arms(records)
    for arm in (METHOD, PLAIN):
        rows = cast("Sequence[Sequence[int]]", arms[arm].data["rollouts"]) if arm in arms else ()
        for depth in sorted({row[1] for row in rows}):
            series[f"{NAMES[arm]}, depth {depth}"] = _binned(rows, depth)
    return lines_with_intervals(into, frame, series)


def _binned(rows: Sequence[Sequence[int]], depth: int) -> dict[float, Estimate]:
    """Success of rollouts from a depth; x is the last step that is counted."""
    counts: dict[int, tuple[int, int]] = {}
    for step, where, num, right in rows:
        if where == depth:
            last = -(-step // BIN_STEPS) * BIN_STEPS
            before = counts.get(last, (0, 0))
            counts[last] = (before[0] + right, before[1] + num)
    return {float(last): wilson(right, num) for last, (right, num) in counts.items()}


def _tabular_figure(rows: Sequence[Mapping[str, float]], into: Path) -> Figure:
    frame = Frame(
        "tabular",
        "A policy made by hand: success by depth",
        "Each step is right with one probability p. Verified rollouts through cutter, sampler and "
        "verifier, against the chance p^(T-k) from behind k of T steps. Bands: 95 %, Wilson.",
        x="right steps given",
        y="share of rollouts",
        y_range=(0.0, 1.0),
    )
    measured = {row["depth"]: wilson(int(row["right"]), int(row["num"])) for row in rows}
    wanted = {row["depth"]: exact(row["expected"], int(row["num"])) for row in rows}
    return lines_with_intervals(into, frame, {"measured": measured, "p^(T-k)": wanted})
