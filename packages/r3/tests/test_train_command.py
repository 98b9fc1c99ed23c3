"""`r3 train` as a user has it: what it refuses, what it tells, and what it leaves behind."""

import json
import logging
import subprocess
import sys

import pytest
import torch

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError, ModelError
from papercore.models import load_model
from papercore.records import read_lines, read_records
from papercore.rl.actor_critic import ActorCritic
from papercore.rl.rollouts import Rollout, pack
from papercore.testing import assert_close, run_cli
from r3 import train_command
from r3.config import CutConfig, LoraConfig, PPOConfig, RewardConfig, TrainConfig
from r3.data import read_prepared
from r3.dump import read_dumps
from r3.train_command import run
from r3.train_setup import lay_ground, open_accelerator
from r3.training_toy import PROMPT, toy_demos, toy_model, write_toy

# peft 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def config(folders):
    base, data = folders

    def make(**changes):
        usual = {
            "model": str(base),
            "data": data,
            "cut": CutConfig(rule="tokens"),
            "rollouts": 8,
            "max_steps": 3,
            "max_new_tokens": 6,
            "max_length": 20,
            "learning_rate": 1e-2,
            "eval_steps": 2,
            "save_steps": 2,
        }
        return TrainConfig(**(usual | changes))

    return make


def start_of(out):
    return next(one.data for one in read_records(out / "records.jsonl") if one.id == "start")


def result_of(out):
    return next(one.data for one in read_records(out / "records.jsonl") if one.id == "result")


IDS = torch.tensor([[20, 3, 4, 5, 6, 7]])


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


# what it leaves behind


