"""The miniature: tune a weak model, then let RL start from different states, four times.

    r3 mini --seed 0 --out runs/r3-mini

It calls public parts of the package only: `mini_model` tunes, `world` makes questions, the loop of
`r3 train` trains four arms that differ in the curriculum, and one of them in the KL weight, and
`solve` asks all start values from the bare question. Each arm is a run folder of `r3 train` in
`arms/`, so `r3 rollouts` and `r3 report` read it. A killed run goes on at its last checkpoint.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, cast

from pydantic import JsonValue
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.config import MiniConfig, RunFlags
from papercore.errors import DataError
from papercore.records import Record
from papercore.runs import Run
from papercore.seeds import fan_out
from papercore.tiny import cached_model, one_thread
from r3.config import CurriculumConfig, CurriculumName, TrainConfig
from r3.data import Prepared, SplitName, write_prepared
from r3.demos import content_hash
from r3.exports import export_run
from r3.folders import open_run
from r3.loop import CHECKPOINTS, Setup, TrainResult, train
from r3.mini_look import look
from r3.mini_model import Recipe, spec_of, tiny_spec, tuning_tokens
from r3.mini_report import (
    ARMS,
    DEPTHS,
    FREE,
    GRADIENTS,
    METHOD,
    PLAIN,
    STAGED,
    TUNED,
    arm_id,
    look_id,
)
from r3.prefix_gradient import token_gradients
from r3.presets import TINY_PPO, TINY_PROMPT, TRAIN
from r3.tabular import depth_rates
from r3.train_command import record_start, result_record
from r3.train_report import RESULT
from r3.train_setup import build_policy, lay_ground
from r3.world import prepared as world

__all__ = ["run", "tiny_spec"]

LOG_STEPS = 25
"""Tuning steps from one line of metrics to the next."""

RIGHT: Final = 0.8
"""How often the tabular policy's steps are right."""

TUNING_TRIED: Final = 21
"""Settings that were tried before these, chosen by what R3 does. All arms have the chosen ones, but
the KL weight suits R3, so plain RL is trained with a smaller one as well."""

FREE_BETA: Final = 0.01
"""Source: the miniature's design, which measured plain RL with it."""

CURRICULA: Mapping[str, CurriculumName] = {
    METHOD: "mixed",
    PLAIN: "vanilla",
    FREE: "vanilla",
    STAGED: "staged",
}

BECAUSE_FEWER: Final = (
    "as many rollouts and steps; its stages near the answer need fewer tokens for them"
)


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        looks: Steps after which all questions are asked.
        rollouts: Of each training step.
        draws: Answers to each question with drawn tokens.
        num_rates: Rollouts of the tabular policy from each depth.
    """

    looks: tuple[int, ...] = (0, 20, 40, 60)
    rollouts: int = 256
    draws: int = 16
    num_rates: int = 20_000

    @classmethod
    def of(cls, config: MiniConfig) -> Plan:
        """All of it, or a touch of everything."""
        return cls((0, 2, 4, 6), rollouts=16, draws=2, num_rates=20) if config.quick else cls()


@dataclass(frozen=True)
class Stage:
    """What all arms have in common."""

    run: Run
    config: MiniConfig
    plan: Plan
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prepared: Prepared


def run(run: Run, config: MiniConfig) -> None:
    """Tunes, trains and records; the core judges what came out."""
    with one_thread():
        with run.timed("tune"):
            model, tokenizer = _tune(run, config)
        prepared = _prepare(run, config)
        stage = Stage(run, config, Plan.of(config), model, tokenizer, prepared)
        _describe_data_(run, prepared)
        with run.timed("look"):
            _look_(stage, TUNED, 0, model)
        for arm in ARMS:
            with run.timed(arm):
                _train_(stage, arm)
        _describe_budgets_(run, config)
        with run.timed("check"):
            _check_depths_(stage)
            _check_gradients_(stage)


def arm_settings(config: MiniConfig, plan: Plan, arm: str) -> TrainConfig:
    """`r3 train tiny` for an arm: only the curriculum differs, and in one the KL weight.

    The ablation takes R3's start states away, which leaves plain RL.
    """
    kind = "vanilla" if config.ablate and arm == METHOD else CURRICULA[arm]
    return TrainConfig.model_validate(
        {
            **TRAIN["tiny"].model_dump(),
            "seed": config.seed,
            "curriculum": CurriculumConfig(kind=kind),
            "ppo": TINY_PPO.model_copy(update={"beta": FREE_BETA}) if arm == FREE else TINY_PPO,
            "rollouts": plan.rollouts,
            "max_steps": plan.looks[-1],
            "save_steps": plan.looks[1],
        }
    )


def recipe_of(config: MiniConfig) -> Recipe:
    """How the weak model is tuned."""
    make = Recipe.quick if config.quick else Recipe
    return make(seed=config.seed)


def _tune(run: Run, config: MiniConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The weak model; its losses go to the run's metrics where it is tuned now."""

    def on_step(step: int, loss: float) -> None:
        if step % LOG_STEPS == 0:
            run.log(step, loss=loss)

    spec = spec_of(recipe_of(config), on_step=on_step)
    model, tokenizer, cached = cached_model(spec, store=not config.quick)
    run.note(device="cpu", dtype="float32", model_from_cache=cached)
    return model, tokenizer


