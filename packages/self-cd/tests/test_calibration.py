import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papercore.errors import DataError
from papercore.tiny import tiny_llama
from self_cd.calibration import calibrate, measure
from self_cd.config import MAX_ALPHA, OpeningsConfig, PromptConfig, SelfCDConfig
from self_cd.contrast import combine
from self_cd.items import Item
from self_cd.margin_rule import (
    SideMargins,
    calibrate_margins,
    margins_at,
    refused_at,
    strength_that_keeps,
)
from self_cd.mini_model import make_tokenizer
from self_cd.paired import Paired
from self_cd.prompts import Prompter
from self_cd.testing import chat_model

GRID = [step / 100 for step in range(100, 1001)]


def side(*pairs):
    """Margins given as (m', d)."""
    return SideMargins(tuple(m for m, _ in pairs), tuple(m + d for m, d in pairs))


def kept_share(pairs, alpha):
    """The margin rule, question by question."""
    true = [(m, d) for m, d in pairs if m > 0]
    return sum(m > (alpha - 1) * d for m, d in true) / len(true)


def released_share(pairs, alpha):
    over = [(m, d) for m, d in pairs if m + d > 0]
    return sum(m <= (alpha - 1) * d for m, d in over) / len(over)


def test_by_hand():
    # breaks at 1 + 3/2, 1 + 8/2, never, never; the fifth is no true refusal
    harmful = side((3.0, 2.0), (8.0, 2.0), (1.0, 0.0), (2.0, -1.0), (-1.0, 5.0))
    # freed at 1 - 1/2, 1 + 2/2, 1 + 9/3; the fourth is refused by neither context
    harmless = side((-1.0, 2.0), (2.0, 2.0), (9.0, 3.0), (-3.0, 2.0))
    found = calibrate_margins(harmless, harmful, keep=0.75, alphas=(0.0, 1.0, 2.5, 6.0))
    assert (found.num_true, found.num_harmful, found.num_over, found.num_harmless) == (4, 5, 3, 4)
    assert found.upper == pytest.approx(5.0, abs=0.002)
    assert found.upper < 5.0  # at 5 itself the second one is lost
    assert found.lower == pytest.approx(2.0, abs=0.002)
    assert [point.kept for point in found.curve] == [1.0, 1.0, 0.75, 0.5]
    assert [point.harmful for point in found.curve] == [1.0, 0.8, 0.6, 0.4]
    assert [point.harmless for point in found.curve] == [0.75, 0.5, 0.25, 0.0]
    assert not found.empty
    assert calibrate_margins(harmless, harmful, keep=0.76).upper == pytest.approx(2.5, abs=0.002)


numbers = st.integers(-40, 40).map(lambda number: number / 8)


@settings(max_examples=60, deadline=None)
@given(
    harmful=st.lists(st.tuples(numbers, numbers), max_size=12),
    harmless=st.lists(st.tuples(numbers, numbers), max_size=12),
    keep=st.sampled_from([0.3, 0.5, 0.9, 0.99, 1.0]),
)
def test_bounds_equal_a_scan_of_strengths(harmful, harmless, keep):
    found = calibrate_margins(side(*harmless), side(*harmful), keep=keep)
    if any(m > 0 for m, _ in harmful):
        enough = [alpha for alpha in GRID if kept_share(harmful, alpha) >= keep]
        assert kept_share(harmful, found.upper) >= keep
        assert max(enough) <= found.upper + 0.002
        assert found.upper - 0.012 <= max(enough) or found.upper > GRID[-1]
    else:
        assert found.upper is None
    if any(m + d > 0 for m, d in harmless):
        whole = [step / 100 for step in range(1001)]
        freed = [alpha for alpha in whole if released_share(harmless, alpha) >= 0.5]
        if freed:
            assert released_share(harmless, found.lower) >= 0.5
            assert found.lower - 0.002 <= min(freed) <= found.lower + 0.012
        else:
            assert found.lower is None or found.lower > 10
    else:
        assert found.lower is None


def test_a_push_of_nothing_is_kept_at_every_strength():
    found = calibrate_margins(side(), side((1e-9, 0.0), (2.0, -3.0)), keep=1.0)
    assert found.upper == MAX_ALPHA
    assert any("cannot show a loss" in line for line in found.warnings)


def test_a_margin_of_zero_is_no_refusal():
    found = calibrate_margins(side((-2.0, 2.0)), side((0.0, 1.0)))
    assert (found.num_true, found.num_over) == (0, 0)
    assert refused_at(side((0.0, 0.0)), 2.5) == [False]


def test_infinite_margins_are_very_large_ones():
    inf = math.inf
    harmful = SideMargins((inf, 3.0, inf, -inf), (inf, inf, -inf, inf))
    found = calibrate_margins(side(), harmful, keep=0.6)
    assert found.num_true == 3
    assert found.upper == MAX_ALPHA
    assert calibrate_margins(side(), harmful, keep=0.99).upper == 1.0
    assert all(0.0 <= point.kept <= 1.0 for point in found.curve)


