import math

import pytest
import torch

from papercore.errors import DataError
from papercore.testing import tiny_model
from self_cd.perplexity import continuation_nll, perplexity

TEXT = (5, 70, 71, 9)


def contexts(*lengths):
    draw = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(3, 250, (n,), generator=draw).tolist()) for n in lengths]


@pytest.mark.parametrize("kind", ["llama-gqa", "mistral", "qwen3"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_equal_to_one_forward_per_token(kind, batch_size):
    model, given = tiny_model(kind).double(), contexts(9, 25, 1, 9)
    found = continuation_nll(model, given, TEXT, batch_size=batch_size)
    for context, row in zip(given, found, strict=True):
        for place, token in enumerate(TEXT):
            with torch.no_grad():
                logits = model(torch.tensor([[*context, *TEXT[:place]]])).logits[0, -1]
            assert row[place] == pytest.approx(-float(logits.log_softmax(-1)[token]), abs=1e-9)


def test_perplexity_is_over_tokens_not_texts():
    assert perplexity([[math.log(2.0)] * 3, [math.log(32.0)]]) == pytest.approx(4.0)
    assert math.isnan(perplexity([]))


def test_one_token_and_no_contexts():
    model = tiny_model("llama")
    assert continuation_nll(model, [], TEXT) == []
    (row,) = continuation_nll(model, contexts(4), (5,))
    assert len(row) == 1


def test_nothing_is_refused():
    model = tiny_model("llama")
    with pytest.raises(DataError, match="text has no tokens"):
        continuation_nll(model, contexts(4), ())
    with pytest.raises(DataError, match="context has no tokens"):
        continuation_nll(model, [(1, 2), ()], TEXT)
