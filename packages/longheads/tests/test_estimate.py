"""What `--dry-run` says, by hand and on configs in a folder."""

import pytest

from longheads import estimate
from longheads.config import GenerateConfig, LongHeadsConfig, PasskeyConfig
from longheads.presets import PAPER_MODEL, PASSKEY, WINDOWS
from papercore.shapes import KNOWN, Shape, find_shape
from papercore.testing import tiny_model

LLAMA = KNOWN[PAPER_MODEL]


def test_the_weights_of_llama_2_7b():
    assert LLAMA.weights == pytest.approx(6.74e9, rel=0.001)


def test_keys_and_values_of_llama_2_7b_are_half_a_mebibyte_per_token():
    assert estimate.kv_bytes_per_token(LLAMA, 2) == 2**19


def test_representations_are_a_512th_of_the_keys_and_values_at_256_tokens_a_chunk():
    kv = estimate.kv_bytes_per_token(LLAMA, 2)
    assert estimate.rep_bytes_per_token(LLAMA, 2, 256) == kv / 512


def test_work_at_128k_is_that_of_the_spec():
    full = estimate.attention_flops(LLAMA, 131072, None, 256)
    ours = estimate.attention_flops(LLAMA, 131072, 4096, 256)
    assert full == pytest.approx(34e9, rel=0.02)
    assert ours == pytest.approx(2.1e9 + 0.13e9 / 2, rel=0.03)


def test_inside_the_window_both_do_the_same_work():
    full = estimate.attention_flops(LLAMA, 2048, None, 256)
    assert estimate.attention_flops(LLAMA, 2048, 2048, 256) == full


def test_the_shape_is_read_from_a_folder(tmp_path):
    model = tiny_model("llama-gqa")
    model.config.save_pretrained(tmp_path)
    shape = find_shape(str(tmp_path))
    assert shape == Shape(2, 32, 64, 4, 2, 8, 259, 512, tied=False)
    norms = 2 * 2 * 32 + 32
    assert shape.weights + norms == model.num_parameters()


@pytest.mark.parametrize("content", ["", "[]", '{"hidden_size": 8}', '{"hidden_size": "x"}'])
def test_a_config_that_cannot_be_read_leaves_the_shape_unknown(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert find_shape(str(tmp_path)) is None
    assert "unknown" in estimate.generate(GenerateConfig(model=str(tmp_path)))["memory"]


def test_a_model_that_was_never_downloaded_is_unknown_and_said_to_be():
    said = estimate.passkey(PasskeyConfig(model="nobody/nothing", lengths=(512,), trials=3))
    assert said["data"] == "3 prompts of 512 to 512 tokens"
    assert "unknown" in said["memory"]


def test_passkey_says_what_the_longest_prompt_needs():
    said = estimate.passkey(PASSKEY["paper"])
    assert said["data"] == "300 prompts of 4096 to 131072 tokens"
    assert said["kv cache"] == "64 GiB for 131072 tokens"
    assert said["representations"] == "128 MiB"
    assert said["window"].startswith("2048 of 4096")


def test_limit_counts():
    config = PasskeyConfig(lengths=(512, 1024), trials=50, limit=7)
    assert estimate.passkey(config)["data"].startswith("7 prompts")


def test_a_window_that_does_not_fit_is_said():
    config = GenerateConfig(prompt="a " * 400, longheads=LongHeadsConfig())
    assert "does not fit" in estimate.generate(config)["window"]


def test_the_size_of_a_prompt_is_that_of_its_file(tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("word " * 800)
    config = GenerateConfig(prompt_file=file, longheads=WINDOWS["tiny"])
    said = estimate.generate(config)
    assert said["data"] == "prompt of 4000 characters, about 1000 tokens"
    assert said["window"].startswith("256 of 256")
    assert estimate.generate(GenerateConfig(prompt_file=tmp_path / "absent"))["data"] == (
        "no prompt given"
    )
