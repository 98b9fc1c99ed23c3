"""Training through TRL's trainers on a tiny saved Llama: what is asked for is what happens."""

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from papercore.config import RunFlags
from papercore.errors import ConfigError, ModelError
from papercore.models import load_model, read_tokenizer
from papercore.records import read_lines, read_records
from papercore.testing import assert_close, run_cli, tiny_model
from papercore.tiny import byte_tokenizer
from r3 import train_command, trl_backend
from r3.config import (
    CurriculumConfig,
    LoraConfig,
    PPOConfig,
    PromptConfig,
    RewardConfig,
    TrainConfig,
)
from r3.curriculum import curriculum_for, starts_for
from r3.cutting import encode_all
from r3.data import read_prepared, write_prepared
from r3.demos import Demo
from r3.dump import read_dumps
from r3.train_command import run
from r3.train_log import StepLog
from r3.trl_options import check_options
from r3.trl_rollouts import Judge, Plan, group_advantages

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

ALGOS = ("grpo", "rloo")
VANILLA = CurriculumConfig(kind="vanilla")

REWARDS = """
def lottery(text, demo):
    return sum(map(ord, text)) % 5 / 4

def touchy(text, demo):
    if sum(map(ord, text)) % 2:
        raise ValueError("odd")
    return lottery(text, demo)

def broken(text, demo):
    raise ValueError("out of order")
"""


def demo(split, index):
    a, b = index % 5, index // 5
    target = f"{a}+{b}\nis {a + b}\n#### {a + b}"
    return Demo(
        id=f"{split}_{index}",
        question=f"{split} {a}+{b}?",
        target=target,
        gold=str(a + b),
        answer_at=target.index("####"),
    )


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
    folder = tmp_path_factory.mktemp("data") / "sums"
    sizes = {"train": 10, "dev": 3, "test": 2}
    splits = {name: [demo(name, index) for index in range(num)] for name, num in sizes.items()}
    prompt = PromptConfig(template="Q {question}\n")
    write_prepared(folder, task="gsm8k", prompt=prompt, splits=splits, meta={})
    return folder


