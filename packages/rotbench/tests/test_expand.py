"""Query expansion with a scripted model: the pool grows, stays varied, and a killed run goes on."""

import json
from itertools import combinations

import pytest

from papercore.config import RunFlags
from papercore.errors import DataError
from papercore.generate.types import Completion, Usage
from papercore.records import read_records
from papercore.runs import Run
from papercore.testing import run_cli
from rotbench import expand as module
from rotbench.config import ExpandConfig
from rotbench.environments import read_environments
from rotbench.expand import State, expand, prompt_of, requests_of
from rotbench.rouge import Pool, rouge_l
from rotbench.training_report import summarise

NOUNS = ("flights", "trains", "songs", "recipes", "museums", "stocks", "novels", "hikes", "boats")
PLACES = ("Rome", "Lima", "Oslo", "Kyoto", "Cairo", "Quito", "Bonn", "Perth", "Delhi", "Accra")


class Scripted:
    """Answers from the number in the request's id; some of what it writes is stale."""

    def __init__(self, dies_at=None, kind=None):
        self.seen = []
        self.dies_at, self.kind = dies_at, kind

    def generate(self, requests):
        if self.dies_at is not None and len(self.seen) + len(requests) > self.dies_at:
            raise KeyboardInterrupt
        self.seen += requests
        return [self.answer(one) for one in requests]

    def answer(self, request):
        if self.kind is not None:
            return Completion(
                id=request.id, finish_reason="error", error="no", error_kind=self.kind
            )
        number = int(request.id.rpartition("/")[2])
        noun, place = NOUNS[number % len(NOUNS)], PLACES[number // 3 % len(PLACES)]
        lines = [
            f"1. Compare {number} {noun} near {place} and tell me which is best",
            "2. What is the weather in Paris tomorrow afternoon?",
            f"3. List {noun} {place} {number} {number + 1} {number + 2}",
        ]
        usage = Usage(prompt_tokens=9, completion_tokens=9)
        return Completion(id=request.id, text="\n".join(lines), finish_reason="stop", usage=usage)


@pytest.fixture
def config():
    return ExpandConfig(model="tiny:rotbench", count=20, wave=4, patience=2)


def open_run(out, config, *, resume=False):
    flags = RunFlags(out=out, resume=resume)
    return Run.open(out, config, flags, package="rotbench", version="0", verb="expand")


def expanded(out, config, generator, *, resume=False):
    environments, _ = read_environments(config)
    with open_run(out, config, resume=resume) as opened:
        return expand(opened, generator, environments, config), opened.records()


def test_the_pool_grows_and_stays_varied(config, tmp_path):
    (state, reason), records = expanded(tmp_path, config, Scripted())
    assert (reason, state.count >= 20) == ("", True)
    accepted = [entry["query"] for record in records for entry in record.data["accepted"]]
    assert accepted == [query for query in state.pool.texts if query in accepted]
    human = [query for one in read_environments(config)[0] for query in one.human]
    for first, second in combinations(accepted, 2):
        assert rouge_l(first, second) < 0.55
    for query in accepted:
        assert max(rouge_l(query, other) for other in human) < 0.55
    stale = [entry for record in records for entry in record.data["rejected"]]
    assert any(entry["query"].startswith("What is the weather") for entry in stale)
    assert all(entry["rouge"] >= 0.55 for entry in stale)


def test_a_killed_run_goes_on_to_the_same_queries(config, tmp_path):
    (whole, _), records = expanded(tmp_path / "whole", config, Scripted())
    with pytest.raises(KeyboardInterrupt):
        expanded(tmp_path / "killed", config, Scripted(dies_at=9))
    # within a wave too: the last record is lost
    path = tmp_path / "killed" / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    generator = Scripted()
    (resumed, _), again = expanded(tmp_path / "killed", config, generator, resume=True)
    assert resumed.pool.texts == whole.pool.texts
    assert again == records
    assert len(generator.seen) == len(records) - 7
    finished = Scripted()
    expanded(tmp_path / "killed", config, finished, resume=True)
    assert finished.seen == []


def test_prompts_depend_on_seed_number_and_earlier_waves_only(config):
    environments, _ = read_environments(config)
    state = State(Pool())
    first = requests_of(0, environments, state, config)
    assert requests_of(0, environments, state, config) == first
    assert [one.id for one in first] == [f"expand/{i:06d}" for i in range(4)]
    assert len({one.params.seed for one in first}) == 4
    other = requests_of(0, environments, state, config.model_copy(update={"seed": 1}))
    assert [one.messages for one in other] != [one.messages for one in first]


def test_a_prompt_shows_tools_and_a_mix_of_queries(config):
    environments, _ = read_environments(config)
    state = State(Pool())
    for number in range(5):
        state.add(0, f"generated query number {number}")
    text = requests_of(0, environments, state, config)[0].messages[1].content
    for tool in environments[0].tools:
        assert f"- {tool.name}: {tool.description}" in text
    assert text.count("generated query number") == config.generated
    assert all(f"- {query}\n" in text for query in environments[0].human)
    assert "Write 5 new requests" in text
    assert "ask_to_user" not in text


def test_a_prompt_without_examples_has_no_empty_list():
    assert "before" not in prompt_of((), (), 3)


def test_it_stops_when_nothing_new_comes(config, tmp_path):
    class Stale(Scripted):
        def answer(self, request):
            return Completion(
                id=request.id, text="1. Always the same old thing.", finish_reason="stop"
            )

    (state, reason), records = expanded(tmp_path, config, Stale())
    assert state.count == 1
    assert reason == "2 waves of 4 prompts brought no new query"
    assert len(records) == 4 * 3


@pytest.mark.parametrize("kind", ["budget", "refused", "transport"])
def test_it_stops_when_every_prompt_fails(config, tmp_path, kind):
    generator = Scripted(kind=kind)
    (state, reason), records = expanded(tmp_path, config, generator)
    assert (state.count, len(generator.seen)) == (0, 4)
    assert "no" in reason
    assert {record.status for record in records} == {"error"}
    (state, _), records = expanded(tmp_path, config, Scripted(), resume=True)
    assert state.count >= 20
    assert [record.status for record in records[:5]] == ["error"] * 4 + ["ok"]


def test_a_cut_reply_loses_its_last_query(config, tmp_path):
    class Cut(Scripted):
        def answer(self, request):
            done = super().answer(request)
            return done.model_copy(update={"finish_reason": "length"})

    _, records = expanded(tmp_path, config.model_copy(update={"count": 1}), Cut())
    seen = [e["query"] for r in records for e in [*r.data["accepted"], *r.data["rejected"]]]
    assert seen
    assert not any(query.startswith("List") for query in seen)


def test_the_command_writes_human_and_generated_queries(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("papercore.generate.backends.generator_for", lambda *_, **__: Scripted())
    out = tmp_path / "run"
    assert module.run(config, RunFlags(out=out)) == 0
    lines = [json.loads(line) for line in (out / "queries.jsonl").read_text().splitlines()]
    origins = [line["origin"] for line in lines]
    assert origins.count("generated") >= 20
    assert origins == sorted(origins, reverse=True)
    found = summarise(read_records(out / "records.jsonl"))
    assert found["queries"].value == origins.count("generated")
    assert 0 < found["accepted"].value < 1
    assert f"{origins.count('generated')} of 20 new queries" in capsys.readouterr().out
    monkeypatch.setattr(
        "papercore.generate.backends.generator_for", lambda *_, **__: Scripted(kind="refused")
    )
    assert module.run(config, RunFlags(out=tmp_path / "none")) == 1
    assert "stopped: refused: no" in capsys.readouterr().out


def test_tools_of_your_own(tmp_path):
    tools = [{"type": "function", "function": {"name": "f", "description": "Does f."}}]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    (tmp_path / "queries.txt").write_text("Do f for me.\n\n  Do it again. \n")
    config = ExpandConfig(tools=str(tmp_path / "tools.json"), queries=tmp_path / "queries.txt")
    (environment,), _ = read_environments(config)
    assert [tool.name for tool in environment.tools] == ["f"]
    assert environment.human == ("Do f for me.", "Do it again.")
    with pytest.raises(DataError, match="nonesuch"):
        read_environments(config.model_copy(update={"queries": tmp_path / "nonesuch"}))
    with pytest.raises(DataError, match="has its own"):
        read_environments(config.model_copy(update={"tools": "sample"}))


def test_an_unknown_source_is_refused_in_one_line(tmp_path):
    said = run_cli(["rotbench", "expand", "--tools", "nonesuch", "--out", tmp_path / "out"])
    assert (said.returncode, len(said.stderr.splitlines())) == (2, 1)
    assert "nonesuch" in said.stderr
    assert not (tmp_path / "out").exists()
