from hypothesis import given
from hypothesis import strategies as st

from self_cd.contexts import Contexts
from self_cd.padding import common_prefix, plan

ROW = st.lists(st.integers(1, 3), min_size=1, max_size=8)


@st.composite
def batches(draw: st.DrawFn) -> list[Contexts]:
    starts = draw(st.lists(st.integers(1, 3), max_size=12)), draw(st.lists(st.integers(1, 3)))
    count = draw(st.integers(1, 4))
    rows = [[tuple(start + draw(ROW)) for _ in range(count)] for start in starts]
    return [Contexts(*both) for both in zip(*rows, strict=True)]


@given(batches(), st.booleans())
def test_the_batch_is_an_ordinary_left_padded_one(pairs: list[Contexts], share: bool) -> None:
    layout = plan(pairs, share_prefix=share)
    rows = [pair.emphasis for pair in pairs] + [pair.plain for pair in pairs]
    width = max(map(len, rows))
    for place, (row, fresh) in enumerate(zip(rows, layout.fresh(pad_id=0), strict=True)):
        pad = layout.pads[place]
        prefix = layout.prefixes[place // len(pairs)]
        copied = max(0, layout.cached - pad)
        assert len(prefix) >= copied
        left = [0] * min(pad, layout.cached) + list(prefix[:copied])
        assert left + fresh == [0] * (width - len(row)) + list(row)
        assert fresh or prefix == row, "every row is read at its last token"


@given(batches())
def test_sharing_never_costs_more(pairs: list[Contexts]) -> None:
    def cost(share: bool) -> int:
        layout = plan(pairs, share_prefix=share)
        return sum(map(len, layout.fresh())) + sum(map(len, layout.prefixes))

    assert cost(True) <= cost(False)


def test_an_example_by_hand() -> None:
    pairs = [Contexts((1, 1, 1, 7, 8), (2, 7, 8)), Contexts((1, 1, 1, 9), (2, 9))]
    layout = plan(pairs, share_prefix=True)
    assert layout.pads == [0, 1, 2, 3]
    assert layout.cached == 3
    assert layout.prefixes == ((1, 1, 1), (2,))
    assert layout.fresh() == [[7, 8], [1, 9], [7, 8], [2, 9]]


def test_a_pair_alone_is_read_without_padding() -> None:
    layout = plan([Contexts((1, 1, 1, 7, 8), (2, 7, 8))], share_prefix=True)
    assert layout.prefixes == ((1, 1, 1, 7, 8), (2, 7, 8))
    assert layout.cached == layout.width == 5
    assert layout.fresh() == [[], []]


def test_forward_passes_have_a_price() -> None:
    pairs = [Contexts((*[1] * 30, 7), (2, 7)), Contexts((*[1] * 30, 9), (2, 9))]
    assert plan(pairs, share_prefix=True, pass_tok=40).cached  # spares 4 * 30 - 31 tokens
    assert not plan(pairs, share_prefix=True, pass_tok=50).cached


def test_prefixes() -> None:
    assert common_prefix([(1, 2, 3), (1, 2, 3, 4)]) == (1, 2)
    assert common_prefix([(1, 2, 3), (1, 2, 3)]) == (1, 2, 3)
    assert common_prefix([(1,), (1, 2)]) == ()
    assert common_prefix([(1, 2, 9), (1, 3, 9)]) == (1,)
