"""The command `self-cd`. No torch here."""

from papercore.cli import About, App, Verb
from papercore.verbs import standard_verbs

APP = App(
    name="self-cd",
    package="self_cd",
    summary="fewer refusals of harmless questions, by contrasting two system prompts",
    about=About(
        paper="Navigating the OverKill in Large Language Models",
        arxiv="2401.17633",
        what=(
            "A careful model refuses harmless questions that hold a dangerous word, and a system\n"
            "prompt that stresses safety makes it worse. Self-Contrastive Decoding needs no\n"
            "training: at every token it reads the question with and without such a prompt and\n"
            "moves away from what the prompt adds. It also lowers refusals of harmful requests\n"
            "where these are weak: `self-cd calibrate` finds how far a model can be moved."
        ),
        devices="CPU (float32), one CUDA GPU, or several (--device cuda:all)",
        optional={
            "openai": "pip install self-cd[api] (judges and baselines on openai: models)",
            "vllm": "pip install self-cd[vllm] (for --handoff and for vllm: models)",
            "bitsandbytes": "pip install bitsandbytes (for --quantization)",
        },
    ),
    verbs=(
        Verb(
            "data",
            "list, install and check data sets",
            config="self_cd.config:DataConfig",
            run="self_cd.data_command:run",
            estimate="self_cd.estimate:data",
        ),
        Verb(
            "generate",
            "answer one question",
            config="self_cd.config:GenerateConfig",
            presets="self_cd.presets:GENERATE",
            run="self_cd.commands:generate",
            estimate="self_cd.estimate:generate",
        ),
        Verb(
            "run",
            "answer data sets by one method; refusals of both sides",
            config="self_cd.config:RunAnswersConfig",
            presets="self_cd.presets:RUN",
            run="self_cd.commands:run",
            estimate="self_cd.estimate:run",
        ),
        Verb(
            "judge",
            "judge answers by rules, classifier, LLM, people; agreement of judges",
            config="self_cd.config:JudgeConfig",
            run="self_cd.judge_command:run",
            estimate="self_cd.estimate:judge",
        ),
        Verb(
            "sweep",
            "refusals at many strengths, each question read once for all",
            config="self_cd.config:SweepConfig",
            presets="self_cd.presets:SWEEP",
            run="self_cd.commands:sweep",
            estimate="self_cd.estimate:sweep",
        ),
        Verb(
            "calibrate",
            "the strengths that keep a chosen share of true refusals",
            config="self_cd.config:CalibrateConfig",
            presets="self_cd.presets:CALIBRATE",
            run="self_cd.calibrate_command:run",
            estimate="self_cd.estimate:calibrate",
        ),
        Verb(
            "attribute",
            "how the focus word drives the refusal, by layer; perplexity of a refusal",
            config="self_cd.config:AttributeConfig",
            presets="self_cd.presets:ATTRIBUTE",
            run="self_cd.attribute_command:run",
            estimate="self_cd.estimate:attribute",
        ),
        Verb(
            "trace",
            "both contexts and their contrast, token by token",
            config="self_cd.config:TraceConfig",
            presets="self_cd.presets:TRACE",
            run="self_cd.trace_command:run",
            estimate="self_cd.estimate:trace",
        ),
        Verb(
            "table",
            "runs side by side, with intervals and paired differences",
            config="self_cd.config:TableConfig",
            run="self_cd.table_command:run",
            estimate="self_cd.estimate:table",
        ),
        *standard_verbs(),
    ),
)


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit(APP.main())
