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


@pytest.mark.parametrize("kind", ["llama", "llama-gqa", "mistral"])
def test_a_folder_tells_the_shape_and_its_weights_are_those_of_the_model(tmp_path, kind):
    model = tiny_model(kind)
    model.config.save_pretrained(tmp_path)
    shape = find_shape(str(tmp_path))
    assert shape is not None
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert shape.weights + norms == model.num_parameters()


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
