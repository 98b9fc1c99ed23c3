"""The extra kinds of noise: off by default, and as invertible as the rest."""

import random
import re

import pytest

from papercore.errors import ConfigError
from rotbench.cases import HALVES, NOISY_LEVELS
from rotbench.config import NoiseRules
from rotbench.extras import recased, typos
from rotbench.foreign import disturb_tools
from rotbench.noise import added_schema, disturb
from rotbench.rewrite import restore

COMBINATIONS = [(level, half) for level in NOISY_LEVELS for half in HALVES[level]]
ALL = NoiseRules(extra=("casing", "order", "description"))


@pytest.fixture
def clean(sample_cases):
    return [case for case in sample_cases if case.key.level == "clean"]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("get_news", "getNews"),
        ("getNewsNow", "get_news_now"),
        ("a1_b", "a1B"),
        ("news", "news"),
        ("_private_", "_private_"),
        ("", ""),
    ],
)
def test_casing(name, other):
    assert recased(name) == other


def test_casing_reaches_the_names_that_were_left(clean):
    rules = NoiseRules(share=0.0, extra=("casing",))
    for case in clean:
        plain = disturb(case, "medium", "tool", rules=NoiseRules(share=0.0))
        noised = disturb(case, "medium", "tool", rules=rules)
        for before, after in zip(plain.changes.tools, noised.changes.tools, strict=True):
            if before.operator is None and recased(before.old) != before.old:
                assert (after.new, after.operator) == (recased(before.old), "casing")
            else:
                assert after == before


def test_order_keeps_special_tools_last_and_tools_beside_their_origins(clean):
    moved = 0
    for case in clean:
        noisy = disturb(case, "slight", "parameter", rules=NoiseRules(extra=("order",))).case
        assert noisy.tools[-2:] == case.tools[-2:]
        assert {t.description for t in noisy.tools} == {t.description for t in case.tools}
        ours = [tool.description for tool in noisy.tools]
        assert ours == [tool.description for tool in noisy.origin.tools]
        moved += ours != [tool.description for tool in case.tools]
    assert moved > len(clean) / 2


def test_typos_keep_the_letters_and_the_ends_of_words():
    text = "Tells the weather of the coming days; 'metric' or 'imperial'." * 20
    noisy = typos(text, random.Random(0).random)
    assert noisy != text
    swapped = 0
    for old, new in zip(re.findall(r"\w+", text), re.findall(r"\w+", noisy), strict=True):
        assert (old[0], old[-1], sorted(old)) == (new[0], new[-1], sorted(new))
        swapped += old != new
    assert 5 <= swapped <= 40


def test_typos_spare_the_value_that_an_added_parameter_orders(clean):
    rules = NoiseRules(addendum=1.0, addendum_value=40, extra=("description",))
    for case in clean:
        noised = disturb(case, "heavy", "parameter", rules=rules)
        for tool, change in zip(noised.case.tools, noised.changes.tools, strict=True):
            if change.addendum is not None:
                schema = tool.parameters[change.addendum.name]
                assert schema == added_schema(change.addendum)


@pytest.mark.parametrize(("level", "half"), COMBINATIONS)
def test_all_together_can_be_undone(clean, level, half):
    for case in clean:
        noised = disturb(case, level, half, seed=3, rules=ALL)
        again = disturb(case, level, half, seed=3, rules=ALL)
        assert noised == again
        names = [tool.name for tool in noised.case.tools]
        assert len(set(names)) == len(names)
        for before, after in zip(case.golds, noised.case.golds, strict=True):
            assert restore(after, noised.changes) == before
        for before, after in zip(noised.case.origin.tools, noised.case.tools, strict=True):
            assert len(after.parameters) - len(before.parameters) in (0, 1)


def test_tools_of_others_can_have_casing_only():
    tools = [{"name": "get_news", "parameters": {"properties": {"max_items": {}}}}]
    new, _ = disturb_tools(tools, "heavy", "tool", rules=NoiseRules(extra=("casing",)))
    assert new[0]["name"] == "getNews"
    with pytest.raises(ConfigError, match="'order' is for cases"):
        disturb_tools(tools, "heavy", "tool", rules=ALL)
