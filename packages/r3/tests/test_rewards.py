from __future__ import annotations

import sys

import numpy as np
import pytest

from papercore.errors import ConfigError, DataError
from r3.config import RewardConfig
from r3.demos import Demo
from r3.rewards import Outcome, reward_for

DEMO = Demo(id="1", question="?", target="2 and 2 is 4.\n#### 4", gold="4", answer_at=14)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of rewards; returns what names a function of it."""

    def write(body: str) -> str:
        (tmp_path / "own_rewards.py").write_text(body)
        return "own_rewards:mine"

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    sys.modules.pop("own_rewards", None)


def scored(module, body: str) -> Outcome:
    return reward_for("gsm8k", RewardConfig(function=module(body))).score(DEMO.target, DEMO)


@pytest.mark.parametrize(
    ("task", "text", "gold", "reward"),
    [
        ("gsm8k", "#### 4", "4", 1.0),
        ("gsm8k", "#### 5", "4", 0.2),
        ("gsm8k", "no answer", "4", 0.0),
        ("gsm8k", "#### 4\n#### 5", "4", 0.0),  # two answers are none, not even a wrong one
        ("svamp", "#### 5", "4", 0.1),
        ("mnli", "### neutral", "neutral", 1.0),
        ("mnli", "### entailment", "neutral", 0.0),
        ("world", "3 5", "4", 0.0),
    ],
)
def test_right_wrong_and_unreadable(task, text, gold, reward):
    demo = Demo(id="1", question="?", target="", gold=gold)
    outcome = reward_for(task, RewardConfig())(text, demo)
    assert outcome.reward == reward
    assert outcome.correct is (reward == 1.0)
    assert outcome.error is None


def test_partial_reward_can_be_set():
    outcome = reward_for("gsm8k", RewardConfig(partial=0.5)).score("#### 5", DEMO)
    assert outcome == Outcome(0.5, correct=False, parsed="5")
    assert reward_for("gsm8k", RewardConfig(partial=0.0)).score("#### 5", DEMO).reward == 0.0


def test_prefix_counts_as_part_of_the_rationale():
    reward = reward_for("gsm8k", RewardConfig())
    assert reward.score(DEMO.target[:14] + "#### 4", DEMO).reward == 1.0
    assert reward.score(DEMO.target[:18] + " 4", DEMO).reward == 1.0
    assert reward.score(" 4", DEMO).reward == 0.0


def test_right_answer_that_cannot_be_read_is_an_error_of_the_data():
    demo = Demo(id="1", question="?", target="", gold="many")
    with pytest.raises(DataError, match="'many' cannot be read"):
        reward_for("gsm8k", RewardConfig()).score("#### 4", demo)


def test_own_function_gives_the_reward_and_the_verifier_the_verdict(module):
    body = "def mine(text, demo):\n    return 0.25 * len(demo.gold) + ('4' in text)\n"
    assert scored(module, body) == Outcome(1.25, correct=True, parsed="4")


@pytest.mark.parametrize(("given", "reward"), [("True", 1.0), ("-3", -3.0), ("0", 0.0)])
def test_own_function_may_give_any_number(module, given, reward):
    assert scored(module, f"def mine(text, demo):\n    return {given}\n").reward == reward


def test_numbers_of_numpy_are_numbers(module):
    body = "import numpy as np\ndef mine(text, demo):\n    return np.float32(0.5)\n"
    assert scored(module, body).reward == np.float32(0.5)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("float('nan')", "ValueError: the reward is nan"),
        ("float('-inf')", "ValueError: the reward is -inf"),
        ("None", "TypeError: the reward is a NoneType, not a number"),
        ("'1'", "TypeError: the reward is a str, not a number"),
        ("1j", "TypeError: the reward is a complex, not a number"),
        ("10 ** 400", "OverflowError: int too large to convert to float"),
        ("[][3]", "IndexError: list index out of range"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_own_function_that_fails_is_an_error_of_one_rollout(module, given, error):
    outcome = scored(module, f"def mine(text, demo):\n    return {given}\n")
    assert outcome == Outcome(0.0, correct=True, parsed="4", error=error)


def test_long_errors_are_cut_to_one_short_line(module):
    outcome = scored(module, "def mine(text, demo):\n    raise OSError('a\\nb ' * 500)\n")
    assert outcome.error is not None
    assert outcome.error.startswith("OSError: a b a b")
    assert len(outcome.error) <= 200


def test_error_whose_message_fails_is_described(module):
    body = (
        "class Bad(Exception):\n    def __str__(self):\n        raise ValueError\n"
        "def mine(text, demo):\n    raise Bad\n"
    )
    assert scored(module, body).error == "Bad: (no message)"


def test_interrupt_is_not_swallowed(module):
    with pytest.raises(KeyboardInterrupt):
        scored(module, "def mine(text, demo):\n    raise KeyboardInterrupt\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError: No module named"),
        ("x = 1\n", "own_rewards has no mine"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError"),
        ("mine = 3\n", "is a int, not a function"),
    ],
)
def test_function_that_cannot_be_had_is_refused_in_one_line(module, body, message):
    with pytest.raises(ConfigError, match=message) as caught:
        reward_for("gsm8k", RewardConfig(function=module(body)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reference", ["mine", "own_rewards:", ":mine", ""])
def test_reference_must_name_module_and_function(reference):
    with pytest.raises(ConfigError, match="is not module:function"):
        reward_for("gsm8k", RewardConfig(function=reference))


def test_partial_reward_beside_a_function_is_refused(module):
    function = module("def mine(text, demo):\n    return 1\n")
    with pytest.raises(ConfigError, match=r"partial=0.1 has no effect beside function"):
        reward_for("gsm8k", RewardConfig(function=function, partial=0.1))


def test_a_reward_beyond_the_clip_is_cut_to_it(module):
    module("def mine(text, demo):\n    return float(text)\n")
    config = RewardConfig(function="own_rewards:mine", clip=2.0)
    rewards = [reward_for("gsm8k", config).score(text, DEMO).reward for text in ("1e30", "-9", "1")]
    assert rewards == [2.0, -2.0, 1.0]


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "rewards_of_here.py").write_text("def mine(text, demo):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    reward = reward_for("gsm8k", RewardConfig(function="rewards_of_here:mine"))
    assert reward.score("", DEMO).reward == 1.0


def test_a_function_that_wants_to_end_the_program_fails_for_that_rollout(module):
    module("def mine(text, demo):\n    raise SystemExit(0)\n")
    outcome = reward_for("gsm8k", RewardConfig(function="own_rewards:mine")).score("", DEMO)
    assert outcome.error == "SystemExit: 0"


def test_attribute_may_be_inside_a_class(module):
    module("class Rewards:\n    @staticmethod\n    def mine(text, demo):\n        return 3\n")
    reward = reward_for("gsm8k", RewardConfig(function="own_rewards:Rewards.mine"))
    assert reward.score("", DEMO).reward == 3.0
