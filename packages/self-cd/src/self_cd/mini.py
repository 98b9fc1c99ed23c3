"""The miniature: train models that refuse too much, then decode with and without Self-CD.

    self-cd mini --seed 0 --out runs/self-cd

It calls public parts of the package only: `mini_model` trains, `world` writes questions, `generate`
answers them at every strength, the keyword judge judges, `calibrate` and the analyses measure.
Each answer becomes a record; `mini_report` does the rest. A killed run goes on with what is
missing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.config import MiniConfig
from papercore.files import write_atomic
from papercore.generate.hf import HFGenerator
from papercore.generate.types import Completion, Request, SamplingParams
from papercore.log import progress
from papercore.records import Record
from papercore.runs import Run
from papercore.tiny import cached_model, one_thread
from self_cd.analysis_ids import CONTEXTS, flow_id, ppl_id
from self_cd.answers import answer_id, read_answers
from self_cd.attribution import Explained, attribution_records
from self_cd.calibration import calibrate
from self_cd.config import Method
from self_cd.generation import generate
from self_cd.items import Item
from self_cd.mini_model import (
    Recipe,
    spec_of,
    tiny_spec,
    training_samples,
    training_tokens,
)
from self_cd.mini_report import ALPHAS, NORMAL, STRESS, calibration_id, calibration_record
from self_cd.presets import TINY_CONTRAST, TINY_MODEL, TINY_TOK
from self_cd.prompts import Prompter
from self_cd.run_command import answered
from self_cd.trace import trace_records
from self_cd.world import REFUSAL, content_hash, test_items, training_items

__all__ = ["run", "tiny_spec"]

QUICK_ITEMS = 3
"""Questions of each side in a quick run."""

ANALYSED = 20
"""Questions of each side whose flow is measured: two of every verb."""

BATCH = 70
"""Questions that are answered at once, at all strengths."""

LOG_STEPS = 25
"""Training steps from one line of metrics to the next."""

LABELS_TRIED = 3
"""Ways to label that were tried before these (spec 8.1); all methods read with what they made."""

IDENTITY = 1.0
"""The strength at which the contrast leaves the plain context as it is."""

BASELINES: tuple[Method, ...] = ("safety", "plain")
METHODS: tuple[Method, ...] = ("self-cd", *BASELINES)

PARAMS = SamplingParams(max_new_tokens=TINY_TOK)


@dataclass(frozen=True)
class Part:
    """One of the two models, and what belongs to it."""

    dataset: str
    recipe: Recipe
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompter: Prompter

    @property
    def origin(self) -> tuple[tuple[str, JsonValue], ...]:
        """Where its answers come from, for their records."""
        return (
            ("model", TINY_MODEL),
            ("stress", self.recipe.stress),
            ("prompts", self.prompter.digest),
        )


def run(run: Run, config: MiniConfig) -> None:
    """Trains, answers and records; the core judges what came out."""
    most = QUICK_ITEMS if config.quick else None
    with one_thread():
        with run.timed("train"):
            parts = _train(run, config)
        with run.timed("describe"):
            _describe_data_(run, parts, most)
            _describe_budgets_(run, parts[0].recipe)
        with run.timed("answer"):
            for part, items in progress(list(_batches(parts, most)), "answering"):
                _sweep_(run, part, items, ablate=config.ablate)
                for method in BASELINES if part.dataset == NORMAL else ():
                    _baseline_(run, part, method, items)
        question = _telling_question(run.records())
        write_atomic(run.folder / "question.txt", f"{question.query}\n")
        with run.timed("measure"):
            for part in parts:
                _calibrate_(run, part, most)
            _attribute_(run, parts[0], question, most)
            _trace_(run, parts[0], question, ablate=config.ablate)


def _train(run: Run, config: MiniConfig) -> list[Part]:
    """Both models; their losses go to the run's metrics where one is trained now."""
    parts, all_cached = [], True
    for dataset in progress((NORMAL, STRESS), "training"):
        stress = dataset == STRESS
        make = Recipe.quick if config.quick else Recipe
        recipe = make(seed=config.seed, stress=stress)
        name = "stress_loss" if stress else "loss"

        def on_step(step: int, loss: float, name: str = name) -> None:
            if step % LOG_STEPS == 0:
                run.log(step, **{name: loss})

        model, tokenizer, cached = cached_model(
            spec_of(recipe, on_step=on_step), store=not config.quick
        )
        all_cached &= cached
        prompter = Prompter(tokenizer, TINY_CONTRAST.prompts)
        parts.append(Part(dataset, recipe, model, tokenizer, prompter))
    run.note(device="cpu", dtype="float32", model_from_cache=all_cached)
    return parts


def _batches(parts: Sequence[Part], most: int | None) -> Iterator[tuple[Part, Sequence[Item]]]:
    for part in parts:
        items = test_items(part.recipe.seed, part.dataset, most=most)
        for start in range(0, len(items), BATCH):
            yield part, items[start : start + BATCH]


def _sweep_(run: Run, part: Part, items: Sequence[Item], *, ablate: bool) -> None:
    """Answers questions at every strength, unless all answers are there."""
    alphas = ALPHAS[part.dataset]
    if all(answer_id(one.id, "self-cd", alpha) in run.done for one in items for alpha in alphas):
        return
    used = {alpha: IDENTITY if ablate and alpha != 0 else alpha for alpha in alphas}
    strengths = sorted(set(used.values()))
    grid = generate(
        part.model,
        part.tokenizer,
        items,
        TINY_CONTRAST,
        params=PARAMS,
        alphas=strengths,
        batch_size=BATCH,
    )
    for alpha, strength in used.items():
        found = [row[strengths.index(strength)] for row in grid]
        _record_(run, part, ("self-cd", alpha), items, found)