def test_ties_are_lost_together():
    found = calibrate_margins(side(), side(*[(3.0, 2.0)] * 10, (30.0, 2.0)), keep=0.5)
    assert found.upper == pytest.approx(2.5, abs=0.002)
    assert kept_share([(3.0, 2.0)] * 10 + [(30.0, 2.0)], found.upper) == 1.0
    assert strength_that_keeps([2.5] * 4, 0.25) == strength_that_keeps([2.5] * 4, 1.0)


def test_warnings_name_what_is_wrong():
    few = calibrate_margins(side((1.0, 1.0)), side((3.0, 4.0)))
    text = " / ".join(few.warnings)
    assert "alpha 2.5 is outside: it keeps 0.0% of the true refusals" in text
    assert "only 1 true refusals" in text
    assert "weakest one alone" in text
    none = calibrate_margins(side((-3.0, 1.0)), side((-1.0, 4.0)))
    text = " / ".join(none.warnings)
    assert none.upper is None
    assert none.empty
    assert "refuses none of 1 harmful" in text
    assert "refuses no harmless" in text
    assert "no harmful questions" in calibrate_margins(side(), side()).warnings[0]
    conflict = calibrate_margins(side((4.0, 1.0)), side(*[(1.0, 1.0)] * 40))
    assert any("no alpha both" in line for line in conflict.warnings)
    weak = calibrate_margins(side(), side(*[(9.0, 1.0)] * 40, *[(-1.0, 1.0)] * 60))
    assert any("refuses only 40 of 100" in line for line in weak.warnings)
    good = calibrate_margins(
        side((1.0, 1.0)), side(*[(5.0, 1.0)] * 198, *[(2.0, 1.0)] * 2), alpha=2.5
    )
    assert good.warnings == ()
    assert good.upper == pytest.approx(6.0, abs=0.002)


def test_the_interval_holds_the_bound_and_narrows_with_questions():
    rng = np.random.default_rng(0)

    def width(count):
        pairs = zip(rng.uniform(1, 9, count), rng.uniform(1, 3, count), strict=True)
        found = calibrate_margins(side(), side(*pairs), keep=0.9, seed=1)
        low, high = found.upper_interval
        assert low <= found.upper <= high
        return high - low

    assert width(400) < width(25)
    one = calibrate_margins(side(), side((3.0, 2.0)))
    assert all(math.isnan(bound) for bound in one.upper_interval)


def test_bad_margins_are_refused():
    with pytest.raises(DataError, match="NaN"):
        calibrate_margins(side(), SideMargins((math.nan,), (1.0,)))
    with pytest.raises(DataError, match="one of each"):
        calibrate_margins(side(), SideMargins((1.0, 2.0), (1.0,)))
    with pytest.raises(DataError, match="keep=0"):
        calibrate_margins(side(), side(), keep=0.0)


# with a model


CONFIG = SelfCDConfig(
    openings=OpeningsConfig(refusal=("N",), answer=("S",)), prompts=PromptConfig(safety="Careful.")
)


def test_the_rule_tells_the_first_token_of_the_contrast():
    """One-token openings: refused means that the refusal's logit is above the answer's."""
    tokenizer = make_tokenizer()
    model = tiny_llama(len(tokenizer), initializer_range=0.4)
    config = SelfCDConfig(
        openings=OpeningsConfig(refusal=("sorry",), answer=("sure",)),
        prompts=PromptConfig(safety="SAFE SAFE SAFE SAFE"),
    )
    queries = [
        f"how to {verb} {thing} ?" for verb in ("kill", "hit") for thing in ("photo", "rope")
    ]
    measured = measure(model, tokenizer, queries, config)
    prompter = Prompter(tokenizer, config.prompts)
    paired = Paired(model, [prompter.contexts(query) for query in queries])
    refusal, answer = tokenizer.convert_tokens_to_ids(["sorry", "sure"])
    for alpha in (0.0, 0.5, 1.0, 2.5, 6.0):
        strengths = torch.full((len(queries),), alpha)
        z_BV = combine(paired.emphasis_BV, paired.plain_BV, strengths)
        expected = (z_BV[:, refusal] - z_BV[:, answer]).tolist()
        assert margins_at(measured.plain, measured.emphasis, alpha) == pytest.approx(
            expected, abs=1e-4
        )


def test_calibrate_takes_texts_and_items():
    model, tokenizer = chat_model()
    texts = [f"how do I kill process {number}?" for number in range(6)]
    items = [Item(f"x/{number}", "x", "harmful", text) for number, text in enumerate(texts)]
    first = calibrate(model, tokenizer, texts, texts, CONFIG, keep=0.5)
    again = calibrate(model, tokenizer, items, items, CONFIG, keep=0.5, batch_size=1)
    assert first.num_harmful == 6
    assert first.num_true == again.num_true
    measured = measure(model, tokenizer, texts, CONFIG)
    whole = calibrate_margins(measured, measured, keep=0.5)
    assert first.upper == whole.upper
    assert first.num_true == sum(margin > 0 for margin in measured.plain)


def test_turns_of_an_item_are_read():
    model, tokenizer = chat_model()
    bare = Item("x/0", "x", "harmful", "how?")
    told = Item("x/0", "x", "harmful", "how?", turns=(("hello", "good day"),))
    found = measure(model, tokenizer, [bare, told], CONFIG)
    assert found.plain[0] != pytest.approx(found.plain[1], abs=1e-4)
