"""`r3 sft` from prepared data to a model that `r3 eval` reads: counts, resume, processes."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.files import read_json
from papercore.models import load_model
from papercore.records import read_lines, read_records
from papercore.report import recheck
from papercore.runs import Run
from papercore.testing import run_cli, tiny_model
from papercore.tiny import byte_tokenizer
from r3.config import EvalConfig, LoraConfig, PromptConfig, SFTConfig
from r3.data import write_prepared
from r3.demos import Demo
from r3.eval_command import run as run_eval
from r3.sft import encode_whole
from r3.sft_command import run
from r3.tasks import compose
from r3.testing import gsm8k_rows

# peft 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPT = PromptConfig(template="Q: {question}\nA:\n")


def problems(num, seed):
    """Word problems in GSM8K's layout, as `r3 prepare` reads them."""
    found = []
    for number, row in enumerate(gsm8k_rows(num, seed)):
        gold = row["answer"].rsplit("#### ", 1)[1].replace(",", "")
        target, at = compose("gsm8k", row["answer"], gold)
        found.append(Demo(f"g{seed}-{number}", row["question"], target, gold, at))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "data"
    train, dev = problems(10, seed=0), problems(13, seed=0)[10:]
    unsolved = Demo("unsolved", "Who knows?", "", "1")
    splits = {"train": train, "dev": [*dev, unsolved]}
    write_prepared(folder, task="gsm8k", prompt=PROMPT, splits=splits, meta={})
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    model = tiny_model("llama", initializer_range=0.05, max_position_embeddings=2048)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def config(base, data):
    def make(**changes):
        usual = {
            "model": str(base),
            "data": data,
            "max_steps": 6,
            "batch": 4,
            "micro_batch": 2,
            "learning_rate": 1e-2,
            "max_length": 2048,
            "save_steps": 2,
        }
        return SFTConfig(**(usual | changes))

    return make


def losses(out):
    return [line["loss"] for line in read_lines(out / "metrics.jsonl") if "loss" in line]


def data_of(out):
    return {record.id: record.data for record in read_records(out / "records.jsonl")}


def metrics(out):
    return read_json(out / "summary.json")["metrics"]


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("sft") / "run"
    settings = SFTConfig(
        model=str(base),
        data=data,
        max_steps=12,
        batch=4,
        micro_batch=4,
        learning_rate=1e-2,
        max_length=2048,
    )
    assert run(settings, RunFlags(out=out)) == 0
    return out


def test_the_loss_falls_on_train_and_dev(trained):
    found = losses(trained)
    assert len(found) == 12
    assert found[-1] < found[0] - 1.0
    dev = [line["dev_loss"] for line in read_lines(trained / "metrics.jsonl") if "dev_loss" in line]
    assert len(dev) == 4  # three epochs of ten rows are nine steps
    assert dev[-1] < dev[0]
    assert metrics(trained)["dev_loss"]["value"] == dev[-1]
    assert metrics(trained)["last_loss"]["value"] == found[-1]


def test_the_records_count_what_was_trained_on(trained, data, base):
    found = data_of(trained)
    counts, result = found["sft/data"], found["sft/result"]
    encoded = encode_whole(problems(10, seed=0), byte_tokenizer(), PROMPT)
    assert counts["demonstrations"] == 10
    assert counts["too_long"] == 0
    assert counts["tokens"] == sum(len(one.prompt) + len(one.target) for one in encoded)
    assert counts["target_tokens"] == sum(len(one.target) for one in encoded)
    assert counts["dev"] == 3  # the one without a solution cannot be learnt from
    assert result["steps"] == 12
    assert result["trainable"] == sum(p.numel() for p in load_model(str(base))[0].parameters())
    assert [loss for _, loss in result["losses"]] == losses(trained)


