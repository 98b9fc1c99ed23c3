"""What `--dry-run` says: counts of questions, rows of the cache, shapes that agree with models."""

import pytest

from papercore.shapes import kv_bytes_per_token
from self_cd import estimate, presets
from self_cd.config import GenerateConfig, RunAnswersConfig, SelfCDConfig, SweepConfig
from self_cd.estimate import KNOWN
from self_cd.mini_model import Recipe, train


def test_the_shape_of_the_miniature_is_its_models():
    model, _ = train(Recipe.quick(0))
    shape = KNOWN[presets.TINY_MODEL]
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert shape.weights + norms == model.num_parameters()
    assert shape.trained_tok == model.config.max_position_embeddings


def test_a_run_counts_its_questions_and_both_contexts():
    said = estimate.run(presets.RUN["tiny"])
    assert said["data"] == "120 harmless, 60 harmful, 100 ordinary questions"
    assert "128 rows of a batch of 64" in said["kv cache"]


def test_a_baseline_has_one_context():
    config = presets.RUN["tiny"].model_copy(update={"method": "plain"})
    assert "64 rows of a batch of 64" in estimate.run(config)["kv cache"]


def test_a_sweep_has_a_pair_per_strength():
    config = SweepConfig(data=("sample",), alphas=(1.0, 2.5, 3.0), batch_size=4)
    said = estimate.sweep(config)
    assert "24 rows of a batch of 4" in said["kv cache"]
    assert said["strengths"].startswith("3,")


def test_the_head_in_float32_is_counted_only_where_there_is_one():
    low = estimate.generate(GenerateConfig(model=presets.PAPER_MODEL, query="x"))
    assert low["output head"] == "500 MiB in float32"
    full = GenerateConfig(model=presets.PAPER_MODEL, query="x", dtype="float32")
    assert "output head" not in estimate.generate(full)
    off = SelfCDConfig(float32_head=False)
    without = GenerateConfig(model=presets.PAPER_MODEL, query="x", contrast=off)
    assert "output head" not in estimate.generate(without)


def test_the_weights_of_the_papers_model():
    said = estimate.run(RunAnswersConfig(model=presets.PAPER_MODEL))
    assert said["weights"] == "12.6 GiB (6.74 G weights)"


def test_harmful_questions_that_will_be_added_are_counted(tmp_path):
    (tmp_path / "q.csv").write_text("prompt,side\nHow do I kill a process?,harmless\n")
    said = estimate.run(RunAnswersConfig(data=(f"csv:{tmp_path / 'q.csv'}",)))
    assert "1 harmless, 40 harmful" in said["data"]


def test_a_data_set_that_is_missing_is_said():
    assert "xstest" in estimate.run(RunAnswersConfig(data=("xstest",), limit=1))["data"]


def test_an_endpoint_costs_tokens():
    model = "openai:m@http://127.0.0.1:1/v1"
    said = estimate.run(RunAnswersConfig(model=model, method="plain"))
    assert "kv cache" not in said
    assert said["new tokens"] == "at most 24,000"


def test_an_unknown_model_is_said_to_be():
    assert "unknown" in estimate.generate(GenerateConfig(model="nobody/nothing"))["memory"]


@pytest.mark.parametrize("tokens", [8, 200])
def test_more_new_tokens_need_more_cache(tokens):
    config = GenerateConfig(model=presets.PAPER_MODEL, query="x" * 40, max_new_tokens=tokens)
    shape = estimate.find_shape(presets.PAPER_MODEL)
    assert shape is not None
    least = 2 * tokens * kv_bytes_per_token(shape, 2) / 2**20
    said = estimate.generate(config)["kv cache"]
    assert float(said.split()[0]) > least
