"""Which tokens count, and their losses against a loop that reads every window from scratch."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longheads import losses, perplexity_report
from longheads.baselines import apply_method
from longheads.config import LongHeadsConfig, PerplexityConfig
from longheads.losses import token_losses
from longheads.perplexity import text_of
from longheads.testing import make, small, tokens
from longheads.windows import Stretch, described, plan, spread
from papercore.errors import ModelError
from papercore.records import Record

DENSE = LongHeadsConfig(chunk_len=8, window=64)


def settings(**changes):
    return PerplexityConfig.model_validate({"lengths": (64,), "stride": 16, **changes})


def brute_force(model, ids, length, stride):
    """Mean loss over all windows, by the model's own loss with labels."""
    total, count = 0.0, 0
    for end in range(length, len(ids) + 1, stride):
        window = torch.tensor([ids[end - length : end]])
        labels = window.clone()
        labels[:, : length - stride] = -100
        with torch.no_grad():
            total += float(model(input_ids=window, labels=labels, use_cache=False).loss) * stride
        count += stride
    return total / count, count


def measured(model, ids, config, *, method="full", longheads=DENSE):
    total, count = 0.0, 0
    with apply_method(model, method, longheads, factor=2.0) as handle:
        for stretch in plan(len(ids), config):
            ((first, last),) = stretch.counted.values()
            found = token_losses(
                model,
                text_of(ids, stretch, None),
                first=stretch.first,
                handle=handle,
                prefill_tok=config.prefill_tok,
            )
            total += float(found[: last - first].sum())
            count += last - first
    return total / count, count


# windows


def test_windows_by_hand():
    assert plan(100, settings()) == [
        Stretch(0, 64, {64: (48, 64)}),
        Stretch(16, 64, {64: (48, 64)}),
        Stretch(32, 64, {64: (48, 64)}),
    ]
    assert plan(64, settings()) == [Stretch(0, 64, {64: (48, 64)})]
    assert plan(63, settings()) == []


def test_a_stride_of_the_whole_length_leaves_out_the_first_token_only():
    assert plan(128, settings(stride=64))[1] == Stretch(64, 64, {64: (1, 64)})


def test_blocks_by_hand():
    config = settings(scheme="block", lengths=(32, 64))
    assert plan(130, config) == [
        Stretch(0, 64, {32: (16, 32), 64: (32, 64)}),
        Stretch(64, 64, {32: (16, 32), 64: (32, 64)}),
    ]
    assert plan(63, config) == []


@given(
    st.integers(0, 400),
    st.lists(st.integers(9, 90), min_size=1, max_size=3, unique=True),
    st.integers(1, 8),
    st.none() | st.integers(1, 9),
    st.sampled_from(["window", "block", "same"]),
)
def test_every_counted_token_lies_in_the_document_and_counts_once(
    num_tok, lengths, stride, limit, scheme
):
    config = settings(
        lengths=tuple(lengths),
        stride=stride,
        max_windows=limit,
        scheme="block" if scheme == "block" else "window",
        same_targets=scheme == "same",
    )
    counted = {length: [] for length in lengths}
    for stretch in plan(num_tok, config):
        assert stretch.start >= 0
        assert stretch.start + stretch.length <= num_tok
        for length, (first, last) in stretch.counted.items():
            assert 1 <= first < last <= stretch.length
            counted[length] += range(stretch.start + first, stretch.start + last)
    for places in counted.values():
        assert len(set(places)) == len(places)
    if scheme == "same":
        assert len({tuple(places) for places in counted.values()}) == 1
    elif scheme == "window" and limit is None:
        for length, places in counted.items():
            whole = (num_tok - length) // stride * stride + stride if num_tok >= length else 0
            assert len(places) == whole


