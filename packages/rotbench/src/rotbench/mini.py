"""The miniature: tune one small base with and without noise, then test both at all five levels.

    rotbench mini --seed 0 --out runs/rotbench

It calls public parts of the package only: `mini_model` trains, `world` writes cases, `noise`
disturbs them, `answers` reads and grades what the models write, `mini_report` does the rest. A
killed run goes on with the models and the answers that are missing.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from papercore.config import MiniConfig
from papercore.generate.hf import HFGenerator
from papercore.generate.types import Request, SamplingParams
from papercore.log import progress
from papercore.records import Record
from papercore.runs import Run
from papercore.seeds import fan_out
from papercore.tiny import Built, TinySpec, cached_model, one_thread
from rotbench.answers import graded
from rotbench.cases import HALVES, LEVELS
from rotbench.config import Quota
from rotbench.grading import Answer
from rotbench.mini_model import (
    CHECK,
    CLEAN_ONLY,
    Recipe,
    base_steps,
    episodes,
    record_rows,
    spec_of,
    tune_row,
)
from rotbench.mini_report import MODELS, ModelName
from rotbench.noise import disturb
from rotbench.tasks import Task
from rotbench.world import (
    MAX_ANSWER_TOK,
    RULES,
    answer_text,
    content_hash,
    draw_episode,
    prompt_tokens,
)

__all__ = ["NUM_QUERIES", "QUICK_QUERIES", "run", "test_tasks", "tiny_spec"]

NUM_QUERIES, QUICK_QUERIES = 200, 4
"""Queries of a run; each is asked at every level and half, so one makes eight cases."""

BATCH = 100
"""Cases that a model answers at once."""

LOG_STEPS = 25
"""Training steps from one line of metrics to the next."""

RECIPES_TRIED = 18
"""Recipes that were tried, by how well the base copies and by what both models made of it. The one
that stayed is the design's, but for how the weights begin and the steps; docs/log.md has more."""

FEWER_TOKENS = (
    "the same environments, queries and steps; names have another length where they are disturbed"
)


def run(run: Run, config: MiniConfig) -> None:
    """Trains, asks and records; the core judges what came out."""
    recipes = {name: _recipe(name, config) for name in MODELS}
    tasks = test_tasks(config.seed, QUICK_QUERIES if config.quick else NUM_QUERIES)
    with one_thread():
        with run.timed("train"):
            models = _train(run, recipes, quick=config.quick)
        with run.timed("describe"):
            _describe_data_(run, recipes, models, tasks)
            _describe_budgets_(run, recipes, models)
        with run.timed("answer"):
            for name, some in progress(list(_batches(tasks)), "answering"):
                _answer_(run, name, models[name], some)


def tiny_spec(seed: int) -> TinySpec:
    """What the cache needs to find the RoTTuned model, `tiny:rotbench`."""
    return spec_of(Recipe.of(seed, Quota()))


def test_tasks(seed: int, count: int) -> list[Task]:
    """The cases on which both models are tested: every query at all levels and halves."""
    rng = random.Random(fan_out(seed, "rotbench/test"))
    clean = [draw_episode(rng, index)[0] for index in range(count)]
    noise = fan_out(seed, "rotbench/test/noise")
    cases = [
        disturb(case, level, half, seed=noise, rules=RULES).case
        for level in LEVELS
        for half in HALVES[level]
        for case in clean
    ]
    return [Task(str(case.key), case, None if case.origin is None else noise) for case in cases]


def _recipe(name: ModelName, config: MiniConfig) -> Recipe:
    augmented = name == "rottuned" and not config.ablate
    return Recipe.of(config.seed, Quota() if augmented else CLEAN_ONLY, quick=config.quick)


def _train(run: Run, recipes: Mapping[ModelName, Recipe], *, quick: bool) -> dict[ModelName, Built]:
    """The models of the recipes; losses go to the run's metrics where one is trained now."""

    def on_step(stage: str, step: int, loss: float) -> None:
        if step % LOG_STEPS == 0:
            run.log(step, **{f"{stage}_loss": loss})

    models, all_cached = {}, True
    for name, recipe in progress(list(recipes.items()), "training"):
        spec = spec_of(recipe, store=not quick, stage=name, on_step=on_step)
        model, tokenizer, from_cache = cached_model(spec, store=not quick)
        models[name] = (model, tokenizer)
        all_cached &= from_cache
    run.note(device="cpu", dtype="float32", model_from_cache=all_cached)
    return models


