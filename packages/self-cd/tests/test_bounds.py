import json
import os
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from self_cd.bounds import (
    Bound,
    bound_file,
    bound_of,
    check_bound,
    remember_bound,
    warn_above,
    weights_of,
)
from self_cd.config import CalibrateConfig, OpeningsConfig, RunAnswersConfig, SelfCDConfig
from self_cd.mini import tiny_spec


def config(model="owner/model", **changes):
    return CalibrateConfig(model=model, **changes)


def remember(upper=2.1, made=None, digest="d1", model="owner/model", **found):
    found = {"keep": 0.99, "num_true": 40, "data": "q1", **found}
    return remember_bound(model, made or config(), digest, upper, **found)


def bound():
    return bound_of("owner/model", config(), "d1")


def save_weights(folder, content="weights"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(content)


def test_a_bound_comes_back_with_what_it_rests_on(model_cache):
    assert bound() is None
    kept = remember()
    assert kept.path.is_relative_to(model_cache / "self-cd" / "bounds")
    assert kept.bound == bound() == Bound(2.1, 0.99, 40)
    assert kept.num_others == 0
    document = json.loads(kept.path.read_text())
    expected = {"upper": 2.1, "keep": 0.99, "num_true": 40, "data": "q1"}
    assert {name: document[name] for name in expected} == expected


# when it is replaced


def test_few_true_refusals_leave_nothing_and_replace_nothing(model_cache):
    kept = remember(num_true=29)
    assert (kept.bound, kept.num_others, kept.path.exists()) == (None, 0, False)
    assert remember(num_true=30).bound == Bound(2.1, 0.99, 30)
    assert remember(1.0, num_true=29).bound == Bound(2.1, 0.99, 30) == bound()


@pytest.mark.parametrize(
    ("upper", "found", "expected"),
    [
        (3.5, {}, 3.5),  # as much evidence: the later one counts
        (1.5, {}, 1.5),
        (3.5, {"keep": 1.0, "num_true": 41}, 3.5),
        (3.5, {"keep": 0.5}, 2.1),
        (3.5, {"num_true": 39}, 2.1),
        (3.5, {"keep": 1.0, "num_true": 39}, 2.1),
        (3.5, {"keep": 0.5, "num_true": 400}, 2.1),
        (1.5, {"keep": 0.5}, 1.5),  # the smaller one stays, whichever it is
    ],
)
def test_a_bound_is_loosened_only_by_more_evidence(model_cache, upper, found, expected):
    first = remember()
    second = remember(upper, **found)
    assert second.path == first.path
    assert second.bound == bound()
    assert bound().upper == expected
    weaker = found.get("keep", 1.0) < 0.99 or found.get("num_true", 40) < 40
    assert second.num_others == (1 if weaker else 0)


def test_a_weak_small_bound_opens_no_way_to_a_weak_large_one(model_cache):
    remember(2.1)
    assert remember(1.5, keep=0.5, num_true=30).bound == Bound(1.5, 0.5, 30)
    # replaces the second one and not the first
    assert remember(50.0, keep=0.5, num_true=30).bound == Bound(2.1, 0.99, 40)
    final = remember(4.0, keep=0.99, num_true=41)
    assert (final.bound, final.num_others) == (Bound(4.0, 0.99, 41), 0)


ONE = st.tuples(
    st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.sampled_from([0.5, 0.9]), st.sampled_from([30, 60])
)


@given(st.lists(ONE, min_size=1, max_size=5))
def test_the_bound_is_the_smallest_of_those_that_no_later_one_covers(tmp_path_factory, found):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for upper, keep, num_true in found:
            kept = remember(upper, keep=keep, num_true=num_true)
        stay = [
            upper
            for place, (upper, keep, num_true) in enumerate(found)
            if not any(k >= keep and n >= num_true for _, k, n in found[place + 1 :])
        ]
        assert bound().upper == kept.bound.upper == min(stay)
        assert kept.num_others == len(stay) - 1


def test_deleting_the_file_forgets(model_cache):
    remember(1.5)
    remember(3.0, keep=0.5).path.unlink()
    assert bound() is None
    assert remember(3.0, keep=0.5).bound == Bound(3.0, 0.5, 40)


# whose it is


def test_a_bound_belongs_to_model_adapter_quantization_prompts_and_openings(model_cache):
    remember()
    assert bound_of("owner/other", config(), "d1") is None
    assert bound_of("owner/model", config(), "d2") is None
    assert bound_of("owner/model", config(adapter="owner/lora"), "d1") is None
    assert bound_of("owner/model", config(quantization="4bit"), "d1") is None
    for side in ("refusal", "answer"):
        openings = OpeningsConfig(**{side: ("Well",)})
        other = config(contrast=SelfCDConfig(openings=openings))
        assert bound_of("owner/model", other, "d1") is None
    # other commands and other strengths of the same model have it
    other = RunAnswersConfig(model="owner/model", contrast=SelfCDConfig(alpha=1.5), seed=3)
    assert bound_of("owner/model", other, "d1") == Bound(2.1, 0.99, 40)


def test_the_order_of_openings_does_not_matter(model_cache):
    files = {
        bound_file(
            "owner/model",
            config(contrast=SelfCDConfig(openings=OpeningsConfig(refusal=texts))),
            "d1",
        )
        for texts in permutations(("No", "I cannot", "Sorry"))
    }
    assert len(files) == 1


def test_a_folder_is_the_same_from_everywhere(model_cache, tmp_path, monkeypatch):
    folder = tmp_path / "here" / "model"
    save_weights(folder)
    monkeypatch.chdir(tmp_path)
    remember(model="here/model")
    monkeypatch.chdir(tmp_path / "here")
    assert bound_of("model", config(), "d1") == Bound(2.1, 0.99, 40)
    assert bound_of(str(folder), config(), "d1") == Bound(2.1, 0.99, 40)


def retrained(folder):
    """The same name and size, another time: what training on leaves."""
    path = folder / "model.safetensors"
    path.write_text("WEIGHTS")
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


def longer(folder):
    path = folder / "model.safetensors"
    before = path.stat().st_mtime_ns
    path.write_text("weights and more")
    os.utime(path, ns=(before, before))


def another_file(folder):
    (folder / "model-2.safetensors").write_text("")


def other_settings(folder):
    (folder / "config.json").write_text('{"rope_theta": 1}')


@pytest.mark.parametrize("change", [retrained, longer, another_file, other_settings])
@pytest.mark.parametrize("part", ["model", "adapter", "tiny"])
def test_other_weights_in_the_same_folder_have_no_bound(model_cache, tmp_path, part, change):
    folder = tiny_spec(seed=0).directory if part == "tiny" else tmp_path / "weights"
    save_weights(folder)
    model = {"model": str(folder), "adapter": "owner/model", "tiny": "tiny:self-cd"}[part]
    made = config(model, adapter=str(folder) if part == "adapter" else None)
    remember(model=model, made=made)
    (folder / "README.md").write_text("no weights")
    assert bound_of(model, made, "d1") == Bound(2.1, 0.99, 40)
    change(folder)
    assert bound_of(model, made, "d1") is None


def test_hub_models_have_no_fingerprint():
    assert weights_of("owner/model", config()) is None


# what is said


def check(*alphas, i_know=False):
    check_bound(config(), "d1", i_know=i_know, alphas=alphas)


def test_without_a_bound_the_largest_strength_is_warned_about(model_cache, caplog):
    check(1.5, 2.5, 2.0)
    assert "alpha 2.5 is not calibrated for owner/model" in caplog.text
    caplog.clear()
    warn_above(config(), "d1", (99.0,))
    assert not caplog.records


def test_above_the_bound_is_refused_unless_the_user_knows(model_cache, caplog):
    remember(2.1, num_true=140)
    check(2.1, 0.5)
    with pytest.raises(ConfigError) as error:
        check(1.0, 2.100001)
    assert "alpha 2.100001 is above 2.1, up to which owner/model" in str(error.value)
    assert "keeps 99 % of 140 true refusals" in str(error.value)
    assert "--i-know" in str(error.value)
    check(2.2, i_know=True)
    assert not caplog.records


def test_a_warning_names_the_strengths_above(model_cache, caplog):
    remember(2.1)
    warn_above(config(), "d1", (2.1, 1.0))
    assert not caplog.records
    warn_above(config(), "d1", (3.0, 0.5, 2.1, 2.5, 3.0))
    (line,) = [one.getMessage() for one in caplog.records]
    assert line == (
        "alpha 2.5, 3: above 2.1, up to which owner/model keeps 99 % of 40 true refusals"
    )


@pytest.mark.parametrize(
    ("upper", "shown"),
    [(1.7499, "1.749"), (1.0019999, "1.001"), (2.1, "2.1"), (1.001, "1.001"), (100.0, "100")],
)
def test_what_is_shown_is_allowed(model_cache, upper, shown):
    remember(upper)
    with pytest.raises(ConfigError, match=rf"is above {shown}, "):
        check(200.0)
    check(float(shown))


@given(st.floats(1.0, 100.0))
def test_every_bound_is_shown_rounded_down(upper):
    shown = float(Bound(upper, 0.99, 40).shown)
    assert shown <= upper < shown + 0.001 + 1e-12


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"schema": 2, "upper": null, "keep": 1.0, "num_true": 40, "others": []}',
        '{"schema": 2, "upper": 2.1, "keep": 1.0, "others": []}',
        '{"schema": 2, "upper": 2.1, "keep": 1.0, "num_true": 40}',
        '{"schema": 2, "upper": 2.1, "keep": 1.0, "num_true": 40, "others": [{"upper": 1.0}]}',
        '{"schema": 2, "upper": NaN, "keep": 1.0, "num_true": 40, "others": []}',
        '{"schema": 1, "upper": 2.1, "keep": 1.0, "num_true": 40, "others": []}',
    ],
)
def test_a_broken_file_is_named_and_not_written_over(model_cache, content):
    path = remember().path
    path.write_text(content)
    with pytest.raises(DataError, match=path.name):
        bound()
    with pytest.raises(DataError, match=path.name):
        remember()
    assert path.read_text() == content
