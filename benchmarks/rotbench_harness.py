"""What an evaluation costs beside its model: ours against inspect_ai, with a mock model.

Both get the same cases, the same prompts and the same answers, and both grade with
`rotbench.grading`; what differs is the harness around it: requests, records or log, and our report,
which has a row of its own. Cases are those of the sample's first turn under eight seeds of fresh
noise.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from harness import Options, Ratio, Result, Row, cannot_run, finish, measure, ratio, read_options
from papercore.config import RunFlags
from papercore.generate.types import Completion, Request
from papercore.records import read_records
from papercore.report import conclude
from papercore.runs import Run
from rotbench.baselines import BaselineGenerator
from rotbench.config import EvalConfig
from rotbench.evaluate import evaluate, write_prompts
from rotbench.prompts import prompt_hash
from rotbench.tasks import Task, plan

SEEDS = 8
TARGET_MS = 2.0
OURS, REPORT, INSPECT = "rotbench, records on disk", "rotbench, with its report", "inspect_ai"

USAGE_NOTE = (
    "inspect_ai's mock model is given the usage of its answers: else it counts tokens with a file "
    "that it fetches from the network, and ends in an error without one"
)


@dataclass(frozen=True)
class Work:
    """What both harnesses are given."""

    config: EvalConfig
    tasks: Sequence[Task]
    answers: dict[str, str]
    """By id of the case."""
    by_prompt: dict[str, str]
    """By the text of the prompt, which is all that inspect's mock model is shown."""
    scratch: Path
    places: count[int]

    def folder(self) -> Path:
        """A new folder each time."""
        return self.scratch / f"run{next(self.places)}"


def main(options: Options) -> int:
    """Run both in turn, write the result."""
    if find_spec("inspect_ai") is None:
        raise cannot_run("inspect_ai is not in this environment: extra `inspect` of rotbench")
    if options.device != "cpu":
        raise cannot_run("this is promised for one CPU thread: give --device cpu")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["INSPECT_LOG_DIR"] = scratch
        work = prepare(Path(scratch), seeds=1 if options.quick else SEEDS)
        notes = check(work)
        ways: dict[str, Callable[[], object]] = {
            OURS: lambda: ours(work),
            REPORT: lambda: conclude(ours(work)),
            INSPECT: lambda: theirs(work),
        }
        rows = measure(ways, options, x=len(work.tasks))
    num = len(work.tasks)
    result = Result(
        "rotbench_harness",
        f"the harness costs at most {TARGET_MS:g} ms of CPU time per case",
        tuple(rows.values()),
        (
            per_case(OURS, rows[OURS], num, TARGET_MS),
            per_case(REPORT, rows[REPORT], num),
            per_case(INSPECT, rows[INSPECT], num),
            ratio("inspect_ai / rotbench", rows[INSPECT], rows[OURS]),
            ratio("inspect_ai / rotbench with its report", rows[INSPECT], rows[REPORT]),
        ),
        x_label="cases",
        notes=notes,
    )
    return finish(result, options)


def prepare(scratch: Path, *, seeds: int) -> Work:
    """Cases, and an answer to each."""
    config = EvalConfig(turns=("first",), noise="fresh", noise_seeds=tuple(range(seeds)))
    tasks, _ = plan(config)
    prompts = write_prompts(tasks, config)
    made = BaselineGenerator("lexical", prompts).generate([prompt.request for prompt in prompts])
    answers = {completion.id: completion.text for completion in made}
    by_prompt = {shown(prompt.request): answers[prompt.request.id] for prompt in prompts}
    return Work(config, tasks, answers, by_prompt, scratch, count())


def shown(request: Request) -> str:
    """The texts of a chat."""
    return "\n".join(str(message.content) for message in request.messages or ())


class Mock:
    """Our mock model."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """The prepared answers."""
        return [
            Completion(id=one.id, text=self.answers[one.id], finish_reason="stop")
            for one in requests
        ]


def ours(work: Work) -> Path:
    """What `rotbench eval` does between loading the cases and the report."""
    folder = work.folder()
    prompts = write_prompts(work.tasks, work.config)
    with Run.open(
        folder,
        work.config,
        RunFlags(),
        package="rotbench",
        version="benchmark",
        verb="eval",
        data_hash=prompt_hash(prompts),
    ) as run:
        evaluate(run, Mock(work.answers), work.tasks, prompts, work.config)
    return folder


def theirs(work: Work) -> Path:
    """The same through inspect_ai; its log is written as it comes with its defaults."""
    import inspect_ai
    from inspect_ai.model import ChatMessage, ModelOutput, ModelUsage, get_model

    from rotbench.inspect_task import task_of

    def answer(messages: list[ChatMessage], *_: object) -> ModelOutput:
        text = work.by_prompt["\n".join(message.text for message in messages)]
        output = ModelOutput.from_content("mock", text)
        output.usage = ModelUsage()  # else it counts tokens with a file from the network
        return output

    folder = work.folder()
    log = inspect_ai.eval(
        task_of(work.tasks, work.config),
        model=get_model("mockllm/model", custom_outputs=answer, memoize=False),
        log_dir=str(folder),
        display="none",
    )[0]
    if log.status != "success":
        raise RuntimeError(f"inspect_ai ended with {log.status}: {log.error}")
    return folder


def check(work: Work) -> tuple[str, ...]:
    """Both find the same scores; gives the notes."""
    from inspect_ai.log import read_eval_log

    mine, peer = ours(work), theirs(work)
    records = read_records(mine / "records.jsonl")
    log_file = next(peer.glob("*.eval"))
    log = read_eval_log(str(log_file))
    means = {score.name: score.metrics["mean"].value for score in log.results.scores}  # type: ignore[union-attr]
    for metric in ("ts", "pi", "cf"):
        share = sum(record.data["fixed"][metric] for record in records) / len(records)  # type: ignore[index,call-overload,misc]
        if abs(share - means[metric]) > 1e-9:
            raise RuntimeError(f"{metric}: {share} by rotbench, {means[metric]} by inspect_ai")
    sizes = f"{size(mine) / 1e6:.2f} MB of ours, {log_file.stat().st_size / 1e6:.2f} MB"
    return (
        f"{len(records)} cases; both find the same scores, checked before",
        USAGE_NOTE,
        "both grade with rotbench.grading and write the prompts with rotbench.prompts",
        f"on disk: {sizes} (compressed) of inspect_ai, which logs messages and events too",
        "imports and the start of a process are not counted: the first run of each is not timed",
    )


def size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def per_case(name: str, row: Row, num: int, target: float | None = None) -> Ratio:
    """CPU milliseconds per case."""
    spent = sorted(1000 * seconds / num for seconds in row.seconds)
    middle = spent[len(spent) // 2]
    told = (f"CPU ms per case, {name}", middle, spent[0], spent[-1], len(spent))
    return Ratio(*told) if target is None else Ratio(*told, "<=", target)


if __name__ == "__main__":
    raise SystemExit(main(read_options()))
