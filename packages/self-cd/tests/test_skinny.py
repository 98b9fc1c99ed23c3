import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from papercore.testing.models import assert_close, tiny_model
from self_cd.contexts import Contexts
from self_cd.paired import Paired
from self_cd.skinny import SkinnyProducts, is_skinny

WIDE = {"hidden_size": 64, "vocab_size": 4096}  # a head that is worth turning


def products(run) -> list[tuple[int, ...]]:
    """Shapes of the first factors of all matrix products."""
    with torch.profiler.profile(record_shapes=True) as profile:
        run()
    events = profile.events()
    return [tuple(one.input_shapes[0]) for one in events if one.name == "aten::mm"]


@pytest.mark.parametrize("shape", [(2, 512), (2, 1, 512), (1, 3, 512), (3, 1, 1, 512)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_equal_and_turned(shape: tuple[int, ...], bias: bool) -> None:
    layer, states = nn.Linear(512, 600, bias=bias), torch.randn(shape)
    expected = layer(states)

    def turned() -> None:
        with torch.no_grad(), SkinnyProducts():
            found = layer(states)
        assert found.shape == expected.shape
        assert found.is_contiguous()
        assert_close(found, expected, atol=1e-4)

    assert products(turned) == [(600, 512)]


@pytest.mark.parametrize(
    ("rows", "wide", "dtype"),
    [
        (1, 600, torch.float32),
        (4, 600, torch.float32),
        (2, 60, torch.float32),
        (2, 600, torch.bfloat16),
    ],
)
def test_other_products_are_left_alone(rows: int, wide: int, dtype: torch.dtype) -> None:
    states, weight = torch.randn(rows, 512, dtype=dtype), torch.randn(wide, 512, dtype=dtype)
    with SkinnyProducts():
        found = linear(states, weight)
    assert torch.equal(found, linear(states, weight))


def test_it_holds_within_its_block_alone() -> None:
    states, weight = torch.randn(2, 512), torch.randn(600, 512)
    with SkinnyProducts():
        pass
    assert products(lambda: linear(states, weight)) != [(600, 512)]


def test_a_step_of_one_pair_is_skinny_and_right() -> None:
    model = tiny_model("llama", **WIDE)
    paired = Paired(model, [Contexts((1, 2, 3, 4), (3, 4))])
    shapes = products(lambda: paired.step(torch.tensor([5])))
    assert (4096, 64) in shapes
    with torch.no_grad():
        expected = [
            model(torch.tensor([ids])).logits[:, -1] for ids in ([1, 2, 3, 4, 5], [3, 4, 5])
        ]
    assert paired.emphasis_BV is not None
    assert_close(torch.cat([paired.emphasis_BV, paired.plain_BV]), torch.cat(expected), atol=5e-5)


def test_where_it_is_worth_its_price() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [rows for rows in range(1, 9) if is_skinny(rows, cpu)] == [2, 3]
    assert not is_skinny(2, gpu)
