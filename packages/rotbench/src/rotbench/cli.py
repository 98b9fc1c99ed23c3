"""The command `rotbench`. No torch here."""

from papercore.cli import About, App, Verb
from papercore.verbs import standard_verbs

EXTRA = "pip install 'rotbench[{}]'"

APP = App(
    name="rotbench",
    package="rotbench",
    summary="how robust a model's tool calls are when tools and parameters change their names",
    about=About(
        paper=(
            "RoTBench: A Multi-Level Benchmark for Evaluating the Robustness of Large Language "
            "Models in Tool Learning"
        ),
        arxiv="2401.08326",
        what=(
            "A model that calls tools should read what they do, not trust their names. RoTBench\n"
            "disturbs the names of tools and parameters at five levels, asks for one call each\n"
            "time, and scores the tool, the parameters and the values. The noise works on your\n"
            "own tools too, and RoTTuning trains a model to bear it."
        ),
        devices="CPU; a GPU through transformers or vLLM; any OpenAI-compatible endpoint",
        optional={
            "torch": EXTRA.format("local"),
            "transformers": EXTRA.format("local"),
            "trl": EXTRA.format("train"),
            "peft": EXTRA.format("train"),
            "vllm": EXTRA.format("vllm"),
            "inspect_ai": EXTRA.format("inspect"),
        },
    ),
    verbs=(
        Verb(
            "data",
            "check the released files and install them into the user's cache",
            config="rotbench.config:DataConfig",
            run="rotbench.data_command:run",
        ),
        Verb(
            "noise",
            "disturb the names in a list of tools of your own",
            config="rotbench.config:NoiseConfig",
            run="rotbench.noise_command:run",
        ),
        Verb(
            "eval",
            "let a model or a baseline answer the cases, and score it",
            config="rotbench.config:EvalConfig",
            presets="rotbench.presets:EVAL",
            run="rotbench.evaluate:run",
            estimate="rotbench.estimate:evaluate",
        ),
        Verb(
            "score",
            "score answers that were written elsewhere",
            config="rotbench.config:ScoreConfig",
            run="rotbench.score_command:run",
        ),
        Verb(
            "compare",
            "test two runs against each other, case by case",
            config="rotbench.config:CompareConfig",
            run="rotbench.compare_command:run",
        ),
        Verb(
            "augment",
            "rewrite tool-use trajectories into the five environments (RoTTuning)",
            config="rotbench.config:AugmentConfig",
            presets="rotbench.presets:AUGMENT",
            run="rotbench.augment_command:run",
        ),
        Verb(
            "train",
            "tune a model with LoRA on augmented trajectories (RoTTuning)",
            config="rotbench.config:TrainConfig",
            presets="rotbench.presets:TRAIN",
            run="rotbench.train:run",
            estimate="rotbench.estimate:train",
        ),
        Verb(
            "expand",
            "let a model write new queries for an environment of tools",
            config="rotbench.config:ExpandConfig",
            presets="rotbench.presets:EXPAND",
            run="rotbench.expand:run",
            estimate="rotbench.estimate:expand",
        ),
        *standard_verbs(),
    ),
)


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit(APP.main())