@given(st.integers(0, 200), st.integers(1, 50))
def test_spread_is_even_and_inside(count, limit):
    found = spread(count, limit)
    assert len(found) == min(count, limit)
    assert all(0 <= place < count for place in found)
    gaps = {b - a for a, b in itertools.pairwise(found)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
    assert spread(count, None) == list(range(count))


def test_bos_takes_the_first_place_and_leaves_the_rest():
    assert text_of(range(100), Stretch(10, 4, {4: (2, 4)}), None) == (10, 11, 12, 13)
    assert text_of(range(100), Stretch(10, 4, {4: (2, 4)}), 7) == (7, 11, 12, 13)


# losses


@pytest.mark.parametrize("prefill_tok", [16, 20, 4096])
def test_full_attention_is_the_loop_with_labels(prefill_tok):
    model, ids = make("llama-gqa"), tokens(1, 150)[0].tolist()
    expected, count = brute_force(model, ids, 64, 16)
    found, scored = measured(model, ids, settings(prefill_tok=prefill_tok))
    assert scored == count == 96
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral-full", "qwen3"])
def test_inside_the_window_longheads_is_full_attention(kind):
    model, ids = make(kind), tokens(1, 150)[0].tolist()
    expected, _ = brute_force(model, ids, 64, 16)
    found, _ = measured(model, ids, settings(prefill_tok=24), method="longheads")
    assert found == pytest.approx(expected, rel=1e-5)


def test_beyond_the_window_longheads_is_itself_read_at_once():
    model, ids = make("llama-gqa"), tokens(1, 140)[0].tolist()
    found, _ = measured(model, ids, settings(prefill_tok=20), method="longheads", longheads=small())
    with apply_method(model, "longheads", small(), factor=1.0):
        expected, _ = brute_force(model, ids, 64, 16)
    assert found == pytest.approx(expected, rel=1e-5)
    full, _ = brute_force(model, ids, 64, 16)
    assert abs(found - full) > 1e-4


@pytest.mark.parametrize("method", ["streaming", "random", "pi", "ntk", "yarn"])
def test_every_method_is_itself_read_at_once(method):
    model, ids = make("llama"), tokens(1, 100)[0].tolist()
    found, _ = measured(model, ids, settings(prefill_tok=20), method=method, longheads=small())
    with apply_method(model, method, small(), factor=2.0):
        expected, _ = brute_force(model, ids, 64, 16)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_block_is_read_once_and_gives_the_losses_of_all_lengths():
    model, ids = make("llama"), tokens(1, 64)[0].tolist()
    (block,) = plan(64, settings(scheme="block", lengths=(32, 64)))
    found = token_losses(model, ids, first=block.first, handle=None, prefill_tok=16)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [-float(logits[place - 1, ids[place]]) for place in range(16, 64)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_losses_do_not_depend_on_the_pieces(monkeypatch):
    model, ids = make("llama"), tokens(1, 90)[0].tolist()
    whole = token_losses(model, ids, first=1, handle=None, prefill_tok=4096)
    monkeypatch.setattr(losses, "PIECE_TOK", 7)
    pieces = token_losses(model, ids, first=1, handle=None, prefill_tok=4096)
    assert len(whole) == 89
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)


def test_logits_are_never_held_for_more_places_than_a_piece(monkeypatch):
    model, ids, asked = make("llama"), tokens(1, 90)[0].tolist(), []
    honest = type(model).forward

    def forward(self, *args, **kwargs):
        out = honest(self, *args, **kwargs)
        asked.append(out.logits.shape[1])
        return out

    monkeypatch.setattr(losses, "PIECE_TOK", 16)
    monkeypatch.setattr(type(model), "forward", forward)
    token_losses(model, ids, first=42, handle=None, prefill_tok=30)
    assert asked == [1, 1, 16, 16, 16]


def test_half_precision_takes_the_softmax_in_float32():
    model, ids = make("llama").to(torch.bfloat16), tokens(1, 64)[0].tolist()
    found = token_losses(model, ids, first=32, handle=None, prefill_tok=4096)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].float()
    expected = torch.nn.functional.cross_entropy(
        logits[31:63], torch.tensor(ids[32:]), reduction="none"
    )
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected.double(), rtol=0.05, atol=0.05)
    rounded = found.to(torch.bfloat16).double()
    assert not torch.equal(rounded, found), "the losses themselves were rounded to bfloat16"


@pytest.mark.parametrize("where", ["embedding", "head"])
def test_losses_that_are_not_finite_are_refused(where):
    model, ids = make("llama"), tokens(1, 40)[0].tolist()
    table = model.model.embed_tokens if where == "embedding" else model.lm_head
    with torch.no_grad():
        table.weight[ids[-3]] = math.nan
    with pytest.raises(ModelError, match="not finite"):
        token_losses(model, ids, first=20, handle=None, prefill_tok=16)


def test_ids_outside_of_the_vocabulary_are_refused():
    with pytest.raises(ModelError, match="vocabulary of 259"):
        token_losses(make("llama"), [1, 2, 259], first=1, handle=None, prefill_tok=16)


# what records come to


