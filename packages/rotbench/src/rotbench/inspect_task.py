"""The cases and the scorer as an inspect_ai task; runs as logs for its viewer (extra `inspect`).

    inspect eval rotbench/rotbench --model openai/gpt-4o -T data=released -T level=heavy

or from Python:

    inspect_ai.eval(rotbench_task(data="sample", level="slight"), model="mockllm/model")
    export_log(Path("runs/qwen"), Path("logs/qwen.eval"))

There the harness is inspect's: its models, retries, limits and viewer. Prompts, reading and scores
are ours, so the numbers are those of `rotbench eval`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import (
    EvalConfig as InspectConfig,
)
from inspect_ai.log import (
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    write_eval_log,
)
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolCall, ToolInfo, ToolParams

from papercore.config import Config, validate
from papercore.errors import DataError
from papercore.generate.types import Message, ToolSpec
from papercore.records import Record, read_records
from papercore.runs import Identity, read_identity
from rotbench import tasks as planning
from rotbench.cases import LEVELS, TURNS, Level, Turn
from rotbench.config import EvalConfig, Mode
from rotbench.evaluate import write_prompts
from rotbench.grading import Answer, Grade, grade
from rotbench.markup import calls_in
from rotbench.prompts import Prompt, prompt_hash
from rotbench.rates import METRICS, SCORERS
from rotbench.rewrite import call_text

__all__ = ["export_log", "rotbench_task", "task_of"]

logger = logging.getLogger(__name__)

SCORER = "rotbench_call"
"""Name of the scorer in inspect's logs."""

NAMES = tuple(f"{s}_{m}" if s == "official" else m for s in SCORERS for m in METRICS)
"""The scores of a sample: `ts`, `pi`, `cf`, and the same by the official scorer."""


@task(name="rotbench")
def rotbench_task(
    data: str = "sample",
    turn: Turn | None = None,
    level: Level | None = None,
    mode: Mode = "react",
) -> Task:
    """RoTBench as a task.

    Args:
        data: `sample`, `released`, or a folder.
        turn: One turn; all if None.
        level: One level; all if None.
        mode: How tools are shown and calls are to be written.
    """
    turns, levels = (turn,) if turn else TURNS, (level,) if level else LEVELS
    given: dict[str, object] = {"data": data, "turns": turns, "levels": levels, "mode": mode}
    config = validate(EvalConfig, given)
    planned, data_hash = planning.plan(config)
    return task_of(planned, config, data_hash)


def task_of(
    planned: Sequence[planning.Task], config: EvalConfig, data_hash: str | None = None
) -> Task:
    """Planned cases as a task, with fresh noise if the config has it."""
    prompts = {prompt.request.id: prompt for prompt in write_prompts(planned, config)}
    samples = [_sample(one, prompts[one.name]) for one in planned]
    return Task(
        dataset=MemoryDataset(samples, name=f"rotbench-{config.data}"),
        solver=_asking(prompts),
        scorer=_scoring(prompts, config.mode),
        metadata={"data_hash": data_hash, "mode": config.mode},
    )


def _asking(prompts: Mapping[str, Prompt]) -> Solver:
    """Asks the model once; with its own tool calling where the prompt has tools.

    The prompts are no argument of the registered function, since inspect would log them with it.
    """

    @solver(name="rotbench_ask")
    def ask() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            tools = prompts[str(state.sample_id)].request.tools
            if not tools:
                return await generate(state)
            state.output = await get_model().generate(state.messages, tools=_tool_infos(tools))
            state.messages.append(state.output.message)
            return state

        return solve

    return ask()


def _scoring(prompts: Mapping[str, Prompt], mode: Mode) -> Scorer:
    """Reads and scores the answer as `rotbench eval` does."""

    @scorer(name=SCORER, metrics={name: [mean(), stderr(cluster="query")] for name in NAMES})
    def score_call() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            prompt = prompts[str(state.sample_id)]
            return _score(grade(prompt.case, _answer(prompt, state.output), mode))

        return score

    return score_call()


def export_log(run_folder: Path, out: Path) -> Path:
    """Writes a run of `eval` or `score` as a log that inspect's viewer reads.

    Args:
        run_folder: The run.
        out: The log's file, ending in `.eval` or `.json`.

    Raises:
        DataError: It is no run folder, or a run of something else.
    """
    identity = read_identity(run_folder)
    if (identity.package, identity.verb) not in (("rotbench", "eval"), ("rotbench", "score")):
        raise DataError(f"{run_folder}: is a run of {identity.package} {identity.verb}, not eval")
    records = read_records(run_folder / "records.jsonl")
    prompts = _prompts_of(identity) if identity.verb == "eval" else {}
    made = (run_folder / "config.json").stat().st_mtime
    log = EvalLog(
        status="error" if any(r.status == "error" for r in records) else "success",
        eval=EvalSpec(
            created=datetime.fromtimestamp(made, UTC).isoformat(),
            task="rotbench",
            dataset=EvalDataset(name=str(identity.config["data"]), samples=len(records)),
            model=str(identity.config["model"]),
            config=InspectConfig(),
            task_args=dict(identity.config),
            packages={"rotbench": identity.version},
            metadata={"data_hash": identity.data_hash, "config_hash": identity.hash},
        ),
        results=_results(records),
        samples=[_logged(record, prompts.get(record.id)) for record in records],
    )
    write_eval_log(log, str(out))
    return out