def _batches(tasks: Sequence[Task]) -> Iterator[tuple[ModelName, Sequence[Task]]]:
    for name in MODELS:
        for start in range(0, len(tasks), BATCH):
            yield name, tasks[start : start + BATCH]


def _answer_(run: Run, name: ModelName, built: Built, tasks: Sequence[Task]) -> None:
    """Lets a model answer those cases of a batch that are not recorded yet."""
    model, tokenizer = built
    if all(_id(name, task) in run.done for task in tasks):
        return
    params = SamplingParams(max_new_tokens=MAX_ANSWER_TOK)
    requests = [
        Request(
            id=_id(name, task),
            token_ids=tuple(_ids(tokenizer, prompt_tokens(task.case))),
            params=params,
        )
        for task in tasks
    ]
    completions = HFGenerator(model, tokenizer, batch_size=BATCH).generate(requests)
    for task, completion in zip(tasks, completions, strict=True):
        if completion.id in run.done:
            continue
        if completion.error is not None:
            run.append(Record(id=completion.id, status="error", error=completion.error))
            continue
        tokens = tokenizer.convert_ids_to_tokens(list(completion.token_ids))
        run.append(_record(name, task, tokens))


def _record(name: ModelName, task: Task, tokens: Sequence[str]) -> Record:
    """The record of an answer: that of an evaluation, with the names it is compared with."""
    record = graded(task, Answer(answer_text(tokens)), mode="react", model=name)
    names: dict[str, JsonValue] = {
        "gold": task.case.golds[0].name,
        "clean_gold": task.case.clean.golds[0].name,
    }
    return Record(id=_id(name, task), data={**record.data, **names})


def _ids(tokenizer: PreTrainedTokenizerBase, tokens: list[str]) -> list[int]:
    ids = tokenizer.convert_tokens_to_ids(tokens)
    assert isinstance(ids, list)
    return ids


def _id(name: ModelName, task: Task) -> str:
    return f"{name}/{task.name}"


def _describe_data_(
    run: Run,
    recipes: Mapping[ModelName, Recipe],
    models: Mapping[ModelName, Built],
    tasks: Sequence[Task],
) -> None:
    """Records what was trained on and what is tested on: prompts, by content."""
    if "data/test" not in run.done:
        _hashes_(run, "data/test", "test", (prompt_tokens(task.case) for task in tasks))
    for name, recipe in recipes.items():
        if f"data/train/{name}" not in run.done:
            texts = _training_texts(recipe, base_steps(models[name][0]))
            _hashes_(run, f"data/train/{name}", "train", texts)


def _hashes_(run: Run, name: str, split: str, texts: Iterator[list[str]]) -> None:
    hashes: list[JsonValue] = [*sorted({content_hash(tokens) for tokens in texts})]
    run.append(Record(id=name, data={"split": split, "content_hashes": hashes}))


def _training_texts(recipe: Recipe, num_base: int) -> Iterator[list[str]]:
    """The base's texts, and every environment of the tuning with each of its queries."""
    for step in (CHECK, *range(num_base)):
        for tokens, _ in record_rows(recipe.base, step):
            yield tokens
    for step in range(recipe.steps):
        for cases in episodes(recipe, step):
            for case in cases:
                yield prompt_tokens(case)


def _describe_budgets_(
    run: Run, recipes: Mapping[ModelName, Recipe], models: Mapping[ModelName, Built]
) -> None:
    """Records what each model was given."""
    for name, recipe in recipes.items():
        if f"budget/{name}" in run.done:
            continue
        num_base = base_steps(models[name][0])
        base_tok = sum(len(t) for s in range(num_base) for t, _ in record_rows(recipe.base, s))
        tune_tok = sum(
            len(tune_row(cases)[0])
            for step in range(recipe.steps)
            for cases in episodes(recipe, step)
        )
        data: dict[str, JsonValue] = {
            "method": name,
            "role": "method" if name == "rottuned" else "baseline",
            "steps": num_base + recipe.steps,
            "tokens": base_tok + tune_tok,
            "tuning": RECIPES_TRIED,
        }
        if name == "clean-only":
            data["because"] = FEWER_TOKENS
        run.append(Record(id=f"budget/{name}", data=data))
