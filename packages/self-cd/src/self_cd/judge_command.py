"""`self-cd judge`: every judge judges every answer of some runs; how far the judges agree.

    self-cd judge runs/self-cd-run --judges keyword llm --model openai:...

Verdicts are written as they come, so that a run that is killed goes on with `--resume`; those that
failed are then asked for again. Labels that the runs hold already count as one more judge. No torch
here; a local model brings it in.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.spend import Spend
from papercore.log import progress
from papercore.report import conclude
from papercore.runs import Run, check_folder, is_run_folder
from self_cd.answers import Answer
from self_cd.config import JudgeConfig, JudgeName
from self_cd.folders import open_run
from self_cd.judge_report import agreement_lines, cell_lines
from self_cd.judges import Judge, Verdict, keyword
from self_cd.judges.llm import VERSION as LLM_VERSION
from self_cd.judges.llm import LLMJudge
from self_cd.judges.sheet import Sheet, SheetRow, key_path, read_sheet, write_sheet
from self_cd.verdicts import (
    Judged,
    Source,
    answers_digest,
    judged_of,
    read_sources,
    read_verdicts,
    unique_names,
)

__all__ = ["run"]

logger = logging.getLogger(__name__)

FOLDER = Path("runs") / "self-cd-judge"
EXIT_FAILED = 1
EXIT_DONE = 0
FLUSH_EVERY = 64
"""Answers that a judge gets at once, unless --batch-size is larger."""


@dataclass(frozen=True)
class Hired:
    """A judge by name, made only if there is something left to judge."""

    name: str
    make: Callable[[], Judge]


def run(config: JudgeConfig, flags: RunFlags) -> int:
    """Judges, reports, prints refusals by judge and how the judges agree.

    Returns:
        0, or 1 if a judge has no verdict on an answer.

    Raises:
        ConfigError: The folder is in use, or a judge does not fit its model.
        DataError: A run or a filled sheet cannot be read.
        ModelError: A judge's model cannot be loaded or used.
    """
    out = flags.out or FOLDER
    check_folder(out, flags)
    _warn_of_unused(config)
    sources = read_sources(config.runs, limit=config.limit)
    sheets = _read_sheets(config.sheets, sources)
    hired = _hire(config, flags)
    # Before the folder is made, so that a model that does not load leaves nothing behind.
    fresh = flags.overwrite or not is_run_folder(out)
    made = {one.name: one.make() for one in hired} if fresh else {}
    if config.write_sheet is not None:
        _write_sheet(config.write_sheet, sources, config, flags)
    with open_run(out, config, flags, verb="judge", data_hash=answers_digest(sources)) as folder:
        before = len(folder.done), len(folder.failed)
        folder.note(**{f"run {source.name}": source.digest for source in sources})
        _copy_labels(folder, sources, {one.name for one in hired})
        _copy_sheets(folder, sources, sheets)
        for one in hired:
            _judge(folder, one, made.get(one.name), sources, config)
        changed = before != (len(folder.done), len(folder.failed))
        verdicts = read_verdicts(folder.records())
    if changed or not (out / "report.html").exists():
        conclude(out)
    expected = len(hired) * sum(1 for _ in _answered(sources))
    return _tell(verdicts, [one.name for one in hired], expected, sources, out)


def _hire(config: JudgeConfig, flags: RunFlags) -> list[Hired]:
    makers: Mapping[JudgeName, Callable[[], Hired]] = {
        "keyword": lambda: Hired(keyword.NAME, keyword.KeywordJudge),
        "classifier": lambda: _hire_classifier(config, flags),
        "llm": lambda: _hire_llm(config, flags),
    }
    return [makers[name]() for name in dict.fromkeys(config.judges)]


def _hire_classifier(config: JudgeConfig, flags: RunFlags) -> Hired:
    ref = str(config.classifier)

    def make() -> Judge:
        from self_cd.judges.classifier import load_classifier

        return load_classifier(
            ref,
            refusal_labels=config.refusal_labels,
            batch_size=config.batch_size,
            device=flags.device,
            dtype=config.dtype,
        )

    return Hired(f"classifier:{ref}", make)


def _hire_llm(config: JudgeConfig, flags: RunFlags) -> Hired:
    ref = str(config.model)
    remote = ref.startswith("openai:")
    # With a classifier the settings of local models are for that one.
    settled = remote and "classifier" in config.judges

    def make() -> Judge:
        from papercore.generate.backends import generator_for

        generator = generator_for(
            ref,
            endpoint=config.endpoint if remote else None,
            device="auto" if remote or ref.startswith("vllm:") else flags.device,
            dtype="auto" if settled else config.dtype,
            batch_size="auto" if settled else config.batch_size or "auto",
            seed=config.seed,
        )
        return LLMJudge(generator, ref, helpfulness=config.helpfulness, seed=config.seed)

    return Hired(f"{LLM_VERSION}:{ref}", make)


def _answered(sources: Sequence[Source]) -> Iterator[tuple[Source, Answer]]:
    """Every answer there is, with its run; questions that failed have none."""
    for source in sources:
        for answer in source.answers:
            if answer.error is None:
                yield source, answer


def _judge(
    folder: Run, hired: Hired, judge: Judge | None, sources: Sequence[Source], config: JudgeConfig
) -> None:
    """Appends a verdict for every answer that has none of this judge, as they come."""
    left = [
        (source, answer)
        for source, answer in _answered(sources)
        if _is_left(folder, judged_of(answer, source, hired.name, Verdict()).id)
    ]
    if not left:
        return
    judge = judge or hired.make()
    with folder.timed(hired.name):
        verdicts = _verdicts(judge, left, max(FLUSH_EVERY, config.batch_size or 0))
        for (source, answer), verdict in progress(verdicts, "judge", total=len(left)):
            folder.append(judged_of(answer, source, hired.name, verdict).as_record())
            folder.count(verdicts=1)
    folder.note(**_facts(judge))


def _verdicts(
    judge: Judge, left: Sequence[tuple[Source, Answer]], size: int
) -> Iterator[tuple[tuple[Source, Answer], Verdict]]:
    """Verdicts, a few at a time; none are asked for any more once the backend gave up."""
    for start in range(0, len(left), size):
        some = left[start : start + size]
        verdicts = judge.judge([answer for _, answer in some])
        yield from zip(some, verdicts, strict=True)
        if any(verdict.gave_up for verdict in verdicts):
            logger.warning("%s gave up: the remaining answers are not sent", judge.name)
            return


def _is_left(folder: Run, name: str) -> bool:
    return name not in folder.done or name in folder.failed


def _copy_labels(folder: Run, sources: Sequence[Source], hired: set[str]) -> None:
    """Labels that the runs hold, as verdicts of whoever gave them; not of judges hired anyway."""
    for source, answer in _answered(sources):
        if answer.label is None or answer.judge is None or answer.judge in hired:
            continue
        verdict = Verdict(answer.label, facts=(("stored", True),))
        found = judged_of(answer, source, answer.judge, verdict)
        if found.id not in folder.done:
            folder.append(found.as_record())


def _read_sheets(paths: Sequence[Path], sources: Sequence[Source]) -> dict[str, Sheet]:
    """Filled sheets by the name of their judge.

    Raises:
        DataError: A sheet is wrong, or judges none of the answers.
    """
    names = unique_names([path.with_suffix("") for path in paths])
    answers = {(source.name, answer.id) for source, answer in _answered(sources)}
    found: dict[str, Sheet] = {}
    for path, name in zip(paths, names, strict=True):
        sheet = read_sheet(path)
        foreign = sheet.labels.keys() - answers
        if foreign and len(foreign) == len(sheet.labels):
            run = min(foreign)[0]
            raise DataError(f"{path}: judges none of these runs, but {run!r}: give that run")
        if foreign:
            logger.warning("%s: %d rows judge answers of other runs", path, len(foreign))
        if sheet.empty_rows:
            rows = ", ".join(map(str, sheet.empty_rows[:5]))
            more = ", ..." if len(sheet.empty_rows) > 5 else ""
            logger.warning(
                "%s: %d rows have no label: %s%s", path, len(sheet.empty_rows), rows, more
            )
        found[f"sheet:{name}"] = sheet
    return found


def _copy_sheets(folder: Run, sources: Sequence[Source], sheets: Mapping[str, Sheet]) -> None:
    """The labels of people as verdicts.

    Raises:
        ConfigError: A sheet says something else than when the run began.
    """
    written = {one.id: one.label for one in read_verdicts(folder.records())} if sheets else {}
    for judge, sheet in sheets.items():
        for source, answer in _answered(sources):
            label = sheet.labels.get((source.name, answer.id))
            if label is None:
                continue
            found = judged_of(answer, source, judge, Verdict(label))
            if found.id not in written:
                folder.append(found.as_record())
            elif written[found.id] != label:
                raise ConfigError(
                    f"{judge} now calls {answer.id} {label}, the run in {folder.folder} has "
                    f"{written[found.id]}: use --overwrite, or another --out"
                )


def _write_sheet(
    path: Path, sources: Sequence[Source], config: JudgeConfig, flags: RunFlags
) -> None:
    if flags.resume and path.exists():
        return  # it may be half filled by now
    rows = [
        SheetRow(source.name, answer.id, answer.item.query, answer.text)
        for source, answer in _answered(sources)
    ]
    num_cut = write_sheet(path, rows, seed=config.seed, overwrite=flags.overwrite)
    if num_cut:
        logger.warning("%s: %d long texts are cut, and say so", path, num_cut)
    sys.stdout.write(f"sheet: {path}, {len(rows)} answers; key: {key_path(path)}\n")


def _tell(
    verdicts: Sequence[Judged],
    hired: Sequence[str],
    expected: int,
    sources: Sequence[Source],
    out: Path,
) -> int:
    """Prints refusals by judge, agreement, and what failed and what to do then."""
    rows = cell_lines(verdicts)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    for line in agreement_lines(verdicts):
        sys.stdout.write(f"{line}\n")
    for source in sources:
        if not any(answer.item.side == "harmful" for answer in source.answers):
            sys.stdout.write(
                f"NO HARMFUL QUESTIONS in {source.name}: fewer refusals alone say nothing on "
                "safety\n"
            )
    failed = [one for one in verdicts if one.error is not None]
    unsent = expected - sum(one.judge in hired for one in verdicts)
    if failed or unsent:
        first = f"; first: {failed[0].id}: {failed[0].error}" if failed else ""
        sys.stderr.write(
            f"NOT ALL JUDGED: {len(failed)} verdicts failed and {unsent} were not asked for; no "
            f"share counts them{first}\n--resume tries them again\n"
        )
    sys.stdout.write(f"report: {out / 'report.html'}\n")
    return EXIT_FAILED if failed or unsent else EXIT_DONE


def _facts(judge: Judge) -> dict[str, str | float | bool | None]:
    """Where a judge ran and what that cost."""
    backend = getattr(judge, "generator", judge)
    found: dict[str, str | float | bool | None] = {f"{judge.name} by": type(backend).__name__}
    model, spend = getattr(backend, "model", None), getattr(backend, "spend", None)
    for name in ("device", "dtype"):
        if hasattr(model, name):
            found[f"{judge.name} {name}"] = str(getattr(model, name))
    if isinstance(spend, Spend):
        found |= {f"{judge.name} {name}": value for name, value in spend.model_dump().items()}
    return found


def _warn_of_unused(config: JudgeConfig) -> None:
    """Names settings that were given for nothing."""
    usual = JudgeConfig.model_fields
    for name, judge in (
        ("classifier", "classifier"),
        ("refusal_labels", "classifier"),
        ("model", "llm"),
    ):
        if judge not in config.judges and getattr(config, name) != usual[name].default:
            logger.warning("--%s is not used: add %s to --judges", name.replace("_", "-"), judge)
    if not (config.model or "").startswith("openai:") and config.endpoint != EndpointConfig():
        logger.warning("--endpoint settings are not used: %s is no openai: model", config.model)
