"""Settings: what a user can get wrong is said in one line; presets hold the paper's values."""

import pytest

from papercore.config import resolve, validate
from papercore.errors import ConfigError
from self_cd import presets
from self_cd.config import (
    JudgeConfig,
    OpeningsConfig,
    RunAnswersConfig,
    SelfCDConfig,
    SweepConfig,
)


@pytest.mark.parametrize("alpha", ["NaN", -0.1, 101.0, "Infinity"])
def test_a_strength_that_is_no_strength_is_refused(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        validate(SelfCDConfig, {"alpha": alpha})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": [1.0, 2.0, 3.0], "first_steps": 2}, "would not be used"),
        ({"schedule": [-1.0]}, "schedule"),
        ({"beta": 1.5}, "beta"),
        ({"first_steps": 0}, "first_steps"),
        ({"adaptive": 0.0}, "adaptive"),
        ({"openings": {"refusal": ["No"], "answer": ["No"]}}, "both a refusal and an answer"),
        ({"openings": {"refusal": [" "]}}, "empty"),
        ({"openings": {"answer": []}}, "answer"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        validate(SelfCDConfig, settings)


def test_the_schedule_comes_before_the_strength():
    config = SelfCDConfig(alpha=2.5, schedule=(1.0, 4.0))
    assert [config.scheduled(step) for step in range(4)] == [1.0, 4.0, None, None]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"handoff": "vllm:a/b"}, "handoff needs first_steps"),
        (
            {"handoff": "vllm:a/b", "contrast": {"first_steps": 3}, "method": "plain"},
            "handoff is for method self-cd",
        ),
        ({"data": []}, "data"),
        ({"method": "magic"}, "one of safety|one of self-cd"),
    ],
)
def test_a_run_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        validate(RunAnswersConfig, settings)


@pytest.mark.parametrize("other", [1.0, 1.0000001])
def test_a_strength_twice_in_a_sweep_is_refused(other):
    with pytest.raises(ConfigError, match="twice"):
        validate(SweepConfig, {"alphas": [1.0, other]})


def test_an_empty_stop_text_is_refused():
    with pytest.raises(ConfigError, match="stop"):
        validate(RunAnswersConfig, {"stop": [""]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judges": ["llm"]}, "--model"),
        ({"judges": ["classifier"]}, "--classifier"),
        ({"helpfulness": True}, "helpfulness"),
    ],
)
def test_a_judge_without_its_model_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        validate(JudgeConfig, {"runs": ["r"], **settings})


def test_the_paper_preset_is_the_paper():
    config = presets.RUN["paper"]
    contrast = config.contrast
    assert (contrast.alpha, config.max_new_tokens, config.temperature) == (2.5, 200, 0.0)
    off = (contrast.beta, contrast.first_steps, contrast.adaptive, contrast.guard)
    assert off == (0.0, None, None, None)
    assert contrast.schedule == ()


@pytest.mark.parametrize(
    "named",
    [
        presets.GENERATE,
        presets.RUN,
        presets.SWEEP,
        presets.CALIBRATE,
        presets.ATTRIBUTE,
        presets.TRACE,
    ],
)
def test_every_verb_has_the_presets_and_they_read_back(named):
    assert set(named) == {"default", "tiny", "paper", "modern"}
    for config in named.values():
        assert resolve(type(config), preset=config) == config


def test_openings_differ():
    assert not set(OpeningsConfig().refusal) & set(OpeningsConfig().answer)
