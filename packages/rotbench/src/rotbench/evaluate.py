"""`rotbench eval`: let a model or a baseline answer the cases, and score it.

Records are written as they come, so a run that is killed goes on with `--resume`; requests that
failed are then sent again. A request that failed is never a wrong answer: it has no scores, and the
command ends with exit code 1 as long as one is left.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from papercore.config import RunFlags
from papercore.errors import GenerationError, ModelError
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.spend import Spend
from papercore.generate.types import Completion, Generator, SamplingParams
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder, is_run_folder
from rotbench.answers import record_of
from rotbench.baselines import SCHEME, BaselineGenerator, baseline_of
from rotbench.config import EvalConfig
from rotbench.level_table import level_lines
from rotbench.prompts import Prompt, prefix_order, prompt_hash, write_prompt
from rotbench.rates import Scorer
from rotbench.tasks import Task, plan

__all__ = ["evaluate", "generator_of", "run", "write_prompts"]

logger = logging.getLogger(__name__)

FOLDER = Path("runs") / "rotbench-eval"
EXIT_FAILED = 1
EXIT_DONE = 0


def run(config: EvalConfig, flags: RunFlags) -> int:
    """Answers, scores, reports.

    Returns:
        0, or 1 if a request failed and has no score.

    Raises:
        ConfigError: The folder is in use, or holds a run with other data, prompts or settings.
        DataError: The cases cannot be read.
        ModelError: The model cannot be loaded or used.
    """
    out = flags.out or FOLDER
    check_folder(out, flags)
    _warn_of_unused(config)
    tasks, data_hash = plan(config)
    prompts = write_prompts(tasks, config)
    # Before the folder is made, so that a model that does not load leaves nothing behind.
    fresh = flags.overwrite or not is_run_folder(out)
    generator = generator_of(config, flags, prompts) if fresh else None
    digest = prompt_hash(prompts)
    with Run.open(
        out,
        config,
        flags,
        package="rotbench",
        version=metadata.version("rotbench"),
        verb="eval",
        data_hash=f"{data_hash}, prompts {digest}",
    ) as folder:
        left = [prompt for prompt in prompts if _is_left(prompt, folder)]
        if left:
            generator = generator or generator_of(config, flags, prompts)
            folder.note(model=config.model, prompts=digest, cases=len(tasks))
            evaluate(folder, generator, tasks, left, config)
            folder.note(**_facts(generator))
        records = folder.records()
    if left or not (out / "report.html").exists():
        conclude(out)
    return tell(records, len(tasks), config.scoring, out)


def write_prompts(tasks: Sequence[Task], config: EvalConfig) -> list[Prompt]:
    """A prompt per task, those with equal beginnings side by side."""
    params = SamplingParams(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        stop=config.stop,
    )
    return prefix_order(
        write_prompt(
            task.case, name=task.name, mode=config.mode, style=config.prompt_style, params=params
        )
        for task in tasks
    )


def generator_of(config: EvalConfig, flags: RunFlags, prompts: Sequence[Prompt]) -> Generator:
    """The baseline or the backend that the config names."""
    baseline = baseline_of(config.model)
    if baseline is not None:
        return BaselineGenerator(baseline, prompts, mode=config.mode, seed=config.seed)
    from papercore.generate.backends import generator_for

    return generator_for(
        config.model,
        endpoint=config.endpoint if config.model.startswith("openai:") else None,
        device=flags.device,
        dtype=config.dtype,
        batch_size=config.batch_size or "auto",
        seed=config.seed,
        max_context=config.max_context,
    )


def evaluate(
    folder: Run,
    generator: Generator,
    tasks: Sequence[Task],
    prompts: Sequence[Prompt],
    config: EvalConfig,
) -> None:
    """Answers prompts and appends a graded record for each as it comes."""
    by_name = {task.name: task for task in tasks}
    model = _model_name(config)
    with folder.timed("answers"):
        answered = _completions(generator, prompts, config)
        for prompt, completion in progress(answered, "eval", total=len(prompts)):
            task = by_name[prompt.request.id]
            folder.append(record_of(task, prompt, completion, mode=config.mode, model=model))
            folder.count(cases=1, tokens=completion.usage.completion_tokens)


def tell(
    records: Sequence[Record],
    num_cases: int,
    headline: Scorer,
    out: Path,
    *,
    advice: str = "--resume tries them again",
) -> int:
    """Prints the table of scores, and what failed and what to do then; gives the exit code."""
    for line in level_lines(records, headline):
        sys.stdout.write(f"{line}\n")
    failed = [record for record in records if record.status == "error"]
    unsent = num_cases - len(records)
    if failed or unsent:
        first = f"; first: {failed[0].id}: {failed[0].error}" if failed else ""
        sys.stderr.write(
            f"NOT ALL SCORED: {len(failed)} requests failed and {unsent} were not sent, of "
            f"{num_cases}; no score counts them{first}\n{advice}\n"
        )
    sys.stdout.write(f"report: {out / 'report.html'}\n")
    return EXIT_FAILED if failed or unsent else EXIT_DONE


def _warn_of_unused(config: EvalConfig) -> None:
    """Names settings that were given for nothing."""
    if not config.model.startswith("openai:") and config.endpoint != EndpointConfig():
        logger.warning("--endpoint settings are not used: %s is no openai: model", config.model)
    if config.noise == "stored":
        usual = EvalConfig()
        for option, name in (("--noise-seeds", "noise_seeds"), ("--rules", "rules")):
            if getattr(config, name) != getattr(usual, name):
                logger.warning("%s is not used: --noise fresh makes new noise", option)


def _is_left(prompt: Prompt, folder: Run) -> bool:
    name = prompt.request.id
    return name not in folder.done or name in folder.failed


def _completions(
    generator: Generator, prompts: Sequence[Prompt], config: EvalConfig
) -> Iterator[tuple[Prompt, Completion]]:
    """Completions, a few prompts at a time; none are sent any more once the backend gave up."""
    for start in range(0, len(prompts), config.flush_every):
        some = prompts[start : start + config.flush_every]
        completions = _generate(generator, some, config)
        yield from zip(some, completions, strict=True)
        if any(completion.error_kind == "skipped" for completion in completions):
            logger.warning("the endpoint gave up: the remaining cases are not sent")
            return


def _generate(
    generator: Generator, prompts: Sequence[Prompt], config: EvalConfig
) -> list[Completion]:
    try:
        return generator.generate([prompt.request for prompt in prompts])
    except GenerationError as error:
        if config.mode == "react" and "chat template" in str(error):
            raise ModelError(f"{error}: --prompt-style plain sends prompts") from error
        raise


def _facts(generator: Generator) -> dict[str, str | float | None]:
    """What a backend can say of where it ran and what that cost."""
    found: dict[str, str | float | None] = {"backend": type(generator).__name__}
    model, spend = getattr(generator, "model", None), getattr(generator, "spend", None)
    for name in ("device", "dtype"):
        if hasattr(model, name):
            found[name] = str(getattr(model, name))
    if isinstance(spend, Spend):
        found |= {f"endpoint_{name}": value for name, value in spend.model_dump().items()}
    return found


def _model_name(config: EvalConfig) -> str:
    baseline = baseline_of(config.model)
    return config.model if baseline is None else f"{SCHEME}{baseline}"