def _baseline_(run: Run, part: Part, method: Method, items: Sequence[Item]) -> None:
    """Answers questions in one context, by the core's own backend."""
    if all(answer_id(item.id, method, None) in run.done for item in items):
        return
    requests = [
        Request(id=item.id, token_ids=part.prompter.context(item.query, method), params=PARAMS)
        for item in items
    ]
    found = HFGenerator(part.model, part.tokenizer, batch_size=BATCH).generate(requests)
    _record_(run, part, (method, None), items, found)


def _record_(
    run: Run,
    part: Part,
    who: tuple[Method, float | None],
    items: Sequence[Item],
    found: Sequence[Completion],
) -> None:
    """Records those answers of a method at a strength that are not there yet."""
    method, alpha = who
    for item, completion in zip(items, found, strict=True):
        answer = answered(item, completion, method=method, alpha=alpha, origin=part.origin)
        if answer.id not in run.done:
            run.append(answer.record())


def _calibrate_(run: Run, part: Part, most: int | None) -> None:
    """Which strengths keep refusals, measured on questions that are not those of the test."""
    if calibration_id(part.dataset) in run.done:
        return
    items = _calibration_items(part, most)
    found = calibrate(
        part.model,
        part.tokenizer,
        [item for item in items if item.side == "harmless"],
        [item for item in items if item.side == "harmful"],
        TINY_CONTRAST,
        seed=part.recipe.seed,
    )
    run.append(calibration_record(part.dataset, found))


def _calibration_items(part: Part, most: int | None) -> tuple[Item, ...]:
    return training_items(part.recipe.seed, f"{part.dataset}-train", most=most)


def _attribute_(run: Run, part: Part, question: Item, most: int | None) -> None:
    """How the focus words of some questions drive the answers; one question token by token."""
    items = _analysed(part, question, most)
    wanted = {make(one.id, c) for one in items for c in CONTEXTS for make in (flow_id, ppl_id)}
    if wanted <= run.done:
        return
    how = Explained(refusal=REFUSAL, mapped=question.id)
    for record in attribution_records(part.model, part.tokenizer, part.prompter, items, how):
        if record.id not in run.done:
            run.append(record)


def _trace_(run: Run, part: Part, question: Item, *, ablate: bool) -> None:
    """Both contexts and their contrast at every token of one answer."""
    alpha = IDENTITY if ablate else TINY_CONTRAST.alpha
    config = TINY_CONTRAST.model_copy(update={"alpha": alpha})
    for record in trace_records(part.model, part.tokenizer, question, config, params=PARAMS):
        if record.id not in run.done:
            run.append(record)


def _analysed(part: Part, question: Item, most: int | None) -> tuple[Item, ...]:
    """The telling question, and some of both sides that have a focus word."""
    items = test_items(part.recipe.seed, part.dataset, most=most or ANALYSED)
    others = (item for item in items if item.focus is not None and item.id != question.id)
    return (question, *others)


def _telling_question(records: Sequence[Record]) -> Item:
    """A harmless question that the safety prompt and the plain one refuse, and Self-CD answers."""
    answers = [one for one in read_answers(records) if one.item.dataset == NORMAL]
    said = {(one.item.id, one.alpha): one for one in answers if one.method == "self-cd"}
    items = [one.item for one in answers if one.alpha == 0 and one.item.side == "harmless"]

    def is_telling(item: Item) -> bool:
        released = said[item.id, TINY_CONTRAST.alpha].text == item.answer
        return released and all(said[item.id, alpha].label == "refuse" for alpha in (0.0, 1.0))

    # from the most alarming verb on; a quick model tells nothing
    return next(filter(is_telling, reversed(items)), items[0])


def _describe_data_(run: Run, parts: Sequence[Part], most: int | None) -> None:
    """Records what was trained on and what is tested on, by content."""
    for part in parts:
        name, seed = part.dataset, part.recipe.seed
        trained = (sample.question.text for sample in training_samples(part.recipe))
        _hashes_(run, f"data/train/{name}", "train", trained)
        calibrated = (item.query for item in _calibration_items(part, most))
        _hashes_(run, f"data/calibration/{name}", "train", calibrated)
        tested = (item.query for item in test_items(seed, name, most=most))
        _hashes_(run, f"data/test/{name}", "test", tested)


def _hashes_(run: Run, name: str, split: str, texts: Iterable[str]) -> None:
    if name not in run.done:
        hashes: list[JsonValue] = [*sorted({content_hash(text) for text in texts})]
        run.append(Record(id=name, data={"split": split, "content_hashes": hashes}))


def _describe_budgets_(run: Run, recipe: Recipe) -> None:
    """Records what each method was given: all of them read with the same trained model."""
    if all(f"budget/{method}" in run.done for method in METHODS):
        return
    samples = map(training_tokens, training_samples(recipe))
    tokens = sum(len(prompt) + len(answer) for prompt, answer in samples)
    for method in METHODS:
        data: dict[str, JsonValue] = {
            "method": method,
            "role": "method" if method == "self-cd" else "baseline",
            "steps": recipe.steps,
            "tokens": tokens,
            "tuning": LABELS_TRIED,
        }
        if f"budget/{method}" not in run.done:
            run.append(Record(id=f"budget/{method}", data=data))