@pytest.fixture(scope="module", autouse=True)
def rewards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "r3_test_rewards.py").write_text(REWARDS)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def config(base, data):
    def make(algo="grpo", *, reward="lottery", truncated="score", **changes):
        usual = {
            "model": str(base),
            "data": data,
            "algo": algo,
            "rollouts": 8,
            "samples": 2,
            "micro_batch": 4,
            "max_new_tokens": 6,
            "max_length": 64,
            "max_steps": 2,
            "learning_rate": 1e-2,
            "eval_steps": 10,
            "save_steps": 1,
            "keep": "last",
            "ppo": PPOConfig(beta=0.0, epochs=1),
            "reward": RewardConfig(function=f"r3_test_rewards:{reward}", truncated=truncated),
        }
        return TrainConfig(**(usual | changes))

    return make


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Runs the command; mostly without its report, which takes longer than the training does."""

    def run_it(settings, name="out", *, report=False, **flags):
        with monkeypatch.context() as patch:
            if not report:
                patch.setattr(trl_backend, "conclude", lambda out: None)
                patch.setattr(train_command, "conclude", lambda out: None)
            assert run(settings, RunFlags(out=tmp_path / name, **flags)) == 0
        return tmp_path / name

    return run_it


def steps(out):
    return {
        one.data["step"]: one.data
        for one in read_records(out / "records.jsonl")
        if one.id.startswith("step/")
    }


def dumped(out):
    return list(read_dumps(out / "rollouts.jsonl"))


def weights(out, name="model/model.safetensors"):
    return load_file(out / name)


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("algo", ALGOS)
def test_it_trains_and_leaves_what_every_run_leaves(config, go, base, algo):
    out = go(config(algo, eval_steps=1), report=True)
    model, _ = load_model(str(out / "model"))
    assert model.config.eos_token_id == byte_tokenizer().eos_token_id
    before, after = load_file(base / "model.safetensors"), weights(out)
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before if "q_proj" in name)
    names = [one.id for one in read_records(out / "records.jsonl")]
    assert names == ["start", "dev/0", "dev/1", "step/1", "dev/2", "step/2", "result"]
    assert (out / "report.html").is_file()
    assert not (out / "critic").exists()
    saved = {file.name for file in (out / "model").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "generation_config.json"} <= saved
    assert not [name for name in saved if name.endswith((".bin", ".pt", ".pth", ".md"))]


@pytest.mark.parametrize("algo", ALGOS)
def test_records_and_dump_tell_of_the_same_rollouts(config, go, algo):
    out = go(config(algo))
    rows = dumped(out)
    for step, data in steps(out).items():
        of_step = [row for row in rows if row.step == step]
        assert data["n"] == len(of_step) == 8
        assert data["tokens"] == sum(row.length for row in of_step)
        assert data["truncated"] == sum(not row.ended for row in of_step)
        mean = sum(row.reward for row in of_step) / 8
        assert data["reward"] == pytest.approx(mean)
        for depth, counts in data["depths"].items():
            at_depth = [row for row in of_step if row.depth == int(depth)]
            assert counts["n"] == len(at_depth)
            assert counts["advantage"] == pytest.approx(
                sum(row.advantage for row in at_depth) / len(at_depth), abs=1e-6
            )
    lines = list(read_lines(out / "metrics.jsonl"))
    assert [line["step"] for line in lines] == [1, 2]
    assert all(math.isfinite(line["policy_loss"]) and line["grad_norm"] > 0 for line in lines)


@pytest.mark.parametrize("algo", ALGOS)
def test_rewards_are_of_the_whole_rationale(config, go, data, algo):
    """Prefix and answer are judged as one text, which begins with the demonstration's own."""
    out = go(config(algo))
    prepared = read_prepared(data)
    targets = {one.id: one.target for one in prepared.split("train")}
    deep = [row for row in dumped(out) if row.cut_tok]
    assert deep
    for row in deep:
        assert targets[row.demo].startswith(row.prefix)
        assert row.cut_tok == len(row.prefix.encode())  # a byte is a token here
        if row.text_ok:
            assert row.reward == sum(map(ord, row.prefix + row.response)) % 5 / 4


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize(
    "curriculum",
    [
        CurriculumConfig(kind="mixed", weights=(4.0, 0.0, 1.0, 1.0, 0.5)),
        CurriculumConfig(kind="staged", stage_steps=1),
        CurriculumConfig(kind="vanilla"),
        CurriculumConfig(kind="random"),
    ],
    ids=lambda one: one.kind,
)
def test_start_states_are_those_of_the_curriculum(config, go, data, algo, curriculum):
    settings = config(algo, curriculum=curriculum, max_steps=6, seed=5)
    out = go(settings)
    prepared, tokenizer = read_prepared(data), byte_tokenizer()
    demos = prepared.split("train")
    encoded, _ = encode_all(demos, tokenizer, prepared.prompt, settings.cut, prepared.task)
    states = starts_for(curriculum, encoded, settings.cut)
    expected = curriculum_for(curriculum, states, seed=5, total_steps=6)
    drawn = [start for _ in range(6) for start in expected.draw(4) for _ in range(2)]
    found = [(row.demo, row.cut_tok, row.depth) for row in dumped(out)]
    assert found == [(demos[one.demo].id, one.cut, one.depth) for one in drawn]
    said = [data["curriculum"]["kind"] for data in steps(out).values()]
    assert said == [curriculum.kind] * 6


def test_rollouts_are_those_of_our_own_loop(config, go):
    """Same seed, same weights, same start states: algo=ppo and algo=grpo draw alike."""
    texts = []
    for algo in ("ppo", "grpo"):
        settings = config(algo, max_steps=3, learning_rate=1e-12, curriculum=VANILLA)
        out = go(settings, algo)
        texts.append([(row.demo, row.cut_tok, row.response, row.reward) for row in dumped(out)])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("algo", ALGOS)