def test_the_report_can_be_rebuilt_and_shows_both_curves(trained):
    assert recheck(trained) == []
    rows = (trained / "figures" / "losses.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"train", "dev"}


def test_the_model_is_read_by_eval(trained, data, tmp_path):
    settings = EvalConfig(model=str(trained / "model"), data=data, max_new_tokens=4, limit=2)
    assert run_eval(settings, RunFlags(out=tmp_path / "eval")) == 0
    model, tokenizer = load_model(str(trained / "model"))
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.dtype is torch.float32


def test_a_finished_run_says_so_and_does_nothing(trained, data, base, capsys, monkeypatch):
    def must_not(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("r3.sft_base.load_model", must_not)
    identity = read_json(trained / "config.json")["config"]
    settings = SFTConfig.model_validate_json(json.dumps(identity))
    (trained / "report.html").unlink()
    assert run(settings, RunFlags(out=trained, resume=True)) == 0
    assert "is finished: its model is" in capsys.readouterr().out
    assert (trained / "report.html").is_file()
    other = settings.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(ConfigError, match=r"holds another run, learning_rate: 0\.01 -> 0\.001"):
        run(other, RunFlags(out=trained, resume=True))
    with pytest.raises(ConfigError, match="--resume goes on with it, --overwrite deletes"):
        run(settings, RunFlags(out=trained))


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_killed_run_resumes_to_the_same_weights(config, tmp_path, monkeypatch, tune):
    settings = config(tune=tune, lora=LoraConfig(r=4, dropout=0.1))
    assert run(settings, RunFlags(out=tmp_path / "whole")) == 0
    log = Run.log

    def dies(self, step, **found):
        log(self, step, **found)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", dies)
    with pytest.raises(KeyboardInterrupt):
        run(settings, RunFlags(out=tmp_path / "killed"))
    monkeypatch.setattr(Run, "log", log)
    assert not (tmp_path / "killed" / "model").exists()
    assert run(settings, RunFlags(out=tmp_path / "killed", resume=True)) == 0
    whole, killed = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed")
    )
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert data_of(tmp_path / "killed") == data_of(tmp_path / "whole")
    kept = {path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()}
    assert kept == {"checkpoint-4", "checkpoint-6"}


def test_what_is_too_long_is_left_out_and_counted(config, tmp_path, capsys):
    encoded = encode_whole(problems(10, seed=0), byte_tokenizer(), PROMPT)
    limit = sorted(len(one.prompt) + len(one.target) for one in encoded)[4]
    assert run(config(max_length=limit, max_steps=1), RunFlags(out=tmp_path / "out")) == 0
    counts = data_of(tmp_path / "out")["sft/data"]
    assert (counts["demonstrations"], counts["too_long"]) == (5, 5)
    assert "left out 5 that were too long" in capsys.readouterr().out
    with pytest.raises(DataError, match="all 10 demonstrations are longer than max_length=20 tok"):
        run(config(max_length=20), RunFlags(out=tmp_path / "two"))
    assert not (tmp_path / "two").exists()


def test_demonstrations_of_its_own_are_tuned_on(base, tmp_path):
    folder = tmp_path / "own"
    splits = {"train": problems(4, seed=2), "sft": problems(3, seed=3)}
    write_prepared(folder, task="gsm8k", prompt=PROMPT, splits=splits, meta={})
    settings = SFTConfig(
        model=str(base), data=folder, max_steps=1, batch=2, micro_batch=2, max_length=2048
    )
    assert run(settings, RunFlags(out=tmp_path / "out")) == 0
    counts = data_of(tmp_path / "out")["sft/data"]
    assert (counts["demonstrations"], counts["dev"]) == (3, 0)
    assert "dev_loss" not in metrics(tmp_path / "out")


def test_a_limit_takes_the_first_demonstrations(config, tmp_path):
    run(config(limit=2, max_steps=1), RunFlags(out=tmp_path / "out"))
    counts = data_of(tmp_path / "out")["sft/data"]
    assert (counts["demonstrations"], counts["dev"]) == (2, 2)


def test_data_that_were_edited_are_noted(config, data, base, tmp_path):
    folder = tmp_path / "edited"
    write_prepared(
        folder, task="gsm8k", prompt=PROMPT, splits={"train": problems(3, seed=4)}, meta={}
    )
    path = folder / "train.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    run(config(data=folder, max_steps=1), RunFlags(out=tmp_path / "out"))
    assert read_json(tmp_path / "out" / "env.json")["notes"]["data_edited"] == "train.jsonl"


@pytest.mark.slow
def test_two_processes_learn_as_one_and_one_of_them_writes(base, data, tmp_path):
    words = ["sft", "--model", base, "--data", data, "--max-steps", "2", "--batch", "4"]
    words += ["--max-length", "2048", "--learning-rate", "0.01"]
    one = run_cli(["r3", *words, "--micro-batch", "2", "--out", tmp_path / "one"])
    assert one.returncode == 0, one.stderr
    assert "Warning" not in one.stderr
    assert "WARNING" not in one.stderr
    script = Path(sys.executable).parent / "r3"
    launch = ["torchrun", "--standalone", "--nproc-per-node", "2", script]
    two = run_cli([*launch, *words, "--micro-batch", "1", "--out", tmp_path / "two"])
    assert two.returncode == 0, two.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert two.stdout.count("saved:") == 1
    whole, halves = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")
    )
    for name, value in whole.items():
        torch.testing.assert_close(value, halves[name], rtol=0, atol=2e-4)