def _sample(planned: planning.Task, prompt: Prompt) -> Sample:
    key = planned.case.key
    return Sample(
        input=_input(prompt),
        target=[call_text(gold) for gold in planned.case.golds],
        id=planned.name,
        metadata={
            "turn": key.turn,
            "level": key.level,
            "half": key.half,
            "query": key.query,
            "scenario": planned.case.scenario,
        },
    )


def _input(prompt: Prompt) -> str | list[ChatMessage]:
    if prompt.request.prompt is not None:
        return prompt.request.prompt
    return [_chat_message(message) for message in prompt.request.messages or ()]


def _chat_message(message: Message) -> ChatMessage:
    text = str(message.content)
    if message.role == "system":
        return ChatMessageSystem(content=text)
    if message.role == "user":
        return ChatMessageUser(content=text)
    if message.role == "tool":
        return ChatMessageTool(content=text, tool_call_id=message.tool_call_id)
    calls = [
        ToolCall(id=call.id, function=call.name, arguments=json.loads(call.arguments))
        for call in message.tool_calls
    ]
    return ChatMessageAssistant(content=text, tool_calls=calls or None)


def _tool_infos(tools: Sequence[ToolSpec]) -> list[ToolInfo]:
    return [
        ToolInfo(
            name=tool.name,
            description=tool.description,
            parameters=ToolParams.model_validate(dict(tool.parameters)),
        )
        for tool in tools
    ]


def _answer(prompt: Prompt, output: ModelOutput) -> Answer:
    if prompt.toolbox is None:
        return Answer(output.completion)
    made = output.message.tool_calls or [] if output.choices else []
    calls = [(call.function, _arguments(call)) for call in made]
    calls = calls or calls_in(output.completion)
    return Answer(output.completion, tuple(prompt.toolbox.restored(call) for call in calls))


def _arguments(call: ToolCall) -> str:
    """As the model wrote them where inspect could not read them, and put an empty object instead.

    Its message has them between two blank lines.
    """
    if call.parse_error is None:
        return json.dumps(call.arguments, ensure_ascii=False)
    return call.parse_error.partition("\n\n")[2].rpartition("\n\n")[0] or call.parse_error


def _score(graded: Grade) -> Score:
    flags = (*graded.fixed, *graded.official)
    return Score(
        value={name: int(flag) for name, flag in zip(NAMES, flags, strict=True)},
        answer=graded.prediction.name,
        explanation=graded.error,
        metadata=graded.to_json(),
    )


def _prompts_of(identity: Identity) -> dict[str, Prompt]:
    """The prompts of a run once more, if its data are here and give the same ones."""
    settings: Config = validate(EvalConfig, identity.config)
    assert isinstance(settings, EvalConfig)
    try:
        planned, data_hash = planning.plan(settings)
    except DataError as error:
        logger.warning("the log will hold no prompts: %s", error)
        return {}
    prompts = write_prompts(planned, settings)
    if f"{data_hash}, prompts {prompt_hash(prompts)}" != identity.data_hash:
        logger.warning("the log will hold no prompts: the data or the prompts have changed since")
        return {}
    return {prompt.request.id: prompt for prompt in prompts}


def _results(records: Sequence[Record]) -> EvalResults:
    scored = [record for record in records if record.status == "ok"]
    scores = []
    for place, name in enumerate(NAMES):
        scorer_name = SCORERS[place // len(METRICS)]
        metric = METRICS[place % len(METRICS)]
        right = sum(cast("dict[str, bool]", r.data[scorer_name])[metric] for r in scored)
        value = EvalMetric(name="mean", value=right / len(scored) if scored else 0.0)
        scores.append(EvalScore(name=name, scorer=SCORER, metrics={"mean": value}))
    return EvalResults(total_samples=len(records), completed_samples=len(scored), scores=scores)


def _logged(record: Record, prompt: Prompt | None) -> EvalSample:
    data = record.data
    about = {k: data[k] for k in ("turn", "level", "half", "query", "scenario", "operators")}
    target = [call_text(gold) for gold in prompt.case.golds] if prompt else ""
    shown = EvalSample(
        id=record.id,
        epoch=1,
        input=_input(prompt) if prompt else str(data["query"]),
        target=target,
        metadata=about,
    )
    if record.status == "error":
        reason = record.error or ""
        shown.error = EvalError(message=reason, traceback=reason, traceback_ansi=reason)
        return shown
    shown.output = ModelOutput.from_content(str(data["model"]), _shown_answer(data))
    shown.scores = {SCORER: _stored_score(data)}
    return shown


def _shown_answer(data: Mapping[str, object]) -> str:
    calls = cast("list[dict[str, str]]", data["tool_calls"])
    return "\n".join([str(data["text"]), *(f"{c['name']} {c['arguments']}" for c in calls)]).strip()


def _stored_score(data: Mapping[str, object]) -> Score:
    flags = [
        cast("dict[str, bool]", data[scorer])[metric] for scorer in SCORERS for metric in METRICS
    ]
    name = data["name"]
    return Score(
        value={key: int(flag) for key, flag in zip(NAMES, flags, strict=True)},
        answer=name if isinstance(name, str) else None,
        explanation=str(data["error"]),
    )