def test_a_killed_run_resumes_to_the_same_weights(config, go, tmp_path, monkeypatch, algo):
    ppo = PPOConfig(beta=0.1, epochs=2, minibatches=2)
    settings = config(algo, max_steps=4, ppo=ppo, save_steps=2, eval_steps=1, keep="best")
    whole = go(settings, "whole")
    step = StepLog.step

    def dies(self, number, *args, **more):
        step(self, number, *args, **more)
        if number == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(StepLog, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(settings, RunFlags(out=tmp_path / "killed"))
    monkeypatch.setattr(StepLog, "step", step)
    assert not (tmp_path / "killed" / "model").exists()
    killed = go(settings, "killed", resume=True)
    assert same(weights(whole), weights(killed))
    assert (whole / "rollouts.jsonl").read_bytes() == (killed / "rollouts.jsonl").read_bytes()
    for one, other in zip(
        *(read_records(out / "records.jsonl") for out in (whole, killed)), strict=True
    ):
        assert one == other
    assert go(settings, "killed", resume=True)  # finished: nothing is done again


def test_a_torn_checkpoint_is_not_gone_on_from(config, go, tmp_path, monkeypatch):
    settings = config(max_steps=3)
    whole = go(settings, "whole")
    torn = go(config(max_steps=3), "torn")
    (torn / "checkpoints" / "checkpoint-3" / "trainer_state.json").write_text('{"epoch": 1')
    records = (torn / "records.jsonl").read_text().splitlines(keepends=True)
    (torn / "records.jsonl").write_text("".join(records[:-1]))  # without the result
    assert same(weights(go(settings, "torn", resume=True)), weights(whole))


@pytest.mark.parametrize("algo", ALGOS)
def test_epochs_and_minibatches_are_optimizer_steps(config, go, algo):
    out = go(config(algo, ppo=PPOConfig(beta=0.0, epochs=3, minibatches=2)))
    state = json.loads((out / "checkpoints" / "checkpoint-12" / "trainer_state.json").read_text())
    assert state["global_step"] == 2 * 3 * 2
    assert len(dumped(out)) == 2 * 8
    assert len(list(read_lines(out / "metrics.jsonl"))) == 2


@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_accumulated_micro_batches_are_one_batch(config, go, reduction):
    found, norms = [], []
    for micro in (1, 3, 8):  # 3 does not divide 8: the next smaller size that does is taken
        ppo = PPOConfig(beta=0.1, reduction=reduction, epochs=1)
        # So few tokens that rollouts are cut at different lengths.
        out = go(config(micro_batch=micro, ppo=ppo, max_steps=1, max_length=25), f"{micro}")
        assert len({row.length for row in dumped(out)}) > 1
        found.append(weights(out))
        norms += [line["grad_norm"] for line in read_lines(out / "metrics.jsonl")]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)
    for other in found[1:]:
        for name, value in found[0].items():
            assert_close(value, other[name], atol=2e-3, what=name)


@pytest.mark.parametrize("algo", ALGOS)
def test_the_penalty_compares_with_the_first_weights(config, go, algo):
    settings = config(algo, ppo=PPOConfig(beta=0.5, epochs=1), max_steps=3)
    out = go(settings)
    kl = [line["kl_per_token"] for line in read_lines(out / "metrics.jsonl")]
    assert abs(kl[0]) < 1e-6
    assert abs(kl[1]) > 1e-5
    assert kl[2] != kl[1]


def test_adapters_are_saved_and_merged(config, go, base):
    lora = LoraConfig(r=4, alpha=8.0)
    out = go(config(tune="lora", lora=lora, ppo=PPOConfig(beta=0.1, epochs=1)))
    adapted, _ = load_model(str(base), adapter=str(out / "adapter"))
    merged, _ = load_model(str(out / "model"))
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(adapted(ids).logits, merged(ids).logits, atol=1e-5)
    before, after = load_file(base / "model.safetensors"), weights(out)
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert not (out / "adapter" / "README.md").exists()


