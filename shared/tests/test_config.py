import hashlib
import math
import tomllib
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from papercore.config import (
    Config,
    MiniConfig,
    RunConfig,
    RunFlags,
    config_hash,
    differences,
    merge,
    operational,
    plain,
    resolve,
    to_toml,
    validate,
)
from papercore.errors import ConfigError


class Inner(Config):
    k: int = Field(default=3, gt=0)
    path: Path = Path("a/../b")
    words: tuple[str, ...] = ("x",)


class Outer(RunConfig):
    inner: Inner = Inner()
    maybe: Inner | None = None
    rate: float = 1.0
    scale: Literal["small", "large"] = "small"
    sizes: dict[str, int] = Field(default_factory=dict)


def write(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_file_lies_on_preset_and_leaves_the_rest_of_a_table(tmp_path):
    preset = Outer(inner=Inner(k=7, words=("a", "b")), seed=5)
    config = resolve(Outer, preset=preset, files=[write(tmp_path, "[inner]\nk = 9\n")])
    assert (config.inner.k, config.inner.words, config.seed) == (9, ("a", "b"), 5)


def test_a_later_file_wins(tmp_path):
    first = write(tmp_path, "seed = 1\nrate = 2.5\n")
    second = tmp_path / "second.toml"
    second.write_text("seed = 2\n")
    config = resolve(Outer, files=[first, second])
    assert (config.seed, config.rate) == (2, 2.5)


def test_merged_settings_are_validated(tmp_path):
    with pytest.raises(ConfigError, match=r"inner\.k: 0 is not allowed: .*greater than 0"):
        resolve(Outer, preset=Outer(), files=[write(tmp_path, "inner.k = 0")])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sede = 1", ["sede: no such setting", "did you mean 'seed'?"]),
        ("inner.kk = 1", ["inner.kk: no such setting", "did you mean 'k'?", "path"]),
        ("maybe.kk = 1", ["maybe.kk: no such setting", "did you mean 'k'?"]),
        ('inner.k = "3"', ["inner.k: '3' is not allowed", "valid integer"]),
        ("seed = true", ["seed: true is not allowed", "valid integer"]),
        ("seed = -1", ["seed: -1 is not allowed"]),
        ("limit = 0", ["limit: 0 is not allowed", "greater than 0"]),
        ('scale = "larg"', ["'larg' is not allowed", "small, large", "did you mean 'large'?"]),
        ('inner.words = ["a", 3]', ["inner.words.1: 3 is not allowed"]),
        ("inner = 3", ["inner: 3 is not allowed"]),
        ('sizes.a = "x"', ["sizes.a: 'x' is not allowed"]),
    ],
)
def test_a_bad_setting_gives_one_line(tmp_path, text, parts):
    with pytest.raises(ConfigError) as info:
        resolve(Outer, files=[write(tmp_path, text)])
    message = str(info.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert "http" not in message
    assert "mine.toml" in message


def test_several_bad_settings_are_counted():
    with pytest.raises(ConfigError, match=r"sede: no such setting.*\(and 1 more\)"):
        validate(Outer, {"rate": "fast", "sede": 1})


def test_a_missing_file_and_a_broken_file_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such config file"):
        resolve(Outer, files=[tmp_path / "nowhere.toml"])
    with pytest.raises(ConfigError, match="is not TOML"):
        resolve(Outer, files=[write(tmp_path, "seed = = 1")])


def test_paths_are_kept_as_given():
    assert str(validate(Outer, {"inner": {"path": "x/../y"}}).inner.path) == "x/../y"


def test_resume_and_overwrite_exclude_each_other():
    with pytest.raises(ConfigError, match="give one of them"):
        validate(RunFlags, {"resume": True, "overwrite": True})


def test_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        MiniConfig().seed = 3


def test_hash_is_the_same_on_every_machine():
    # Written out: a change means that no older run can be resumed.
    canonical = (
        '{"config":{"ablate":false,"quick":false,"seed":3},'
        '"data":null,"kind":"MiniConfig","version":"1.0.0"}'
    )
    expected = hashlib.sha256(canonical.encode()).hexdigest()
    assert config_hash(MiniConfig(seed=3), version="1.0.0") == expected


def test_hash_sees_every_part():
    base = config_hash(Outer(), version="1")
    others = [
        config_hash(Outer(seed=1), version="1"),
        config_hash(Outer(inner=Inner(k=4)), version="1"),
        config_hash(Outer(), version="2"),
        config_hash(Outer(), version="1", data_hash="d"),
        config_hash(MiniConfig(), version="1"),
    ]
    assert len({base, *others}) == 6
    assert config_hash(Outer(rate=1), version="1") == base
    assert config_hash(Outer(sizes={"a": 1, "b": 2}), version="1") == config_hash(
        Outer(sizes={"b": 2, "a": 1}), version="1"
    )


def test_hash_of_nan_and_infinity_is_defined():
    digests = {config_hash(Outer(rate=rate), version="1") for rate in (math.nan, math.inf)}
    assert len(digests) == 2


def test_differences_name_dotted_keys():
    changed = differences(plain(Outer()), plain(Outer(inner=Inner(k=4), maybe=Inner())))
    assert changed[:2] == ["inner.k: 3 -> 4", "maybe: null -> (absent)"]


keys = st.text("abc", min_size=1, max_size=2)
tables = st.recursive(
    st.dictionaries(keys, st.integers(), max_size=3),
    lambda inner: st.dictionaries(keys, st.integers() | inner, max_size=3),
    max_leaves=8,
)


@given(tables)
def test_merging_nothing_or_itself_changes_nothing(table):
    assert merge(table, {}) == merge({}, table) == merge(table, table) == table


@given(tables, tables, tables)
def test_merging_in_two_steps_is_merging_the_overlays_first(base, middle, top):
    def kinds_agree(a, b):
        shared = a.keys() & b.keys()
        return all(
            isinstance(a[k], dict) == isinstance(b[k], dict)
            and (not isinstance(a[k], dict) or kinds_agree(a[k], b[k]))
            for k in shared
        )

    if kinds_agree(base, middle) and kinds_agree(middle, top) and kinds_agree(base, top):
        assert merge(merge(base, middle), top) == merge(base, merge(middle, top))


@given(tables, tables)
def test_merge_leaves_its_arguments_alone(base, over):
    before = repr((base, over))
    merge(base, over)
    assert repr((base, over)) == before


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
outers = st.builds(
    Outer,
    seed=st.integers(0, 2**31),
    inner=st.builds(
        Inner,
        k=st.integers(1, 99),
        path=st.just(Path("p q/é")),
        words=st.lists(texts, max_size=3).map(tuple),
    ),
    maybe=st.none() | st.builds(Inner, k=st.integers(1, 9)),
    rate=st.floats(allow_nan=False),
    sizes=st.dictionaries(texts, st.integers(-5, 5), max_size=3),
)


@given(outers)
def test_printed_toml_reads_back_to_the_same_config(config):
    assert validate(Outer, tomllib.loads(to_toml(config))) == config


@given(outers)
def test_validating_a_plain_config_gives_it_back(config):
    again = validate(Outer, plain(config))
    assert again == config
    assert config_hash(again, version="1") == config_hash(config, version="1")


@given(st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=4))
def test_any_settings_are_a_config_or_one_line(settings):
    try:
        assert isinstance(validate(Outer, settings), Outer)
    except ConfigError as error:
        assert "http" not in str(error)  # noqa: PT017 - either outcome is right


class How(Config):
    how: ClassVar[frozenset[str]] = frozenset({"speed"})
    names: tuple[str, ...] = ()
    speed: int = 1


class Holder(Config):
    inner: How = How()


def test_bytes_that_are_no_text_are_refused_by_their_key():
    with pytest.raises(ConfigError, match=r"^inner\.names: .*is no text in UTF-8"):
        validate(Holder, {"inner": {"names": ["a", "b\udcff"]}})


def test_keys_that_say_only_how_to_run():
    assert operational(Holder()) == {"inner.speed"}
