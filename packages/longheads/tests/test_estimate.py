"""What `--dry-run` says, by hand and on configs in a folder."""

import pytest
import torch

from longheads import cache, engine, estimate
from longheads.caches import sliding_windows
from longheads.config import GenerateConfig, LongHeadsConfig, PasskeyConfig
from longheads.presets import PAPER_MODEL, PASSKEY, WINDOWS
from longheads.testing import ALL_KINDS, make
from papercore.shapes import KNOWN, Shape, find_shape
from papercore.testing import tiny_model

LLAMA = KNOWN[PAPER_MODEL]
LLAMA_31 = "meta-llama/Llama-3.1-8B-Instruct"
GEMMA = Shape(26, 1152, 6912, 4, 1, 256, 262144, 32768, True, 22, 512)  # Gemma-3-1B


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


def memory(shape, monkeypatch, num_tok=131072, method="longheads", **settings):
    """What is said of a prompt to a model of such a shape."""
    monkeypatch.setitem(estimate.KNOWN, "made:up", shape)
    config = PasskeyConfig(
        model="made:up",
        lengths=(num_tok,),
        method=method,
        dtype="bfloat16",
        longheads=LongHeadsConfig(**settings),
    )
    return estimate.passkey(config)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_layers_with_a_window_are_those_that_the_cache_makes(tmp_path, kind):
    config = make(kind).config
    config.save_pretrained(tmp_path)
    shape, windows = find_shape(str(tmp_path)), sliding_windows(config)
    assert shape.full_layers == windows.count(None)
    assert {shape.sliding_tok} - {0} == set(windows) - {None}


def test_what_is_repeated_here_is_what_the_modules_with_torch_say():
    assert estimate.TAIL_CHUNKS == cache.TAIL_CHUNKS
    assert estimate.WORKSPACE_BYTES == engine.WORKSPACE_BYTES
    assert estimate.GPU_WORKSPACE_BYTES == engine.GPU_WORKSPACE_BYTES


def test_queries_and_workspace_are_said():
    said = estimate.passkey(PASSKEY["paper"])
    assert said["queries of the last chunks"] == "192 MiB"  # 3 chunks, 32 heads and layers
    assert said["workspace"] == "about 1 GiB on a GPU, 128 MiB on a CPU"


def test_a_pool_that_holds_everything_is_said_to_save_nothing(monkeypatch):
    shape = KNOWN[LLAMA_31]
    said = memory(shape, monkeypatch, offload=True)
    assert said["kv cache"] == "16 GiB for 131072 tokens, on the host"
    assert said["pool of pages on the device"].startswith("16 GiB, which is everything, so off")
    said = memory(shape, monkeypatch, offload=True, window=8192)
    assert said["pool of pages on the device"] == "8 GiB"  # 2 x 32 chunks x 4 heads that share


def test_gemma_3_holds_little_of_most_layers(monkeypatch):
    said = memory(GEMMA, monkeypatch, offload=True)
    assert said["kv cache"] == "512 MiB for 131072 tokens, on the host"  # 4 layers of 1 KiB a token
    assert said["kv cache of sliding layers"].endswith(
        "in 22 of 26 layers, which see 512 tokens, on the device"
    )
    assert memory(GEMMA, monkeypatch)["kv cache"] == "512 MiB for 131072 tokens"
    config = PasskeyConfig(longheads=LongHeadsConfig())
    found = estimate.held(config, GEMMA, 131072, 2)
    per_tok = 22 * 1024
    assert (512 + 2 * 256 + 4096) * per_tok < found.sliding < 6000 * per_tok
    assert estimate.held(config, GEMMA, 4 * 131072, 2).sliding == found.sliding
    assert found.tail == 4 * 4 * 256 * 3 * 256 * 2


def test_full_attention_keeps_the_window_of_sliding_layers(monkeypatch):
    said = memory(GEMMA, monkeypatch, method="full")
    assert said["kv cache"] == "512 MiB for 131072 tokens"
    assert said["kv cache of sliding layers"].startswith("99 MiB in 22 of 26")  # window and piece
    assert "workspace" not in said
    full = estimate.attention_flops(GEMMA, 131072, None, 256)
    assert full == pytest.approx(4 * 1024 * (4 * 131072 / 2 + 22 * 512), rel=0.001)


@pytest.mark.parametrize("window", [16, 100])
@pytest.mark.parametrize("piece", [1, 7, 64])
def test_room_of_a_sliding_layer_is_what_the_layer_makes(window, piece):
    layer = cache.LongHeadsLayer(8, sliding_window=window, capacity_tok=2000)
    states, most = torch.zeros(1, 1, piece, 2), 0
    layer.lazy_initialization(states, states)
    for start in range(0, 1400, piece):
        layer.reserve_(1, 1, 1, 2, start + piece)
        most = max(most, layer.keys.shape[2])
        layer.lengths[0] = start + piece
        layer.drop_unseen_()
    assert estimate.sliding_chunks(window, 1400, piece, 8) == most


def test_minmax_has_two_representations_a_chunk():
    one, two = (
        estimate.held(PasskeyConfig(longheads=LongHeadsConfig(chunk_rep=rep)), LLAMA, 131072, 2)
        for rep in ("attention", "minmax")
    )
    assert two.reps == 2 * one.reps
