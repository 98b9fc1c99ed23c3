"""`rotbench eval` with a real model: a tiny byte-level Llama through each backend."""

import importlib.util

import pytest

from papercore.records import read_records
from papercore.testing import run_cli
from rotbench.cli import APP
from rotbench.data import load_cases
from rotbench.prompts import write_prompt

SMALL = ("--turns", "first", "--limit", "1", "--max-new-tokens", "6", "--dtype", "float32")
TEMPLATE = (
    "{% for m in messages %}<|bos|>{{ m.role }}:{{ m.content }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|bos|>assistant:"
)
needs_server = pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None, reason="transformers serve is not installed"
)


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Saves the model, with or without a chat template."""

    def make(template=TEMPLATE):
        from papercore.testing import tiny_model
        from papercore.tiny import byte_tokenizer

        folder = tmp_path_factory.mktemp("model")
        model = tiny_model(
            head_dim=32,  # the smallest that vLLM's attention on a CPU can do
            max_position_embeddings=16_384,
            eos_token_id=258,
            bos_token_id=257,
        )
        model.save_pretrained(folder)
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def folder(save):
    return save()


@pytest.fixture
def answers(capsys, monkeypatch, tmp_path):
    """Runs eval: exit code, records by id, stderr."""
    monkeypatch.setattr("rotbench.report_figures.draw", lambda turn, records, into: [])

    def go(model, *words, out="run"):
        run = tmp_path / out
        code = APP.main(["eval", *SMALL, "--model", str(model), "--out", str(run), *words])
        err = capsys.readouterr().err
        path = run / "records.jsonl"
        return code, {record.id: record for record in read_records(path)}, err

    return go


def texts(records):
    return {name: record.data["text"] for name, record in records.items()}


@pytest.mark.slow
def test_transformers_answers_every_case_in_any_batch(answers, folder):
    code, records, err = answers(folder, "--device", "cpu")
    assert code == 0, err
    assert len(records) == 8
    cases = {str(case.key): case for case in load_cases("sample", ("first",))[0]}
    for name, record in records.items():
        assert record.status == "ok"
        assert record.data["new_tok"] == 6
        assert record.data["text"]
        system, user = write_prompt(cases[name]).request.messages
        marks = len("system:") + len("user:") + len("assistant:") + 3
        length = len(system.content.encode()) + len(user.content.encode())
        assert record.data["prompt_tok"] == length + marks, "no byte of the prompt is lost"
    alone = answers(folder, "--device", "cpu", "--batch-size", "1", "--flush-every", "3", out="b")
    assert texts(alone[1]) == texts(records)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["native", "raven2"])
def test_transformers_answers_in_other_modes(answers, folder, mode):
    code, records, err = answers(folder, "--mode", mode, "--device", "cpu", "--levels", "heavy")
    assert code == 0, err
    assert {record.status for record in records.values()} == {"ok"}


@pytest.mark.slow
def test_a_model_without_a_chat_template_is_told_what_to_do(answers, save):
    bare = save(None)
    code, records, err = answers(bare, "--device", "cpu")
    assert (code, records) == (2, {})
    assert "--prompt-style plain" in err
    words = ("--device", "cpu", "--levels", "clean", "--prompt-style", "plain")
    code, records, err = answers(bare, *words, out="plain")
    assert code == 0, err
    assert len(records) == 1


@pytest.mark.slow
def test_a_prompt_that_does_not_fit_is_an_error_of_its_case(answers, folder):
    cases = [c for c in load_cases("sample", ("first",))[0] if c.key.index == 0]
    sizes = sorted(
        sum(len(m.content.encode()) for m in write_prompt(case).request.messages) for case in cases
    )
    limit = str(sizes[len(sizes) // 2] + 40)  # room for the marks around the messages, not for more
    code, records, err = answers(folder, "--device", "cpu", "--max-context", limit)
    status = [record.status for record in records.values()]
    assert code == 1
    assert len(status) == 8
    assert {"ok", "error"} == set(status)
    for record in records.values():
        assert record.status == "ok" or "too long" in record.error
    assert f"{status.count('error')} requests failed" in err


@pytest.mark.slow
@needs_server
def test_a_served_model_answers_as_transformers_does(answers, folder):
    from papercore.testing import served

    _, expected, _ = answers(folder, "--device", "cpu")
    with served(folder) as url:
        model = f"openai:{folder}@{url}"
        code, records, err = answers(
            model, "--endpoint.api-key-env", "", "--dtype", "auto", out="s"
        )
    assert code == 0, err
    assert texts(records) == texts(expected)


@pytest.mark.vllm
@pytest.mark.xdist_group("vllm")
@pytest.mark.timeout(900)
def test_vllm_answers_as_transformers_does(answers, folder, tmp_path):
    _, expected, _ = answers(folder, "--device", "cpu")
    # a process of its own: the engine wants real streams, and takes threads for itself
    done = run_cli(
        ["rotbench", "eval", *SMALL, "--model", f"vllm:{folder}", "--out", tmp_path / "v"]
    )
    assert done.returncode == 0, done.stderr
    assert "first turn, fixed scorer" in done.stdout
    records = {record.id: record for record in read_records(tmp_path / "v" / "records.jsonl")}
    assert texts(records) == texts(expected)
