import json
import re

from hypothesis import given
from hypothesis import strategies as st

from rotbench.cases import Tool
from rotbench.native import Toolbox, legal_names

LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
names = st.lists(
    st.one_of(
        st.text(max_size=80),
        st.sampled_from(["a", "a", "b", "", "code:", "a_2", "x" * 64, "x" * 65, "näme"]),
    ),
    max_size=12,
)


@given(names)
def test_legal_names_are_legal_and_differ(wanted):
    found = legal_names(wanted)
    assert len(found) == len(wanted)
    assert len(set(found)) == len(found)
    assert all(LEGAL.fullmatch(name) for name in found)


@given(names)
def test_a_legal_name_keeps_its_first_place(wanted):
    for place, (name, alias) in enumerate(zip(wanted, legal_names(wanted), strict=True)):
        if LEGAL.fullmatch(name) and name not in wanted[:place]:
            assert alias == name


def test_names_that_apis_refuse_get_aliases():
    assert legal_names(["", "code:", "drivers", "drivers", "drivers_2", "a b", "a_b"]) == [
        "unnamed",
        "code_",
        "drivers",
        "drivers_3",
        "drivers_2",
        "a_b_2",
        "a_b",
    ]


TOOLS = (
    Tool("get it", "d", {"code:": {"type": "string"}, "n": {"type": "string"}}, ("code:",)),
    Tool("get it", "e", {"": {"type": "string"}}, ()),
)


def test_specs_have_legal_names_everywhere():
    box = Toolbox.of(TOOLS)
    first, second = box.specs
    assert (first.name, second.name) == ("get_it", "get_it_2")
    assert list(first.parameters["properties"]) == ["code_", "n"]
    assert first.parameters["required"] == ["code_"]
    assert list(second.parameters["properties"]) == ["unnamed"]
    assert box.num_aliases == 4


def test_what_was_disguised_comes_back():
    box = Toolbox.of(TOOLS)
    alias, arguments = box.disguised("get it", {"code:": "x", "n": 1})
    assert (alias, json.loads(arguments)) == ("get_it", {"code_": "x", "n": 1})
    name, own = box.restored((alias, arguments))
    assert (name, json.loads(own)) == ("get it", {"code:": "x", "n": 1})
    assert box.restored(("get_it_2", "{}")) == ("get it", "{}")


def test_only_keys_of_the_object_itself_are_renamed():
    box = Toolbox.of(TOOLS)
    _, own = box.restored(("get_it", '{"code_": {"code_": [1, {"code_": 2}]}}'))
    assert json.loads(own) == {"code:": {"code_": [1, {"code_": 2}]}}


def test_what_cannot_be_read_stays_as_it_was_written():
    box = Toolbox.of(TOOLS)
    deep = '{"code_": ' + "[" * 100_000 + "]" * 100_000 + "}"
    for text in ("", "no json", "[1]", "{", deep, '{"code_": 1} trailing'):
        assert box.restored(("get_it", text)) == ("get it", text)


def test_a_key_that_is_there_twice_is_still_there_twice():
    _, own = Toolbox.of(TOOLS).restored(("get_it", '{"code_": 1, "code_": 2}'))
    assert own == '{"code:": 1, "code:": 2}'


def test_an_invented_name_stays_invented():
    box = Toolbox.of(TOOLS)
    assert box.restored(("nonesuch", '{"code_": 1}')) == ("nonesuch", '{"code_": 1}')
    assert box.disguised("none such", {"a": 1}) == ("none_such", '{"a": 1}')


def test_every_released_call_survives_the_way_there_and_back(released_cases):
    num_aliased = 0
    for case in released_cases:
        box = Toolbox.of(case.tools)
        num_aliased += box.num_aliases > 0
        assert len({spec.name for spec in box.specs}) == len(case.tools)
        for gold in case.golds:
            name, arguments = box.restored(box.disguised(gold.name, gold.arguments))
            assert (name, json.loads(arguments)) == (gold.name, dict(gold.arguments))
    assert 0 < num_aliased < 200, "some names are refused, most are not"