def test_it_leaves_a_whole_run_folder(config, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(config(), RunFlags(out=out)) == 0
    names = {path.name for path in out.iterdir()}
    assert {
        *("config.json", "env.json", "records.jsonl", "metrics.jsonl", "summary.json"),
        *("report.html", "rollouts.jsonl", "checkpoints", "model", "critic", "timing.json"),
    } <= names
    assert not [name for name in names if name.endswith(".tmp")]
    ids = [record.id for record in read_records(out / "records.jsonl")]
    assert ids == ["start", "dev/0", "step/1", "step/2", "dev/2", "step/3", "dev/3", "result"]
    assert len(list(read_dumps(out / "rollouts.jsonl"))) == 24
    phases = json.loads((out / "timing.json").read_text())["phases"]
    parts = {"generate", "verify", "score", "reference", "update", "dev", "checkpoint"}
    assert parts <= phases.keys()
    said = capsys.readouterr().out
    assert "16 demonstrations, 64 start states; 0 more were left out" in said
    assert "saved: " in said
    assert "report: " in said


def test_nothing_that_it_leaves_is_a_pickle(config, tmp_path):
    out = tmp_path / "run"
    run(config(), RunFlags(out=out))
    kinds = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert not kinds & {".bin", ".pt", ".pth", ".pkl"}


def test_the_model_is_what_was_kept_and_other_tools_load_it(config, tmp_path, folders):
    out = tmp_path / "run"
    run(config(keep="last"), RunFlags(out=out))
    model, tokenizer = load_model(str(out / "model"))
    start, _ = load_model(str(folders[0]))
    assert (logits(model) - logits(start)).abs().max() > 1e-3
    assert tokenizer("= 3 4").input_ids == [20, 3, 4]
    assert model.config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_policy_and_critic_can_be_read_back_together(config, tmp_path, critic):
    out = tmp_path / "run"
    run(config(keep="last", critic=critic), RunFlags(out=out))
    policy = ActorCritic.load(out / "critic")
    model, _ = load_model(str(out / "model"))
    assert torch.equal(logits(policy.actor), logits(model))
    batch = pack([Rollout((20, 3), (4, 5), (0.0, 0.0), ended=True)], pad_id=0)
    assert policy(batch).values_N.abs().max() > 0
    assert (policy.critic is not None) == (critic == "separate")


def test_adapters_are_merged_into_a_model_and_left_beside_it(config, tmp_path, folders):
    out = tmp_path / "run"
    run(config(tune="lora", critic="separate", keep="last"), RunFlags(out=out))
    merged, _ = load_model(str(out / "model"))
    adapted, _ = load_model(str(folders[0]), adapter=str(out / "adapter"))
    start, _ = load_model(str(folders[0]))
    assert_close(logits(merged), logits(adapted), atol=1e-5)
    assert (logits(merged) - logits(start)).abs().max() > 1e-3
    policy = ActorCritic.load(out / "critic", base=load_model(str(folders[0]))[0])
    assert_close(logits(policy.actor), logits(merged), atol=1e-5)
    assert policy.critic is not None


def test_what_was_there_of_a_killed_session_is_replaced(config, tmp_path, monkeypatch):
    out = tmp_path / "run"
    real = train_command.result_record
    monkeypatch.setattr(train_command, "result_record", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(config(), RunFlags(out=out))
    (out / "model" / "model.safetensors").write_bytes(b"torn")
    (out / "model" / "left.txt").write_text("")
    monkeypatch.setattr(train_command, "result_record", real)
    assert run(config(), RunFlags(out=out, resume=True)) == 0
    load_model(str(out / "model"))
    assert not (out / "model" / "left.txt").exists()


# settings


def test_limit_takes_the_first_demonstrations(config, tmp_path):
    run(config(limit=5, max_steps=2, rollouts=64), RunFlags(out=tmp_path / "run"))
    assert start_of(tmp_path / "run")["demos"] == 5
    data = read_prepared(config().data)
    shown = {row.demo for row in read_dumps(tmp_path / "run" / "rollouts.jsonl")}
    assert shown == {demo.id for demo in data.split("train")[:5]}


def ground_of(config):
    return lay_ground(config, read_prepared(config.data), toy_model()[1])


def test_steps_are_passes_over_all_start_states(config):
    # 16 demonstrations in 5 shares: 80 draws
    cases = {(1.0, 8, 1): 10, (2.0, 8, 1): 20, (1.0, 8, 2): 20, (0.5, 7, 1): 6}
    for (epochs, rollouts, samples), steps in cases.items():
        made = config(max_steps=None, epochs=epochs, rollouts=rollouts, samples=samples)
        assert ground_of(made).total_steps == steps
    assert ground_of(config(max_steps=4)).total_steps == 4


def test_eval_limit_limits_the_dev_questions(config, tmp_path):
    assert len(ground_of(config()).dev) == 4
    run(config(eval_limit=2, max_steps=1), RunFlags(out=tmp_path / "run"))
    looks = [one for one in read_records(tmp_path / "run" / "records.jsonl") if "dev/" in one.id]
    assert [len(look.data["correct"]) for look in looks] == [2, 2]


def test_start_states_without_room_for_an_answer_are_dropped_and_counted(config):
    # "= 3" and a prefix of up to 3 numbers: 5 tokens, and one more has to fit
    assert ground_of(config(max_length=6)).counts["states_too_long"] == 0
    counts = ground_of(config(max_length=5)).counts
    assert (counts["states"], counts["states_too_long"], counts["demos_too_long"]) == (48, 16, 0)
    with pytest.raises(DataError, match=r"none of 64 start states leaves room .* max_length=2"):
        ground_of(config(max_length=2))


def test_dev_questions_without_room_are_counted_too(config):
    ground = ground_of(config(max_length=3, cut=CutConfig(rule="tokens", states=1)))
    assert (ground.counts["dev"], ground.counts["dev_too_long"]) == (4, 0)
    assert ground.counts["states"] == 16


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, torch.float32), ({"dtype": "bfloat16"}, torch.bfloat16)],
)
def test_all_weights_are_trained_in_float32_unless_a_dtype_is_given(
    config, tmp_path, changes, expected
):
    out = tmp_path / "run"
    run(config(max_steps=1, keep="last", **changes), RunFlags(out=out))
    notes = json.loads((out / "env.json").read_text())["notes"]
    assert notes["dtype"] == str(expected).removeprefix("torch.")


def test_one_process_on_a_cpu_needs_no_accelerator(config, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert open_accelerator(config(), torch.device("cpu")) is None
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="rollouts=8 is no multiple of 3 processes"):
        open_accelerator(config(), torch.device("cpu"))


def test_without_dev_questions_the_last_weights_are_kept_and_it_is_said(config, tmp_path, caplog):
    data = write_toy(tmp_path / "toy", dev=0)[1]
    with caplog.at_level(logging.WARNING):
        run(config(data=data), RunFlags(out=tmp_path / "run"))
    assert "keep: last, because there are no dev questions to choose by" in caplog.text
    notes = json.loads((tmp_path / "run" / "env.json").read_text())["notes"]
    assert notes["keep"].startswith("last")
    assert result_of(tmp_path / "run")["kept"] == 3