def _prepare(run: Run, config: MiniConfig) -> Prepared:
    """The world as `r3 prepare` writes it."""
    splits, meta = world(config.seed)
    return write_prepared(
        *(run.folder / "data",),
        task="world",
        prompt=TINY_PROMPT,
        splits=splits,
        meta=meta,
        overwrite=True,
    )


def _train_(stage: Stage, arm: str) -> None:
    """Trains an arm from look to look; what a killed session has done is not done again."""
    run, config = stage.run, arm_settings(stage.config, stage.plan, arm)
    out = run.folder / "arms" / arm
    if arm_id(arm) not in run.done:
        ground = lay_ground(config, stage.prepared, stage.tokenizer)
        policy = build_policy(config, copy.deepcopy(stage.model))
        setup = Setup(policy, stage.tokenizer, ground.encoded, ground.curriculum, ground.reward)
        flags = RunFlags(resume=True)
        with open_run(out, config, flags, verb="train", data_hash=stage.prepared.digest) as opened:
            record_start(opened, stage.prepared, ground)
            for step in stage.plan.looks[1:]:
                if look_id(arm, step) not in run.done:
                    _advance_(setup, config, opened, step)
                    _look_(stage, arm, step, policy.actor)
            result = _advance_(setup, config, opened, stage.plan.looks[-1])
            if RESULT not in opened.done:
                opened.append(result_record(result))
            export_run(out, setup, config, result, None)
            run.append(_arm_record(arm, config, result, opened.records()))
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


def _advance_(setup: Setup, config: TrainConfig, opened: Run, step: int) -> TrainResult:
    """Trains up to a step; from the last checkpoint, and not at all if that is the step."""
    result = train(setup, config, total_steps=step, run=opened, out=opened.folder)
    if result.steps != step:
        raise DataError(f"{opened.folder} is ahead of the records above it: delete it")
    return result


def _arm_record(
    arm: str, config: TrainConfig, result: TrainResult, records: Sequence[Record]
) -> Record:
    """What an arm was given, and how its rollouts did: rows of step, depth, number, successes."""
    steps = [record.data for record in records if record.id.startswith("step/")]
    rollouts: list[JsonValue] = []
    for data in steps:
        depths = cast("Mapping[str, Mapping[str, JsonValue]]", data["depths"])
        for depth, counts in depths.items():
            rollouts.append([data["step"], int(depth), counts["n"], counts["successes"]])
    updates = config.ppo.epochs * config.ppo.minibatches * result.steps - result.skipped
    return Record(
        id=arm_id(arm),
        data={
            "arm": arm,
            "curriculum": config.curriculum.kind,
            "steps": result.steps,
            "updates": updates,
            "tokens": result.tokens,
            "rollouts": rollouts,
        },
    )


def _look_(stage: Stage, arm: str, step: int, model: PreTrainedModel) -> None:
    """Asks all start values, held out or not, from the bare question."""
    name = look_id(arm, step)
    if name in stage.run.done:
        return
    asked = look(
        model,
        stage.tokenizer,
        stage.prepared,
        draws=stage.plan.draws,
        seed=fan_out(stage.config.seed, f"look/{step}"),
    )
    stage.run.append(Record(id=name, data={"arm": arm, "step": step, **asked}))


def _check_depths_(stage: Stage) -> None:
    """How often a policy made by hand succeeds from each depth."""
    if DEPTHS in stage.run.done:
        return
    rates = depth_rates(RIGHT, num=stage.plan.num_rates, seed=stage.config.seed)
    rows: list[JsonValue] = [
        {"depth": one.depth, "right": one.successes, "num": one.num, "expected": one.expected}
        for one in rates
    ]
    stage.run.append(Record(id=DEPTHS, data={"step_right": RIGHT, "depths": rows}))


def _check_gradients_(stage: Stage) -> None:
    """Which tokens one step of R3 learns from."""
    if GRADIENTS in stage.run.done:
        return
    config = arm_settings(stage.config, stage.plan, METHOD)
    found = token_gradients(stage.model, stage.tokenizer, stage.prepared, config)
    stage.run.append(Record(id=GRADIENTS, data=asdict(found)))


def _describe_data_(run: Run, prepared: Prepared) -> None:
    """Records what was trained on and what is tested on, by content."""
    for name, split in (("train", "train"), ("sft", "train"), ("test", "test")):
        if f"data/{name}" not in run.done:
            demos = prepared.split(cast("SplitName", name))
            hashes: list[JsonValue] = [*sorted({content_hash(demo) for demo in demos})]
            data: dict[str, JsonValue] = {"split": split, "content_hashes": hashes}
            run.append(Record(id=f"data/{name}", data=data))


def _describe_budgets_(run: Run, config: MiniConfig) -> None:
    """Records what each arm was given; tokens are those that were tuned on or generated."""
    recipe, ids = recipe_of(config), {arm_id(arm) for arm in ARMS}
    given = {str(one.data["arm"]): one.data for one in run.records() if one.id in ids}
    tokens = {arm: cast("int", data["tokens"]) for arm, data in given.items()}
    for arm, data in given.items():
        budget: dict[str, JsonValue] = {
            "method": arm,
            "role": "method" if arm == METHOD else "baseline",
            "steps": recipe.steps + cast("int", data["updates"]),
            "tokens": tuning_tokens(recipe) + tokens[arm],
            "tuning": TUNING_TRIED,
        }
        if tokens[arm] < tokens[METHOD]:
            budget["because"] = BECAUSE_FEWER
        if f"budget/{arm}" not in run.done:
            run.append(Record(id=f"budget/{arm}", data=budget))
