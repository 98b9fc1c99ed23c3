"""Tuning a tiny saved Llama on augmented trajectories: it learns, is saved whole, and resumes."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError, ModelError
from papercore.models import load_model
from papercore.records import read_lines, read_records
from papercore.runs import Run
from papercore.testing import assert_close, run_cli, tiny_model
from papercore.tiny import byte_tokenizer
from rotbench.augment import augment
from rotbench.base_model import positions
from rotbench.config import LoraConfig, NoiseRules, TrainConfig
from rotbench.layouts import parse, row
from rotbench.quotas import Place
from rotbench.sequences import Encoder
from rotbench.train import run
from rotbench.training_set import read_training_set
from rotbench.trajectories import read_rows

# peft 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ROPE = {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}
LINEAR = {**ROPE, "max_position_embeddings": 1024}


def trajectory(index):
    """Short enough for a model that reads bytes."""
    call = {"name": "look", "arguments": {"town": f"town{index}"}}
    return {
        "id": str(index),
        "tools": [{"name": "look", "parameters": {"properties": {"town": {"type": "string"}}}}],
        "messages": [
            {"role": "user", "content": f"Look at town{index}."},
            {"role": "assistant", "tool_calls": [{"function": call}]},
        ],
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = byte_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    tiny_model("llama", initializer_range=0.05, **ends).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = []
    for index in range(4):
        clean = parse(trajectory(index))
        for level, half in (("clean", "whole"), ("medium", "tool")):
            rows.append(row(augment(clean, Place(level, half, 0), seed=0, rules=NoiseRules())))
    path = tmp_path_factory.mktemp("data") / "trajectories.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.fixture
def config(base, data):
    def make(**changes):
        usual = {
            "base": str(base),
            "data": str(data),
            "max_steps": 6,
            "batch": 4,
            "micro_batch": 2,
            "learning_rate": 2e-2,
            "lora": LoraConfig(dropout=0.1),
            "gradient_checkpointing": False,
            "save_steps": 2,
        }
        return TrainConfig(**(usual | changes))

    return make


def losses(out):
    return [line["loss"] for line in read_lines(out / "metrics.jsonl")]


def logits(model, seed=0):
    ids = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(ids).logits


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "run"
    settings = TrainConfig(
        base=str(base),
        data=str(data),
        max_steps=12,
        batch=4,
        micro_batch=2,
        learning_rate=2e-2,
        gradient_checkpointing=True,
        save_steps=50,
    )
    assert run(settings, RunFlags(out=out)) == 0
    return out


def test_the_loss_falls(trained):
    found = losses(trained)
    assert len(found) == 12
    assert found[-1] < found[0] - 0.3


def test_the_records_say_what_it_was_trained_on(trained):
    data, result = (record.data for record in read_records(trained / "records.jsonl"))
    assert (data["trajectories"], data["clean"], data["medium"]) == (8, 4, 4)
    assert (data["sequences"], data["skipped"], data["cut"]) == (8, 0, 0)
    assert 0 < data["loss_tokens"] < data["tokens"] / 3
    assert result["steps"] == 12
    assert result["first_loss"] == losses(trained)[0]
    # rank 8 on four projections of 32 x 32, in two layers
    assert result["trainable"] == 2 * 4 * 8 * (32 + 32)


def test_adapter_and_merged_model_give_the_same_logits(trained, base):
    plain, _ = load_model(str(base), config_overrides=LINEAR)
    adapted, _ = load_model(str(base), config_overrides=LINEAR, adapter=str(trained / "adapter"))
    merged, _ = load_model(str(trained / "model"))
    assert_close(logits(adapted), logits(merged), atol=1e-5)
    assert (logits(adapted) - logits(plain)).abs().max() > 0.1
    names = {file.name for file in (trained / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth"))]


def test_only_the_projections_of_the_attention_were_trained(trained, base):
    before, after = (
        load_file(base / "model.safetensors"),
        load_file(trained / "model" / "model.safetensors"),
    )
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_positions_are_interpolated_by_two(trained, base):
    """By the definition: place 2n with interpolation turns as place n without."""
    merged, _ = load_model(str(trained / "model"))
    plain, _ = load_model(str(base))
    assert merged.config.rope_parameters["rope_type"] == "linear"
    assert merged.config.max_position_embeddings == 2 * plain.config.max_position_embeddings
    hidden = torch.zeros(1, 1, 32)
    places = torch.arange(0, 40, 2)[None]
    for halved, usual in zip(
        merged.model.rotary_emb(hidden, places),
        plain.model.rotary_emb(hidden, places // 2),
        strict=True,
    ):
        assert_close(halved, usual)


def test_a_killed_run_resumes_to_the_same_weights(config, tmp_path, monkeypatch):
    assert run(config(), RunFlags(out=tmp_path / "whole")) == 0
    log = Run.log

    def dies(self, step, **metrics):
        log(self, step, **metrics)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", dies)
    with pytest.raises(KeyboardInterrupt):
        run(config(), RunFlags(out=tmp_path / "killed"))
    monkeypatch.setattr(Run, "log", log)
    assert not (tmp_path / "killed" / "adapter").exists()
    assert run(config(), RunFlags(out=tmp_path / "killed", resume=True)) == 0
    name = "adapter/adapter_model.safetensors"
    whole, killed = (load_file(tmp_path / one / name) for one in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    (tmp_path / "whole" / "report.html").unlink()
    assert run(config(), RunFlags(out=tmp_path / "whole", resume=True)) == 0
    assert (tmp_path / "whole" / "report.html").is_file()
    with pytest.raises(ConfigError, match="holds another run"):
        run(config(learning_rate=1e-3), RunFlags(out=tmp_path / "whole", resume=True))


def test_accumulated_batches_learn_as_one_big_batch(config, tmp_path):
    found = []
    for micro in (1, 4):
        out = tmp_path / str(micro)
        settings = config(
            micro_batch=micro, max_steps=3, lora=LoraConfig(dropout=0.0), merged=False
        )
        run(settings, RunFlags(out=out))
        assert not (out / "model").exists()
        found.append(losses(out))
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_the_baseline_trains_on_the_clean_ones_only(config, tmp_path):
    run(config(clean_only=True, max_steps=1, merged=False), RunFlags(out=tmp_path / "out"))
    counts = read_records(tmp_path / "out" / "records.jsonl")[0].data
    assert (counts["trajectories"], counts["clean"], counts["medium"]) == (4, 4, 0)


def test_all_weights_can_be_tuned(config, tmp_path, base):
    run(config(tune="full", max_steps=2, learning_rate=1e-3), RunFlags(out=tmp_path / "out"))
    model, _ = load_model(str(tmp_path / "out" / "model"))
    plain, _ = load_model(str(base))
    assert not (tmp_path / "out" / "adapter").exists()
    assert not torch.equal(model.lm_head.weight, plain.lm_head.weight)


def test_what_is_too_long_is_skipped_or_cut_and_counted(config, data):
    tokenizer = byte_tokenizer()
    encoder = Encoder(tokenizer, "plain")
    whole = [s for one in read_rows(data) for s in encoder.sequences(one.trajectory)]
    lengths = [len(one.input_ids) for one in whole]
    limit = sorted(lengths)[3]
    long = sum(length > limit for length in lengths)
    assert 0 < long < 8

    skipped = read_training_set([data], tokenizer, config(max_length=limit))
    assert (skipped.counts["skipped"], skipped.counts["cut"]) == (long, 0)
    assert skipped.counts["tokens"] == sum(length for length in lengths if length <= limit)

    cut = read_training_set([data], tokenizer, config(max_length=limit, too_long="cut"))
    assert (cut.counts["skipped"], cut.counts["cut"]) == (0, long)
    assert cut.counts["tokens"] == sum(min(length, limit) for length in lengths)
    assert list(cut.dataset["labels"]) == [one.labels[:limit] for one in whole]

    for policy in ("skip", "cut"):  # so short a cut leaves no answer
        with pytest.raises(DataError, match="all 8 sequences are longer than max_length=100"):
            read_training_set([data], tokenizer, config(max_length=100, too_long=policy))


def test_rows_that_are_no_trajectories_are_named(config, data, tmp_path, capsys):
    broken = tmp_path / "broken.jsonl"
    broken.write_text(data.read_text() + '{"messages": []}\n')
    settings = config(data=str(broken), max_steps=1, merged=False)
    assert run(settings, RunFlags(out=tmp_path / "out")) == 1
    assert "left out broken.jsonl: line 9: tools: should be a list" in capsys.readouterr().out
    skipped = [r for r in read_records(tmp_path / "out" / "records.jsonl") if r.status == "skipped"]
    assert [record.id for record in skipped] == ["train/row/broken.jsonl: line 9"]


def test_settings_that_do_not_fit_are_refused(config, tmp_path):
    flags = RunFlags(out=tmp_path / "out")
    with pytest.raises(ConfigError, match="batch=5 is no multiple of micro_batch=2"):
        run(config(batch=5), flags)
    with pytest.raises(ModelError, match=r"has no layers qkv: set --lora\.targets"):
        run(config(lora=LoraConfig(targets=("qkv", "o_proj"))), RunFlags(out=tmp_path / "two"))


def test_positions_that_are_stretched_already_are_refused(config, tmp_path):
    tiny_model("llama-yarn").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"stretched already \(yarn\): set --rope-linear 1"):
        positions(config(base=str(tmp_path)))
    assert positions(config(base=str(tmp_path), rope_linear=1.0)) == {}


@pytest.mark.slow
def test_the_command_trains_and_eval_reads_what_it_saved(tmp_path):
    env = {"PAPERCORE_CACHE": str(tmp_path / "cache")}
    said = run_cli(["rotbench", "train", "tiny", "--out", tmp_path / "train"], env=env)
    assert said.returncode == 0, said.stderr
    assert "saved:" in said.stdout
    assert "Warning" not in said.stderr
    words = ["--model", tmp_path / "train" / "model", "--prompt-style", "plain", "--limit", "1"]
    words += ["--levels", "clean", "--turns", "first", "--max-new-tokens", "4"]
    asked = run_cli(["rotbench", "eval", *words, "--out", tmp_path / "eval"], env=env)
    assert asked.returncode == 0, asked.stderr


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path):
    env = {"PAPERCORE_CACHE": str(tmp_path / "cache")}
    words = ["train", "tiny", "--max-steps", "2", "--lora.dropout", "0"]
    one = run_cli(["rotbench", *words, "--micro-batch", "2", "--out", tmp_path / "one"], env=env)
    assert one.returncode == 0, one.stderr
    script = Path(sys.executable).parent / "rotbench"
    launch = ["torchrun", "--standalone", "--nproc-per-node", "2", script]
    two = run_cli([*launch, *words, "--micro-batch", "1", "--out", tmp_path / "two"], env=env)
    assert two.returncode == 0, two.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert two.stdout.count("saved:") == 1
