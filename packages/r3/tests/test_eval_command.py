"""`r3 eval` from prepared data to a report: backends, few-shot, samples, resume, comparison."""

import json
from shutil import copytree

import pytest

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError, ModelError
from papercore.files import read_json, write_json
from papercore.generate.hf import HFGenerator
from papercore.models import load_model
from papercore.records import read_records
from papercore.report import recheck
from papercore.testing import chat, stub_endpoint, text, tiny_model
from papercore.tiny import byte_tokenizer
from r3.config import EvalConfig, PromptConfig, SFTConfig
from r3.data import write_prepared
from r3.demos import Demo
from r3.eval_answers import read_answers
from r3.eval_command import run
from r3.prompting import prompt_ids
from r3.sft import encode_whole, finetune
from r3.tasks import compose
from r3.tested import LEDGER
from r3.testing import gsm8k_rows

PROMPT = PromptConfig(template="Q: {question}\nA: ")


def simple(split, number):
    target, at = compose("gsm8k", f"It is {number}.", str(number))
    return Demo(f"{split}{number}", f"{split} {number} ?", target, str(number), at)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "data"
    splits = {
        split: [simple(split, number) for number in range(count)]
        for split, count in (("train", 6), ("dev", 6), ("test", 4))
    }
    write_prepared(folder, task="gsm8k", prompt=PROMPT, splits=splits, meta={})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A byte-level Llama that was tuned until it knows two of the train questions."""
    tokenizer = byte_tokenizer()
    learner = tiny_model("llama", initializer_range=0.05)
    demos = [simple("train", number) for number in (0, 1)]
    config = SFTConfig(
        batch=2, micro_batch=2, max_steps=80, learning_rate=1e-2, schedule="constant"
    )
    finetune(learner, tokenizer, encode_whole(demos, tokenizer, PROMPT), config, None, None)
    folder = tmp_path_factory.mktemp("model")
    learner.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def config(data, model):
    def make(**changes):
        usual = {"model": str(model), "data": data, "split": "dev", "max_new_tokens": 24}
        return EvalConfig(**(usual | changes))

    return make


def answers_of(out):
    return read_answers(read_records(out / "records.jsonl"))


def metrics(out):
    return read_json(out / "summary.json")["metrics"]


def notes(out):
    return read_json(out / "env.json")["notes"]


def answering(right):
    """An endpoint that states the number in the question, plus one where it is not `right`."""

    def answer(call):
        asked = call.body.get("prompt") or call.body["messages"][-1]["content"]
        number = int(str(asked).rsplit(" ?", 1)[0].rsplit(" ", 1)[1])
        said = f"So it is.\n#### {number if number in right else number + 1}"
        return text(said) if "prompt" in call.body else chat(said)

    return answer


def test_a_tuned_model_is_right_where_it_was_taught(config, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(config(split="train", limit=3), RunFlags(out=out)) == 0
    found = answers_of(out)
    assert [one.correct for one in found] == [True, True, False]
    assert found[0].text == "It is 0.\n#### 0"
    assert found[0].finish == "stop"
    assert found[0].tokens == len(found[0].text) + 1  # bytes, and the end
    accuracy = metrics(out)["accuracy"]
    assert accuracy["value"] == pytest.approx(2 / 3)
    assert (accuracy["n"], accuracy["method"]) == (3, "wilson")
    said = capsys.readouterr().out
    assert "gsm8k, train, 3 questions, greedy" in said
    assert "accuracy   66.7 % [20.8, 93.9]" in said
    assert recheck(out) == []


def test_the_model_is_sent_the_prompts_of_tuning_and_rl(config, data, model, tmp_path, monkeypatch):
    sent = []
    generate = HFGenerator.generate

    def watched(self, requests):
        sent.extend(requests)
        return generate(self, requests)

    monkeypatch.setattr(HFGenerator, "generate", watched)
    run(config(limit=2), RunFlags(out=tmp_path / "out"))
    _, tokenizer = load_model(str(model))
    expected = [prompt_ids(tokenizer, f"dev {number} ?", PROMPT) for number in (0, 1)]
    assert [one.token_ids for one in sent] == expected
    assert all(one.params.stop == () for one in sent)


def test_an_endpoint_is_sent_text_and_its_whole_answer_is_verified(config, tmp_path):
    out = tmp_path / "out"
    with stub_endpoint(answering({0, 1, 2, 3})) as stub:
        assert run(config(model=f"openai:m@{stub.url}"), RunFlags(out=out)) == 0
    assert {call.route for call in stub.calls} == {"/completions"}
    assert {str(call.body["prompt"]) for call in stub.calls} == {
        f"Q: dev {number} ?\nA: " for number in range(6)
    }
    assert metrics(out)["accuracy"]["value"] == pytest.approx(4 / 6)
    assert metrics(out)["partial"]["value"] == pytest.approx(2 / 6)
    assert metrics(out)["parsed"]["value"] == 1.0
    assert notes(out)["backend"] == "OpenAIGenerator"
    assert notes(out)["endpoint_sent"] == 6


def test_a_chat_prompt_goes_to_an_endpoint_as_messages(config, tmp_path):
    folder = tmp_path / "chat"
    prompt = PromptConfig(style="chat", template="{question}", system="Be brief.")
    splits = {"train": [simple("train", 1)], "dev": [simple("dev", 2)]}
    write_prepared(folder, task="gsm8k", prompt=prompt, splits=splits, meta={})
    with stub_endpoint(answering({2})) as stub:
        settings = config(model=f"openai:m@{stub.url}", data=folder, shots=1)
        assert run(settings, RunFlags(out=tmp_path / "out")) == 0
    said = [(one["role"], one["content"]) for one in stub.calls[0].body["messages"]]
    assert said == [
        ("system", "Be brief."),
        ("user", "train 1 ?"),
        ("assistant", "It is 1.\n#### 1"),
        ("user", "dev 2 ?"),
    ]
    assert "stop" not in stub.calls[0].body


def test_few_shot_shows_train_demonstrations_and_stops_at_the_next_question(config, tmp_path):
    out = tmp_path / "out"
    with stub_endpoint(answering({0, 1})) as stub:
        settings = config(model=f"openai:m@{stub.url}", shots=2, draws=3)
        assert run(settings, RunFlags(out=out)) == 0
    prompts = [str(call.body["prompt"]) for call in stub.calls]
    assert len(prompts) == 18
    assert all(call.body["stop"] == ["\nQ:"] for call in stub.calls)
    heads = {prompt.rsplit("\n\n", 1)[0] for prompt in prompts}
    assert len(heads) == 3  # one for each draw
    for prompt in prompts:
        assert prompt.count("Q: train ") == 2
        assert prompt.count("Q: dev ") == 1
        assert prompt.endswith(" ?\nA: ")
    found = metrics(out)["accuracy"]
    assert found["value"] == pytest.approx(2 / 6)
    assert (found["n"], found["method"]) == (6, "clustered")
    lines = (out / "tables" / "draws.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["draw", "0", "1", "2"]


def test_few_shot_that_gets_nothing_right_does_not_know_that_it_never_will(
    config, tmp_path, capsys
):
    with stub_endpoint(answering(set())) as stub:
        settings = config(model=f"openai:m@{stub.url}", shots=2, draws=3)
        assert run(settings, RunFlags(out=tmp_path / "out")) == 0
    assert "accuracy   0.0 % [0.0, 39.0]" in capsys.readouterr().out.splitlines()
    found = metrics(tmp_path / "out")["accuracy"]
    assert (found["n"], found["method"]) == (6, "wilson")


def test_a_run_folder_in_place_of_its_model_is_refused_at_once(
    config, model, tmp_path, monkeypatch
):
    tuned = tmp_path / "sft"
    write_json(tuned / "config.json", {"run_schema": 1})
    copytree(model, tuned / "model")
    monkeypatch.setattr("papercore.models.load_model", lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(ModelError, match=rf"{tuned} is a run folder; its model is {tuned}/model$"):
        run(config(model=str(tuned)), RunFlags(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_question_of_the_train_split_never_sees_its_own_solution(config, tmp_path):
    with stub_endpoint(answering(set())) as stub:
        settings = config(model=f"openai:m@{stub.url}", split="train", shots=5)
        run(settings, RunFlags(out=tmp_path / "out"))
        for call in stub.calls:
            *before, asked = str(call.body["prompt"]).split("Q: ")
            assert asked.removesuffix("\nA: ") not in "".join(before)
        too_many = config(model=f"openai:m@{stub.url}", split="train", shots=6)
        with pytest.raises(DataError, match="only 5 demonstrations beside question 'train0'"):
            run(too_many, RunFlags(out=tmp_path / "two"))
    assert not (tmp_path / "two").exists()


def test_samples_differ_and_give_pass_at_k_and_majority(config, tmp_path):
    out = tmp_path / "out"
    settings = config(samples=4, temperature=1.0, limit=3)
    assert run(settings, RunFlags(out=out)) == 0
    found = answers_of(out)
    assert len(found) == 12
    assert len({one.text for one in found}) > 3
    assert {"accuracy", "majority", "pass_at_1", "pass_at_2", "pass_at_4"} <= metrics(out).keys()
    assert metrics(out)["pass_at_1"]["value"] == pytest.approx(metrics(out)["accuracy"]["value"])
    again = tmp_path / "again"
    run(settings, RunFlags(out=again))
    assert [one.text for one in answers_of(again)] == [one.text for one in found]


def test_a_killed_run_goes_on_to_the_same_records(config, tmp_path, monkeypatch):
    settings = config(samples=2, temperature=1.0, flush_every=2)
    run(settings, RunFlags(out=tmp_path / "whole"))
    generate = HFGenerator.generate
    calls = []

    def dies(self, requests):
        calls.append(len(requests))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, requests)

    monkeypatch.setattr(HFGenerator, "generate", dies)
    with pytest.raises(KeyboardInterrupt):
        run(settings, RunFlags(out=tmp_path / "killed"))
    assert calls == [4, 4]  # two questions with two samples
    assert len(answers_of(tmp_path / "killed")) == 4
    assert run(settings, RunFlags(out=tmp_path / "killed", resume=True)) == 0
    assert calls[2:] == [4, 4]
    whole, killed = (
        (tmp_path / name / "records.jsonl").read_text() for name in ("whole", "killed")
    )
    assert whole == killed
    other = config(samples=2, temperature=1.0, max_new_tokens=5)
    with pytest.raises(ConfigError, match="holds another run, max_new_tokens: 24 -> 5"):
        run(other, RunFlags(out=tmp_path / "killed", resume=True))


def test_what_failed_counts_nowhere_and_is_asked_again(config, tmp_path, capsys):
    out = tmp_path / "out"
    settings = config(flush_every=1)
    broken = []

    def half(call):
        number = int(str(call.body["prompt"]).rsplit(" ?", 1)[0].rsplit(" ", 1)[1])
        if number == 3 and not broken:
            broken.append(number)
            return text("", finish_reason="content_filter")
        return answering({0, 1, 2, 3, 4, 5})(call)

    with stub_endpoint(half) as stub:
        settings = config(model=f"openai:m@{stub.url}")
        assert run(settings, RunFlags(out=out)) == 1
        assert metrics(out)["accuracy"]["n"] == 5
        assert metrics(out)["answered"]["value"] == pytest.approx(5 / 6)
        assert "NOT ALL ANSWERED: 1 failed and 0 were not sent, of 6" in capsys.readouterr().err
        asked = len(stub.calls)
        assert run(settings, RunFlags(out=out, resume=True)) == 0
        assert len(stub.calls) == asked + 1
        assert metrics(out)["accuracy"]["n"] == 6
        assert "answered" not in metrics(out)
        assert run(settings, RunFlags(out=out, resume=True)) == 0
        assert len(stub.calls) == asked + 1


def test_a_prompt_that_leaves_no_room_is_an_error_of_that_question(data, model, tmp_path):
    folder = tmp_path / "long"
    long = Demo("long", "x" * 600, "", "1")
    splits = {"train": [simple("train", 1)], "dev": [simple("dev", 1), long]}
    write_prepared(folder, task="gsm8k", prompt=PROMPT, splits=splits, meta={})
    settings = EvalConfig(model=str(model), data=folder, max_new_tokens=8)
    assert run(settings, RunFlags(out=tmp_path / "out")) == 1
    good, bad = answers_of(tmp_path / "out")
    assert good.error is None
    assert "leave no room in a context of 512" in bad.error


def test_two_runs_are_compared_question_by_question(config, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    with stub_endpoint(answering({0})) as stub:
        run(config(model=f"openai:m@{stub.url}"), RunFlags(out=first))
    with stub_endpoint(answering({0, 1, 2, 3, 4})) as stub:
        settings = config(model=f"openai:n@{stub.url}", against=(first,))
        run(settings, RunFlags(out=second))
    found = metrics(second)["accuracy_minus_first"]
    assert found["value"] == pytest.approx(4 / 6)
    assert found["method"] == "paired"
    header, row = (second / "tables" / "against.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (cells["only ours"], cells["only theirs"], cells["n"]) == ("4", "0", "6")
    assert float(cells["p"]) == pytest.approx(2 / 2**4)  # four of four on one side, both tails
    assert "against first: +66.7 points" in capsys.readouterr().out


def test_a_finished_run_is_compared_afterwards_without_asking_again(config, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    with stub_endpoint(answering({0})) as stub:
        run(config(model=f"openai:m@{stub.url}"), RunFlags(out=first))
        run(config(model=f"openai:m@{stub.url}"), RunFlags(out=second))
        asked = len(stub.calls)
        settings = config(model=f"openai:m@{stub.url}", against=(first,))
        assert run(settings, RunFlags(out=second, resume=True)) == 0
        assert len(stub.calls) == asked
    assert metrics(second)["accuracy_minus_first"]["value"] == 0.0
    assert recheck(second) == []


def test_only_runs_of_the_same_questions_are_compared(config, data, model, tmp_path):
    run(config(limit=1), RunFlags(out=tmp_path / "dev"))
    with pytest.raises(ConfigError, match="tested another split"):
        run(config(split="train", against=(tmp_path / "dev",)), RunFlags(out=tmp_path / "x"))
    with pytest.raises(DataError, match="is not a run folder"):
        run(config(against=(data,)), RunFlags(out=tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_a_second_checkpoint_on_the_test_questions_is_said_aloud(config, data, tmp_path, caplog):
    for number in (1, 2):
        folder = tmp_path / "trained" / f"checkpoint-{number}"
        tiny_model("llama", seed=number).save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        settings = config(model=str(folder), split="test", limit=1, max_new_tokens=2)
        caplog.clear()
        assert run(settings, RunFlags(out=tmp_path / f"out{number}")) == 0
        assert ("looked at before" in caplog.text) == (number == 2)
        assert notes(tmp_path / f"out{number}")["test_looks_with_other_weights"] == number - 1
    assert len(json.loads((data / LEDGER).read_text())["tests"]) == 2
    run(config(limit=1), RunFlags(out=tmp_path / "dev"))
    assert len(json.loads((data / LEDGER).read_text())["tests"]) == 2


# peft 0.21 reads a property that transformers 5.23 renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_is_evaluated_on_its_base(config, model, tmp_path):
    from peft import LoraConfig, get_peft_model

    base, _ = load_model(str(model))
    spoils = LoraConfig(target_modules=["o_proj"], init_lora_weights=False, lora_alpha=800)
    adapted = get_peft_model(base, spoils)
    adapted.save_pretrained(tmp_path / "adapter")
    settings = config(split="train", limit=2, adapter=str(tmp_path / "adapter"))
    run(settings, RunFlags(out=tmp_path / "adapted"))
    run(config(split="train", limit=2), RunFlags(out=tmp_path / "plain"))
    texts = [[one.text for one in answers_of(tmp_path / name)] for name in ("adapted", "plain")]
    assert texts[0] != texts[1]
    with pytest.raises(ConfigError, match="--adapter is for models in this process, not openai"):
        run(
            config(model="openai:m@http://127.0.0.1:9/v1", adapter="some/adapter"),
            RunFlags(out=tmp_path / "x"),
        )


def test_problems_in_the_released_layout_are_asked(model, tmp_path):
    rows = gsm8k_rows(4, seed=1)
    demos = []
    for number, row in enumerate(rows):
        gold = row["answer"].rsplit("#### ", 1)[1].replace(",", "")
        target, at = compose("gsm8k", row["answer"], gold)
        demos.append(Demo(f"g{number}", row["question"], target, gold, at))
    folder = tmp_path / "gsm8k"
    splits = {"train": demos[:2], "test": demos[2:]}
    write_prepared(folder, task="gsm8k", prompt=PromptConfig(), splits=splits, meta={})
    by_question = {one.question: one.target for one in demos}

    def solves(call):
        asked = str(call.body["prompt"]).removeprefix("Question: ").removesuffix("\nAnswer:\n")
        return text(by_question[asked])

    with stub_endpoint(solves) as stub:
        settings = EvalConfig(model=f"openai:m@{stub.url}", data=folder, split="test")
        assert run(settings, RunFlags(out=tmp_path / "out")) == 0
    assert metrics(tmp_path / "out")["accuracy"]["value"] == 1.0


def test_missing_data_are_said_before_anything_is_loaded(config, tmp_path):
    with pytest.raises(DataError, match="holds no prepared data"):
        run(config(data=tmp_path), RunFlags(out=tmp_path / "out"))
    folder = tmp_path / "no-dev"
    splits = {"train": [simple("train", 1)]}
    write_prepared(folder, task="gsm8k", prompt=PROMPT, splits=splits, meta={})
    with pytest.raises(DataError, match="has no dev questions"):
        run(config(data=folder, model="no/such"), RunFlags(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
