"""What a dry run says that training and expansion will need."""

import json

import pytest

from papercore.generate.endpoint import EndpointConfig
from rotbench.config import ExpandConfig, TrainConfig
from rotbench.presets import TRAIN
from rotbench.training_estimate import expand, train


def number(text):
    return float(text.replace(",", "").split("about ")[-1].split()[0])


def test_the_paper_s_recipe_without_its_data():
    """By hand: 22,747 trajectories, 5 epochs, 64 a step; 6 x 6.7e9 operations per token."""
    found = train(TRAIN["paper"])
    assert "assumed: 22,747 trajectories" in found["data"]
    assert found["steps"] == "1,778 of 64 sequences"
    assert 6 < number(found["time"]) < 9  # the spec's own arithmetic: 7 to 8 hours
    assert found["memory"].startswith("about 13 GiB")


def test_the_file_is_counted():
    found = train(TrainConfig(data="sample", max_steps=10, batch=2, limit=4))
    assert found["data"].startswith("4 trajectories")
    assert found["steps"] == "10 of 2 sequences"
    tokens = number(found["data"].split(", ")[1])
    assert number(found["tokens read"]) == pytest.approx(tokens / 4 * 20, rel=0.01)


def test_full_tuning_and_less_checkpointing_change_work_and_memory():
    plain = train(TrainConfig(data="nowhere"))
    quick = train(TrainConfig(data="nowhere", gradient_checkpointing=False))
    full = train(TrainConfig(data="nowhere", tune="full"))
    assert number(quick["time"]) < number(plain["time"]) < number(full["time"])
    assert number(full["memory"]) == pytest.approx(8 * number(plain["memory"]), rel=0.05)


def test_a_size_comes_from_the_name_or_the_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1 << 20))
    assert "about 0 GiB" in train(TrainConfig(base=str(tmp_path)))["memory"]
    assert "about 3 GiB" in train(TrainConfig(base="Qwen/Qwen2.5-1.5B-Instruct"))["memory"]
    assert "unknown" in train(TrainConfig(base="random"))["memory"]


def test_expansion_counts_prompts_and_money(tmp_path):
    endpoint = EndpointConfig(price_in=1.0, price_out=2.0)
    config = ExpandConfig(model="openai:m@http://localhost/v1", count=40, endpoint=endpoint)
    found = expand(config)
    assert found["requests"] == "16"  # 40 / (5 asked x half kept)
    assert "USD" in found["cost"]
    assert expand(ExpandConfig(model="vllm:a/b"))["cost"] == "your own machine"
    (tmp_path / "tools.json").write_text(json.dumps({"no": "tools"}))
    assert "holds no tools" in expand(ExpandConfig(tools=str(tmp_path / "tools.json")))["tools"]