def test_dropout_of_adapters_is_not_used_and_it_is_said(config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(
            config(tune="lora", lora=LoraConfig(dropout=0.5), max_steps=1),
            RunFlags(out=tmp_path / "run"),
        )
    assert "lora.dropout: none: RL uses none" in caplog.text


def test_other_algorithms_are_handed_over(config, tmp_path, monkeypatch):
    from r3 import trl_backend

    seen = []

    def train(*args):
        seen.append(args)
        return 7

    monkeypatch.setattr(trl_backend, "train", train)
    made, flags = config(algo="grpo", samples=2), RunFlags(out=tmp_path / "run")
    assert run(made, flags) == 7
    assert seen[0][:2] == (made, flags)
    assert seen[0][2].digest == read_prepared(made.data).digest
    assert seen[0][3] == tmp_path / "run"


# refusals


def test_an_adaptive_weight_of_nothing_is_refused():
    with pytest.raises(ValueError, match="kl_target needs a beta above 0"):
        PPOConfig(beta=0.0, kl_target=0.1)


@pytest.mark.parametrize(
    ("changes", "flags", "error", "message"),
    [
        ({"model": "vllm:some/model"}, {}, ModelError, "can generate but not be trained"),
        ({"model": "openai:x@http://localhost/v1"}, {}, ModelError, "can generate but not be"),
        ({}, {"device": "cuda:all"}, ConfigError, "accelerate launch"),
        ({"reward": RewardConfig(function="nothing")}, {}, ConfigError, "is not module:function"),
        ({"reward": RewardConfig(function="no_such:f")}, {}, ConfigError, "cannot be imported"),
        ({"dtype": "float16"}, {}, ConfigError, "dtype=float16 cannot be trained"),
        ({"critic_warmup": 3}, {}, ConfigError, "leaves none of 3 steps"),
        (
            {"tune": "lora", "lora": LoraConfig(targets=("qkv",))},
            {},
            ConfigError,
            "qkv",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, tmp_path, changes, flags, error, message):
    with pytest.raises(error, match=message):
        run(config(**changes), RunFlags(out=tmp_path / "run", **flags))


def test_a_folder_that_is_no_prepared_data_is_refused(config, tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="holds no prepared data"):
            run(config(data=folder), RunFlags(out=tmp_path / "run"))


def test_a_model_without_an_end_of_sequence_token_is_refused(config, tmp_path):
    model, tokenizer = toy_model()
    tokenizer.eos_token = None
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        run(config(model=str(tmp_path / "base")), RunFlags(out=tmp_path / "run"))


def test_a_folder_that_holds_something_is_refused_before_anything_is_loaded(
    config, tmp_path, monkeypatch
):
    (tmp_path / "mine.txt").write_text("")
    monkeypatch.setattr(train_command, "read_prepared", lambda _: 1 / 0)
    with pytest.raises(ConfigError, match="is not empty and is not a run folder"):
        run(config(), RunFlags(out=tmp_path))


def test_what_a_user_gets_wrong_is_said_before_torch_is_loaded(config, tmp_path):
    code = """
import sys
from papercore.errors import PaperError
from papercore.config import RunFlags
from r3.config import TrainConfig
from r3.train_command import run
from pathlib import Path
for model, data in (("x", "nowhere"), ("vllm:x", sys.argv[1])):
    try:
        run(TrainConfig(model=model, data=Path(data)), RunFlags(out=Path(sys.argv[2])))
    except PaperError as error:
        print(error)
assert "torch" not in sys.modules
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(config().data), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 2


def test_the_demonstrations_of_the_toy_are_right():
    for demo in toy_demos(20):
        value, chain = int(demo.question), []
        for _ in range(4):
            value = (3 * value + 1) % 20
            chain.append(value)
        assert demo.target == " ".join(map(str, chain))
        assert demo.target[demo.answer_at :] == demo.gold == str(chain[-1])
    assert PROMPT.template == "= {question}"


@pytest.mark.slow
def test_the_command_line_trains_and_resumes_on_data_as_gsm8k_was_released(tmp_path):
    from papercore.testing import tiny_model
    from papercore.tiny import byte_tokenizer
    from r3.testing import write_gsm8k

    base = tmp_path / "base"
    ends = {"eos_token_id": byte_tokenizer().eos_token_id}
    tiny_model("llama", max_position_embeddings=2048, **ends).save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    source = write_gsm8k(tmp_path / "train.jsonl", 40)
    data, out = tmp_path / "data", tmp_path / "run"
    made = run_cli(
        ["r3", "prepare", "--task", "gsm8k", "--source", source, "--dev", "0.2", "--out", data]
    )
    assert made.returncode == 0, made.stderr
    words = ["r3", "train", "--model", base, "--data", data, "--rollouts", "4", "--max-steps", "2"]
    words += ["--max-new-tokens", "8", "--max-length", "1500", "--out", out]
    ran = run_cli(words)
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr
    assert len(read_lines(out / "metrics.jsonl")) == 2
    again = run_cli([*words, "--resume"])
    assert "is finished" in again.stdout
    refused = run_cli(words)
    assert refused.returncode == 2
    assert "--resume goes on with it" in refused.stderr
    report = run_cli(["r3", "report", out, "--recheck"])
    assert report.returncode == 0, report.stdout + report.stderr