def window(document, start, nll, *, length=64, scored=2, **more):
    data = {
        "length": length,
        "document": document,
        "start": start,
        "method": "full",
        "scheme": "window",
        "scored_tok": scored,
        "nll": nll,
    }
    return Record(id=f"perplexity/{length}/{document}/{start}", data=data, **more)


def document(index, **more):
    data = {"name": f"book{index}", "num_tok": 99, "sha256": "x"}
    return Record(id=f"perplexity/document/{index}", data=data, **more)


READING = "stride 16, all windows of a document"


def test_perplexity_by_hand():
    records = [
        document(0),
        window(0, 0, 2.0),
        window(0, 16, 4.0),
        document(1),
        window(1, 0, 12.0),
        window(1, 16, None, status="error", error="x"),
        document(2, status="skipped", error="short"),
    ]
    metrics = perplexity_report.summarise(records)
    assert list(metrics) == ["perplexity/64", "perplexity_by_token/64"]
    found, by_token = metrics.values()
    assert found.value == pytest.approx(math.exp((1.5 + 6.0) / 2))
    assert (found.n, found.method) == (2, "bootstrap")
    assert found.lo == pytest.approx(math.exp(1.5))  # the first document, drawn twice
    assert found.hi == pytest.approx(math.exp(6.0))
    assert by_token.value == pytest.approx(math.exp(18.0 / 6))
    assert (by_token.n, by_token.method) == (2, "clustered")
    about, _, line = perplexity_report.perplexity_table(records, READING)
    assert f"scheme window, {READING}; 2 documents, 1 too short" in about
    assert line.split()[:2] == ["64", "42.52"]
    assert line.split()[-5:] == ["20.09", "2", "3", "6", "1"]
    (table,) = perplexity_report.tables(records)
    assert [row[:3] for row in table.rows] == [(64, "book0", 2), (64, "book1", 1)]
    assert table.rows[0][3] == pytest.approx(math.exp(1.5))


def test_one_document_has_no_interval_and_a_broken_model_no_overflow(tmp_path):
    records = [document(0), window(0, 0, 4000.0)]
    for found in perplexity_report.summarise(records).values():
        assert found.value == math.inf
        assert math.isnan(found.lo)
    line = perplexity_report.perplexity_table(records, READING)[2]
    assert line.split()[:3] == ["64", "inf", "-"]


def test_no_window_gives_nothing(tmp_path):
    for records in ([], [document(0, status="skipped", error="short")]):
        assert perplexity_report.summarise(records) == {}
        assert perplexity_report.figures(records, tmp_path) == []
        assert perplexity_report.tables(records) == []
        assert perplexity_report.perplexity_table(records, READING) == []


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_windows": 20}, {"same_targets": True, "max_windows": 20}, {"scheme": "block"}],
)
def test_documents_of_constant_loss_give_the_same_at_every_length(changes):
    losses, lengths = {33_000: 3.0, 120_000: 1.5}, (4096, 16384, 32768)
    config = settings(lengths=lengths, stride=256, **changes)
    records = [document(0), document(1)] + [
        window(index, stretch.start, loss * 256, length=length, scored=256)
        for index, (num_tok, loss) in enumerate(losses.items())
        for stretch in plan(num_tok, config)
        for length in stretch.counted
    ]
    found = perplexity_report.summarise(records)
    for length in lengths:
        assert found[f"perplexity/{length}"].value == pytest.approx(math.exp(2.25))
    by_token = {round(found[f"perplexity_by_token/{length}"].value, 6) for length in lengths}
    assert (len(by_token) == 1) == ("same_targets" in changes or "scheme" in changes)
    assert len(perplexity_report.perplexity_table(records, described(config))) == 5


def test_other_documents_at_other_lengths_are_told_of():
    records = [document(0), document(1), window(0, 0, 2.0), window(1, 0, 3.0)]
    records.append(window(0, 0, 2.0, length=128))
    assert "other documents" in perplexity_report.perplexity_table(records, READING)[-1]
    failed = window(1, 0, None, length=128, status="error", error="x")
    assert "other documents" in perplexity_report.perplexity_table([*records, failed], READING)[-1]


def test_what_was_read_in_words():
    assert described(settings()) == READING
    few = settings(max_windows=4, same_targets=True)
    assert described(few) == (
        "stride 16, at most 4 windows of a document, the same tokens at every length"
    )
    assert described(settings(scheme="block")) == "all blocks of a document"
