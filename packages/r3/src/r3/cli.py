"""The command `r3`. No torch here."""

from papercore.cli import About, App, Verb
from papercore.verbs import standard_verbs

APP = App(
    name="r3",
    package="r3",
    summary="reasoning learned by reverse-curriculum RL from outcome rewards alone",
    about=About(
        paper=(
            "Training Large Language Models for Reasoning through Reverse Curriculum"
            " Reinforcement Learning"
        ),
        arxiv="2402.05808",
        what=(
            "A reward for the right answer alone is nearly never earned when a solution has many\n"
            "steps. R3 lets rollouts start inside correct demonstrations, near the answer and\n"
            "farther and farther away from it, so that the same reward teaches every step. It\n"
            "needs the demonstrations that tuning has used anyway, and no labels of steps."
        ),
        devices="CPU (float32), one CUDA GPU, several by accelerate",
        optional={
            "openai": "pip install r3[api] --find-links dist (for `eval` of openai: models)",
            "vllm": "pip install r3[vllm] --find-links dist (for vllm: models and --vllm)",
        },
    ),
    verbs=(
        Verb(
            "prepare",
            "read a data set, check it, split it by question",
            config="r3.config:PrepareConfig",
            presets="r3.presets:PREPARE",
            run="r3.prepare_command:run",
            estimate="r3.estimate:prepare",
        ),
        Verb(
            "sft",
            "tune a model on whole demonstrations",
            config="r3.config:SFTConfig",
            presets="r3.presets:SFT",
            run="r3.sft_command:run",
            estimate="r3.estimate:sft",
        ),
        Verb(
            "train",
            "reinforcement learning from start states inside demonstrations",
            config="r3.config:TrainConfig",
            presets="r3.presets:TRAIN",
            run="r3.train_command:run",
            estimate="r3.estimate:train",
        ),
        Verb(
            "eval",
            "accuracy from the bare question; few-shot baseline",
            config="r3.config:EvalConfig",
            presets="r3.presets:EVAL",
            run="r3.eval_command:run",
            estimate="r3.estimate:evaluate",
        ),
        Verb(
            "rollouts",
            "look at what was generated in training",
            config="r3.config:RolloutsConfig",
            run="r3.rollouts_command:run",
            estimate="r3.estimate:rollouts",
        ),
        *standard_verbs(),
    ),
)


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit(APP.main())