def test_the_best_weights_on_dev_are_kept(config, go, monkeypatch):
    marks = iter([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])

    def scripted(*_):
        return lambda model: next(marks)

    monkeypatch.setattr(trl_backend, "evaluator", scripted)
    out = go(config(max_steps=3, eval_steps=1, keep="best", keep_checkpoints=9))
    saved = {
        step: weights(out, f"checkpoints/checkpoint-{step}/model.safetensors") for step in (2, 3)
    }
    assert same(weights(out), saved[2])
    assert not same(saved[2], saved[3])
    result = read_records(out / "records.jsonl")[-1].data
    assert result["kept"] == 2
    assert [look[1] for look in result["dev"]] == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3])
    assert not list((out / "checkpoints").glob("best-*"))


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_run_that_is_killed_after_its_last_step_is_finished(
    config, go, tmp_path, monkeypatch, tune
):
    marks = iter([[0, 0, 0], [1, 0, 0], [0, 0, 0]])
    monkeypatch.setattr(trl_backend, "evaluator", lambda *_: lambda model: next(marks))
    settings = config(eval_steps=1, keep="best", tune=tune)

    def dies(result):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trl_backend, "result_record", dies)
        with pytest.raises(KeyboardInterrupt):
            run(settings, RunFlags(out=tmp_path / "out"))
    before = weights(tmp_path / "out")
    out = go(settings, resume=True)
    assert same(weights(out), before)
    assert read_records(out / "records.jsonl")[-1].data["kept"] == 1
    (out / "records.jsonl").write_text("")
    shutil.rmtree(out / "model")
    if tune == "full":
        with pytest.raises(ModelError, match="best-00000001 is gone"):
            run(settings, RunFlags(out=out, resume=True))


@pytest.mark.parametrize("algo", ALGOS)
def test_rollouts_without_a_reward_are_left_out_and_counted(config, go, algo, caplog):
    out = go(config(algo, reward="touchy"))
    rows = dumped(out)
    failed = [row for row in rows if row.error]
    assert 0 < len(failed) < len(rows)
    assert all(row.error == "ValueError: odd" and row.reward is None for row in failed)
    assert all(row.advantage == 0.0 for row in failed)
    assert "All reward functions returned None" not in caplog.text
    result = read_records(out / "records.jsonl")[-1].data
    assert result["excluded"] == len(failed)
    assert sum(data["excluded"] for data in steps(out).values()) == len(failed)


def test_a_reward_that_always_fails_ends_the_run(config, tmp_path):
    settings = config(reward="broken", max_steps=9)
    with pytest.raises(ConfigError, match=r"no rollout of the last 3 steps has a reward \(ValueEr"):
        run(settings, RunFlags(out=tmp_path / "out"))


@pytest.mark.parametrize("algo", ALGOS)
def test_truncated_rollouts_are_judged_unpaid_or_left_out(config, go, algo):
    found = {
        how: go(config(algo, truncated=how, max_steps=1), how) for how in ("score", "zero", "mask")
    }
    cut = {how: [row for row in dumped(out) if not row.ended] for how, out in found.items()}
    assert {len(rows) for rows in cut.values()} == {len(cut["score"])}
    assert any(row.reward for row in cut["score"])
    assert all(row.advantage == 0.0 for row in cut["mask"])
    (learnt,) = (data["learnt"] for data in steps(found["mask"]).values())
    assert learnt == 8 - len(cut["mask"])
    if len(cut["zero"]) == 8:  # nobody is paid, so there is nothing to learn
        assert all(row.advantage == 0.0 for row in dumped(found["zero"]))


def test_weights_that_blow_up_end_the_run(config, tmp_path):
    settings = config(learning_rate=1e30, max_steps=4)
    with pytest.raises(ModelError, match=r"lower (the |--)learning.rate"):
        run(settings, RunFlags(out=tmp_path / "out"))


def test_its_use_is_not_reported(config, go, monkeypatch):
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    go(config(max_steps=1))
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY


@pytest.mark.parametrize(
    ("algo", "changes", "reason"),
    [
        ("grpo", {"curriculum": CurriculumConfig(kind="adaptive")}, "adaptive needs algo=ppo"),
        (
            "rloo",
            {"curriculum": CurriculumConfig(kind="staged", threshold=0.5)},
            "threshold=0.5 needs algo=ppo",
        ),
        ("grpo", {"truncated": "bootstrap"}, "needs the critic of algo=ppo"),
        ("grpo", {"ppo": PPOConfig(kl_target=1.0)}, "beta is constant"),
        ("rloo", {"ppo": PPOConfig(gamma=0.9)}, "discounts nothing"),
        ("rloo", {"ppo": PPOConfig(kl="loss")}, "RLOO has its penalty in the reward"),
        ("rloo", {"ppo": PPOConfig(entropy_coef=0.1)}, "RLOO has no such bonus"),
        ("grpo", {"ppo": PPOConfig(is_cap=2.0)}, "is for rollouts of vLLM"),
    ],
)
def test_what_trl_cannot_do_is_refused(config, tmp_path, algo, changes, reason):
    with pytest.raises(ConfigError, match=f"algo={algo}: .*{reason}"):
        run(config(algo, **changes), RunFlags(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_plays_no_part_is_said_once_and_kept(config, go, caplog):
    ppo = PPOConfig(beta=0.1, value_coef=0.1, lam=0.9, epochs=1)
    out = go(config(ppo=ppo, critic="separate", critic_rate=1e-3, critic_warmup=3, max_steps=1))
    said = [one.getMessage() for one in caplog.records if "otherwise than asked" in one.msg]
    assert len(said) == 1
    note = json.loads((out / "env.json").read_text())["notes"]["otherwise"]
    for name in ("ppo.value_coef", "ppo.lam", "critic", "critic_rate", "critic_warmup", "ppo.kl"):
        assert f"{name}: " in said[0]
        assert f"{name}: " in note


def test_defaults_are_no_reason_to_warn(config):
    assert check_options(config("grpo", ppo=PPOConfig(beta=0.0))) == {}
    assert check_options(config("rloo")) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_length": 25}, {"max_length"}),
        ({"rollouts": 128, "generation_batch": 64}, {"generation_batch"}),
        ({}, set()),
    ],
)
def test_limits_that_rloo_cannot_keep_are_said(config, data, changes, expected):
    settings = config("rloo", **changes)
    prepared = read_prepared(data)
    ground = trl_backend.lay_ground(settings, prepared, byte_tokenizer())
    assert trl_backend._by_size(settings, ground).keys() == expected


def test_batches_that_do_not_divide_are_refused(config, tmp_path):
    settings = config(ppo=PPOConfig(beta=0.0, minibatches=3))
    with pytest.raises(ConfigError, match=r"rollouts=8 is no multiple of 1 processes times ppo\.m"):
        run(settings, RunFlags(out=tmp_path / "out"))


def test_layers_that_are_not_there_are_refused(config, tmp_path):
    settings = config(tune="lora", lora=LoraConfig(targets=("qkv",)))
    with pytest.raises(ModelError, match=r"has no layers qkv: set --lora\.targets"):
        run(settings, RunFlags(out=tmp_path / "out"))


