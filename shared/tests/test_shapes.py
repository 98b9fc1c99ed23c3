"""Shapes of models without loading them: against transformers' own count; where none is known."""

import json

import pytest

from papercore.shapes import (
    KNOWN,
    Shape,
    bytes_per_weight,
    find_shape,
    kv_bytes_per_token,
    shown_bytes,
)
from papercore.testing import tiny_model

MADE_UP = Shape(1, 8, 16, 2, 1, 4, 10, 32, tied=True)


@pytest.mark.parametrize("kind", ["llama", "llama-gqa", "mistral", "gemma2", "gemma3_text"])
def test_a_folder_tells_the_shape_and_its_weights_are_those_of_the_model(tmp_path, kind):
    model = tiny_model(kind)
    model.config.save_pretrained(tmp_path)
    shape = find_shape(str(tmp_path))
    assert shape is not None
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert shape.weights + norms == model.num_parameters()


def layers_that_slide(folder, **config):
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    more = {"num_hidden_layers": 26, "max_position_embeddings": 64, "sliding_window": 512}
    (folder / "config.json").write_text(json.dumps(shape | more | config))
    found = find_shape(str(folder))
    assert found is not None
    assert found.full_layers + found.sliding_layers == 26
    assert found.sliding_tok == (512 if found.sliding_layers else 0)
    return found.sliding_layers


def test_layers_with_a_window_are_counted_by_name_or_by_the_model_type(tmp_path):
    mixed = ["full_attention", "sliding_attention"] * 13
    assert layers_that_slide(tmp_path, layer_types=mixed) == 13
    assert layers_that_slide(tmp_path, model_type="gemma2") == 13
    assert layers_that_slide(tmp_path, model_type="gemma3_text") == 22
    assert layers_that_slide(tmp_path, model_type="gemma3_text", sliding_window_pattern=13) == 24
    assert layers_that_slide(tmp_path, model_type="mistral") == 26
    assert layers_that_slide(tmp_path, model_type="mistral", sliding_window=None) == 0
    assert layers_that_slide(tmp_path, model_type="qwen2") == 0
    assert layers_that_slide(tmp_path, model_type="llama", use_sliding_window=False) == 0
    told = {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 20}
    assert layers_that_slide(tmp_path, **told) == 6


def test_keys_and_values_of_some_layers():
    whole = kv_bytes_per_token(MADE_UP, 2)
    assert kv_bytes_per_token(MADE_UP, 2, 0) == 0
    assert kv_bytes_per_token(MADE_UP, 2, 3) == 3 * whole


def test_tied_tables_are_counted_once():
    free = Shape(1, 8, 16, 2, 1, 4, 10, 32, tied=False)
    assert free.weights - MADE_UP.weights == 10 * 8


def test_a_reference_of_ones_own_is_found_before_the_known_ones():
    name = next(iter(KNOWN))
    assert find_shape("tiny:nothing", {"tiny:nothing": MADE_UP}) == MADE_UP
    assert find_shape(name, {name: MADE_UP}) == MADE_UP
    assert find_shape(name) == KNOWN[name]


@pytest.mark.parametrize("name", ["nobody/nothing", "openai:x@http://h", "not a hub id!"])
def test_what_cannot_be_known_is_none(name):
    assert find_shape(name) is None


def test_a_folder_that_says_nothing_is_none(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": "wide"}))
    assert find_shape(str(tmp_path)) is None


def test_sizes_by_hand():
    assert bytes_per_weight(2) == 2
    assert bytes_per_weight(2, "4bit") < 1
    assert kv_bytes_per_token(KNOWN["meta-llama/Llama-2-7b-hf"], 2) == 2**19
    assert [shown_bytes(n) for n in (0, 1023, 2048, 3 * 2**30)] == [
        "0 B",
        "1.02e+03 B",
        "2 KiB",
        "3 GiB",
    ]
