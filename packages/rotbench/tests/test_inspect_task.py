"""The export to inspect_ai, run with its own mock model."""

import gc
import itertools
import json
import warnings
from operator import attrgetter
from pathlib import Path

import pytest

from papercore.cli import App
from rotbench.answers import answer_of
from rotbench.baselines import BaselineGenerator
from rotbench.cli import APP
from rotbench.config import EvalConfig
from rotbench.evaluate import write_prompts
from rotbench.grading import grade
from rotbench.tasks import plan

pytest.importorskip("inspect_ai", reason="inspect_ai is not in this environment: extra `inspect`")
# Its dependencies warn on import; what they do there is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


text_of = attrgetter("text")


@pytest.fixture(autouse=True)
def nothing_left():
    """inspect leaves streams open, which warn when they are collected: here, not in a test of ours.

    Collection in its own good time made another test of the same worker fail.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def shown(texts, tools):
    """What tells one prompt from the others."""
    return json.dumps([list(texts), [(tool.name, str(tool.parameters)) for tool in tools]])


@pytest.fixture
def run_mock(tmp_path, monkeypatch):
    """Runs the task with inspect's mock model, which gives the oracle's answers."""
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))

    def go(mode, level, oracle="oracle"):
        import inspect_ai
        from inspect_ai.model import ChatMessageAssistant, ModelOutput, ModelUsage, get_model
        from inspect_ai.tool import ToolCall

        from rotbench.inspect_task import _tool_infos, rotbench_task

        task = rotbench_task(turn="first", level=level, mode=mode)
        config = EvalConfig(turns=("first",), levels=(level,), mode=mode)
        prompts = write_prompts(plan(config)[0], config)
        generator = BaselineGenerator(oracle, prompts, mode=mode)
        completions = generator.generate([prompt.request for prompt in prompts])
        by_id = {completion.id: completion for completion in completions}
        texts = {}
        for prompt, sample in itertools.product(prompts, task.dataset):
            if prompt.request.id == sample.id:
                said = (
                    [sample.input] if isinstance(sample.input, str) else map(text_of, sample.input)
                )
                texts[shown(said, _tool_infos(prompt.request.tools or ()))] = by_id[sample.id]

        def answer(messages, tools, tool_choice, settings):
            made = texts[shown(map(text_of, messages), tools)]
            calls = [
                ToolCall(id=call.id, function=call.name, arguments=json.loads(call.arguments))
                for call in made.tool_calls
            ]
            message = ChatMessageAssistant(content=made.text, tool_calls=calls or None)
            # with usage given, the mock model does not load its tokenizer from the network
            return ModelOutput.from_message(message).model_copy(update={"usage": ModelUsage()})

        model = get_model("mockllm/model", custom_outputs=answer)
        log = inspect_ai.eval(
            task, model=model, log_dir=str(tmp_path / "logs"), display="none", score_display=False
        )[0]
        graded = [
            grade(p.case, answer_of(p, c), mode) for p, c in zip(prompts, completions, strict=True)
        ]
        return log, graded

    return go


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["react", "native", "raven1", "raven2"])
def test_scores_are_those_of_rotbench(run_mock, mode):
    log, graded = run_mock(mode, "heavy", "lexical")
    assert log.status == "success", log.error
    found = {score.name: score.metrics["mean"].value for score in log.results.scores}
    for place, metric in enumerate(("ts", "pi", "cf")):
        fixed = sum(grade.fixed[place] for grade in graded) / len(graded)
        official = sum(grade.official[place] for grade in graded) / len(graded)
        assert found[metric] == pytest.approx(fixed)
        assert found[f"official_{metric}"] == pytest.approx(official)
    assert 0 < found["ts"] < 1, "the test could not tell scores apart"
    assert {"mean", "stderr"} <= set(log.results.scores[0].metrics)
    assert log.samples[0].metadata["query"] == log.samples[0].id.replace("heavy/tool/", "").replace(
        "heavy/parameter/", ""
    )


@pytest.mark.slow
def test_a_run_becomes_a_log_that_inspect_reads(tmp_path, capsys):
    from inspect_ai.log import read_eval_log

    from rotbench.inspect_task import export_log

    run = tmp_path / "run"
    assert isinstance(APP, App)
    assert APP.main(["eval", "--levels", "slight", "--out", str(run)]) == 0
    capsys.readouterr()
    summary = json.loads((run / "summary.json").read_text())
    for name in ("log.eval", "log.json"):
        log = read_eval_log(str(export_log(run, tmp_path / name)))
        assert log.eval.task == "rotbench"
        assert log.eval.model == "baseline:lexical"
        assert len(log.samples) == log.results.total_samples == summary["counts"]["ok"]
        sample = next(s for s in log.samples if s.id == "first/slight/tool/000")
        assert sample.input[0].role == "system"
        assert "Action:" in sample.output.completion
        assert set(sample.scores["rotbench_call"].value) == {
            "ts", "pi", "cf", "official_ts", "official_pi", "official_cf"
        }  # fmt: skip
        assert "Action Input:" in sample.target[0]


@pytest.mark.slow
def test_prompts_that_have_changed_are_not_put_beside_old_answers(tmp_path, monkeypatch, caplog):
    from inspect_ai.log import read_eval_log

    from rotbench import inspect_task

    run = tmp_path / "run"
    assert APP.main(["eval", "--limit", "1", "--turns", "first", "--out", str(run)]) == 0
    monkeypatch.setattr(inspect_task, "prompt_hash", lambda prompts: "another")
    log = read_eval_log(str(inspect_task.export_log(run, tmp_path / "log.json")))
    assert "the data or the prompts have changed" in caplog.text
    assert {sample.input for sample in log.samples} == {"first/000"}, "the query's key alone"


@pytest.mark.slow
def test_a_failed_request_is_an_error_of_its_sample(tmp_path):
    from inspect_ai.log import read_eval_log

    from papercore.config import RunFlags
    from papercore.records import Record
    from papercore.runs import Run
    from rotbench.inspect_task import export_log

    data = {
        "turn": "first", "level": "clean", "half": "whole", "query": "first/000",
        "scenario": "TG", "operators": [],
    }  # fmt: skip
    where = {"package": "rotbench", "version": "1.0.0", "verb": "eval"}
    with Run.open(tmp_path / "run", EvalConfig(), RunFlags(), **where) as run:
        failed = Record(id="first/clean/whole/000", status="error", error="no reply", data=data)
        run.append(failed)
    log = read_eval_log(str(export_log(tmp_path / "run", tmp_path / "log.eval")))
    assert log.status == "error"
    assert log.samples[0].error.message == "no reply"
    assert not log.samples[0].scores
    assert log.results.completed_samples == 0


@pytest.mark.slow
def test_arguments_that_inspect_cannot_read_are_no_empty_arguments(sample_cases):
    """inspect puts `{}` for them, which would be right for a tool that wants nothing."""
    from inspect_ai.model import ChatMessageAssistant, ModelOutput
    from inspect_ai.model._call_tools import parse_tool_call

    from rotbench.inspect_task import _answer
    from rotbench.prompts import write_prompt

    prompt = write_prompt(sample_cases[0], mode="native")
    name = prompt.toolbox.specs[0].name
    call = parse_tool_call("1", name, '{"city":')
    assert (call.arguments, call.parse_error is None) == ({}, False)
    output = ModelOutput.from_message(ChatMessageAssistant(content="", tool_calls=[call]))
    answer = _answer(prompt, output)
    assert answer.tool_calls[0][1] == '{"city":'
    assert grade(prompt.case, answer, "native").error == "format"


def test_only_runs_of_eval_and_score_become_logs(tmp_path):
    from papercore.errors import DataError
    from rotbench.inspect_task import export_log

    with pytest.raises(DataError, match="not a run folder"):
        export_log(Path(tmp_path), tmp_path / "log.eval")