def test_vllm_is_asked_for_by_name(config, tmp_path, monkeypatch):
    monkeypatch.setattr(trl_backend, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        run(config(vllm=True), RunFlags(out=tmp_path / "out"))
    assert caught.value.name == "vllm"


def test_several_gpus_need_a_launcher(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    trl_backend._check_device(config(), torch.device("cpu"))
    with pytest.raises(ConfigError, match="sees 2 GPUs: start it by `accelerate launch`"):
        trl_backend._check_device(config(), torch.device("cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    trl_backend._check_device(config(), torch.device("cuda:1"))


def test_a_model_without_a_name_gets_one_for_the_penalty(config, tmp_path):
    model = tiny_model("llama")
    assert not model.config.name_or_path
    trl_backend._name_reference(model, config(ppo=PPOConfig(beta=0.0)), tmp_path)
    assert not model.config.name_or_path
    trl_backend._name_reference(model, config(ppo=PPOConfig(beta=0.1)), tmp_path)
    found = type(model).from_pretrained(model.config.name_or_path)
    assert same(dict(model.state_dict()), dict(found.state_dict()))


def test_prompts_that_trl_made_itself_are_refused(config):
    judge = Judge(
        *(Plan((), (), ()), [], None, byte_tokenizer()),
        config=config("rloo"),
        eos_ids=frozenset({1}),
        updates=1,
        keeper=SimpleNamespace(asked=("start 1",)),
    )
    with pytest.raises(ModelError, match=r"others than the start states: install trl >="):
        judge(prompts=["start 0"], completion_ids=[[1]], start=[0], trainer_state=TrainerState())


@pytest.mark.parametrize(
    ("algo", "rewards", "expected"),
    [
        # mean 0.5, deviation sqrt((0.25 + 0.25) / 1); then a group of equal rewards
        ("grpo", [1.0, 0.0, 0.3, 0.3], [0.5 / 0.7072068, -0.5 / 0.7072068, 0.0, 0.0]),
        ("rloo", [1.0, 0.0, 0.3, 0.1], [1.0, -1.0, 0.2, -0.2]),
        ("rloo", [1.0, math.nan, math.nan, math.nan], [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_advantages_by_hand(config, algo, rewards, expected):
    assert group_advantages(rewards, config(algo)) == pytest.approx(expected, abs=1e-6)


def test_a_penalty_that_rloo_does_not_tell_leaves_advantages_unknown(config):
    found = group_advantages([1.0, 0.0], config("rloo", ppo=PPOConfig(beta=0.1)))
    assert all(map(math.isnan, found))


def test_only_some_steps_are_dumped(config, go):
    out = go(config(max_steps=5, dump_every=2))
    assert sorted({row.step for row in dumped(out)}) == [1, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("algo", ALGOS)
def test_the_command_trains_resumes_and_shows_its_rollouts(base, data, tmp_path, algo):
    words = ["r3", "train", "--algo", algo, "--model", base, "--data", data, "--samples", "2"]
    words += ["--rollouts", "4", "--max-steps", "2", "--max-new-tokens", "4", "--save-steps", "1"]
    words += ["--max-length", "64", "--eval-steps", "1", "--out", tmp_path / "out"]
    said = run_cli(words)
    assert said.returncode == 0, said.stderr
    assert "saved: " in said.stdout
    assert "Traceback" not in said.stderr
    again = run_cli([*words, "--resume"])
    assert "is finished" in again.stdout
    shown = run_cli(["r3", "rollouts", tmp_path / "out", "--html", tmp_path / "page.html"])
    assert shown.returncode == 0, shown.stderr
    assert "8 of 8 rollouts" in shown.stdout
    assert read_tokenizer(str(tmp_path / "out" / "model")).eos_token == "<|eos|>"


@pytest.mark.slow
@pytest.mark.parametrize("algo", ALGOS)
def test_two_processes_train_as_one(base, data, rewards, tmp_path, algo):
    words = ["train", "--algo", algo, "--model", base, "--data", data, "--samples", "4"]
    words += ["--rollouts", "8", "--micro-batch", "4", "--max-steps", "2", "--eval-steps", "2"]
    words += ["--max-new-tokens", "4", "--max-length", "64", "--ppo.beta", "0.1"]
    words += ["--ppo.epochs", "1", "--reward.function", "r3_test_rewards:lottery"]
    env = {"PYTHONPATH": str(rewards)}
    one = run_cli(["r3", *words, "--out", tmp_path / "one"], env=env)
    assert one.returncode == 0, one.stderr
    script = Path(sys.executable).parent / "r3"
    launch = ["torchrun", "--standalone", "--nproc-per-node", "2", script]
    two = run_cli([*launch, *words, "--out", tmp_path / "two"], env=env)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("saved:") == 1
    found = [dumped(tmp_path / name) for name in ("one", "two")]
    starts = [[(row.step, row.demo, row.cut_tok) for row in rows] for rows in found]
    assert starts[0] == starts[1]
    if algo == "grpo":  # our rollouts do not depend on the process; TRL's own do
        assert found[0][:8] == found[1][:8]
        first = [next(iter(read_lines(tmp_path / one / "metrics.jsonl"))) for one in ("one", "two")]
        assert first[0]["grad_norm"] > 0
        assert first[1]["grad_norm"] == pytest.approx(first[0]["grad_norm"], rel=1e-4)
