"""Settings of the method and of the commands. No torch here.

config = SelfCDConfig(alpha=2.5)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

import tyro
from pydantic import Field, model_validator

from papercore.config import Config, RunConfig
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.types import SamplingParams

Method: TypeAlias = Literal["self-cd", "safety", "plain", "prompt", "icl", "cot-zero", "cot-few"]
"""`self-cd` contrasts the contexts of `safety` and `plain`; the others are the paper's baselines,
each with one context."""

METHODS: tuple[Method, ...] = ("safety", "plain", "prompt", "icl", "cot-zero", "cot-few", "self-cd")

Perturbation: TypeAlias = Literal["question", "instruction", "demonstration"]
"""Where the paper's perturbation studies put a harmful word."""

JudgeName: TypeAlias = Literal["keyword", "classifier", "llm"]

MAX_ALPHA = 100.0
"""Beyond this the rounding of the model's logits is all that is left."""


class PromptConfig(Config):
    """How a question becomes a model's context. The texts are our own wording."""

    safety: str | None = Field(default=None, min_length=1)
    """System prompt that stresses safety; None takes ours, which says in other words what the first
    sentences of LLaMA-2's public default system prompt say. Give that prompt here to be exact."""
    helpful: str | None = Field(default=None, min_length=1)
    """System prompt of the baseline `prompt`; None takes ours, which puts helpfulness first."""
    plain_system: Literal["auto", "absent", "empty"] = "auto"
    """What stands for no system prompt: no message at all, or an empty one. `auto` is an empty one
    where the chat template would put in a default system prompt by itself."""
    system_role: Literal["auto", "system", "user"] = "auto"
    """`user` puts the system prompt in front of the question, for models without a system role;
    `auto` looks whether the template has one."""
    shots_system: Literal["safety", "plain"] = "safety"
    """Context of the baselines icl, cot-zero and cot-few. The paper compares them with 54.4 %,
    which is the safety prompt's."""
    icl_encoder: str | None = None
    """Encoder (hub id or folder) that finds the most similar question for `icl`, as SimCSE does in
    the paper; None compares words."""


class OpeningsConfig(Config):
    """Texts that a refusal and an answer begin with. Their odds are the refusal margin."""

    refusal: tuple[str, ...] = Field(
        default=("I cannot", "I can't", "I'm sorry", "Sorry", "I am sorry", "I apologize", "As an"),
        min_length=1,
    )
    """Beginnings of a refusal."""
    answer: tuple[str, ...] = Field(
        default=("Sure", "Here", "To ", "The ", "You can", "There are", "Yes", "1."), min_length=1
    )
    """Beginnings of an answer."""

    @model_validator(mode="after")
    def _differ(self) -> OpeningsConfig:
        both = sorted(set(self.refusal) & set(self.answer))
        if both:
            raise ValueError(f"openings: {both[0]!r} is both a refusal and an answer")
        if any(not text.strip() for text in (*self.refusal, *self.answer)):
            raise ValueError("openings: an opening is empty")
        return self


class SelfCDConfig(Config):
    """How the two contexts are contrasted. The defaults are the method.

    Source: 2401.17633, official script. y are the logits with the safety prompt, y' those without:
    z = y - alpha (y - y').
    """

    alpha: float = Field(default=2.5, ge=0.0, le=MAX_ALPHA, allow_inf_nan=False)
    """Strength. 0 is the safety prompt alone, 1 no safety prompt, above 1 moves away from it.
    Source: official `ratio` 2.5, which the paper recommends for all models."""
    schedule: tuple[Annotated[float, Field(ge=0.0, le=MAX_ALPHA, allow_inf_nan=False)], ...] = ()
    """Strengths of the first tokens; `alpha` follows. Not in the paper."""
    beta: float = Field(default=0.0, ge=0.0, le=1.0)
    """Keep only tokens whose plain probability is at least this share of the largest one; 0 keeps
    all. Not in the paper; AdaCD has 0.01."""
    first_steps: int | None = Field(default=None, ge=1)
    """Contrast only so many tokens, then go on in the plain context. AdaCD: 10; paper: all."""
    adaptive: float | None = Field(default=None, gt=0.0, le=1.0)
    """At a token where both contexts agree this much, move towards the safety prompt instead: the
    reciprocal rank of the safety prompt's best token in the plain context reaches it, and so does
    the ratio of their best probabilities. Not in the paper; AdaCD has 0.9."""
    guard: float | None = Field(default=None, allow_inf_nan=False)
    """Do not contrast a question that the plain context refuses by more than this margin (see
    `openings`). Not in the paper."""
    openings: OpeningsConfig = OpeningsConfig()
    """How a refusal and an answer begin: what `guard` and `calibrate` measure by."""
    prompts: PromptConfig = PromptConfig()
    """The two contexts."""
    float32_head: bool = True
    """Compute the logits in float32 even if the model is in bfloat16 or float16, whose rounding is
    as large as the differences that are amplified. Costs a float32 copy of the output head."""
    share_prefix: bool = True
    """Read the beginning that all contexts of a kind have in common once, not once per question."""

    @model_validator(mode="after")
    def _fits(self) -> SelfCDConfig:
        if self.first_steps is not None and len(self.schedule) > self.first_steps:
            raise ValueError(
                f"schedule has {len(self.schedule)} strengths but first_steps={self.first_steps}: "
                "the later ones would not be used"
            )
        return self

    def scheduled(self, step: int) -> float | None:
        """Strength that the schedule has for a token, counted from 0; None behind its end."""
        return self.schedule[step] if step < len(self.schedule) else None


class ModelRunConfig(RunConfig):
    """What every command that loads a model has."""

    how: ClassVar[frozenset[str]] = frozenset({"batch_size", "flush_every"})

    model: str = "Qwen/Qwen3-4B-Instruct-2507"
    """Hub id, local folder, or tiny:self-cd (the miniature's model, after `self-cd mini`)."""
    contrast: Annotated[SelfCDConfig, tyro.conf.arg(name="")] = SelfCDConfig()
    """Settings of the method."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the weights with bitsandbytes."""
    adapter: str | None = None
    """A peft adapter: folder or hub id."""
    batch_size: int | None = Field(default=None, ge=1)
    """Questions at once; None starts at 64 and halves whenever memory is short."""
    flush_every: int = Field(default=64, ge=1)
    """Questions from one write to the run folder to the next."""
    max_context: int | None = Field(default=None, ge=2)
    """Prompt and answer in tokens; None takes what the model's config says."""


class AnswerConfig(ModelRunConfig):
    """A command that writes answers."""

    max_new_tokens: int = Field(default=200, ge=1)
    """Tokens of an answer at most. Source: official script."""
    temperature: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """0 is greedy, as in the paper."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Keep the smallest set of tokens with this probability; after the contrast."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep this many tokens; after the contrast."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts before which an answer ends."""

    @property
    def sampling(self) -> SamplingParams:
        """How to choose tokens, as backends take it."""
        return SamplingParams(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=self.stop,
        )


class QueryConfig(AnswerConfig):
    """A command about one question."""

    query: str | None = None
    """The question."""
    query_file: Path | None = None
    """A UTF-8 text file with the question; line ends at its end are cut."""

    @model_validator(mode="after")
    def _one_query(self) -> QueryConfig:
        if self.query is not None and self.query_file is not None:
            raise ValueError("give --query or --query-file, not both")
        if self.limit is not None:
            raise ValueError("limit counts questions, and here there is one: leave it out")
        return self


class GenerateConfig(QueryConfig):
    """`self-cd generate`: answer one question."""

    method: Method = "self-cd"
    """Who answers."""
    i_know: bool = False
    """Allow an alpha above the bound that `self-cd calibrate` found for this model."""


class TraceConfig(QueryConfig):
    """`self-cd trace`: both contexts and their contrast, token by token."""

    top: int = Field(default=5, ge=1, le=100)
    """How many candidates of each token are kept."""


class CheckedConfig(AnswerConfig):
    """A command that answers whole data sets, harmless and harmful ones side by side."""

    data: tuple[str, ...] = Field(default=("sample",), min_length=1)
    """Data sets: `sample`, an installed one, or <format>:<path>; `self-cd data` lists them. Without
    a harmful one among them the harmful questions of `sample` are added."""


class RunAnswersConfig(CheckedConfig):
    """`self-cd run`: answer data sets by one method."""

    method: Method = "self-cd"
    """Who answers."""
    i_know: bool = False
    """Allow an alpha above the bound that `self-cd calibrate` found for this model."""
    perturb: Perturbation | None = None
    """Disturb the questions, or what stands around them, as in the paper's perturbation studies."""
    handoff: str | None = None
    """With --first-steps: who goes on after them in the plain context, such as vllm:<id or dir>.
    Approximate: the backends round differently."""
    endpoint: EndpointConfig = EndpointConfig()
    """For baselines on an openai: model."""

    @model_validator(mode="after")
    def _handoff_fits(self) -> RunAnswersConfig:
        if self.handoff is not None and self.contrast.first_steps is None:
            raise ValueError("handoff needs first_steps: after how many tokens to hand over")
        if self.handoff is not None and self.method != "self-cd":
            raise ValueError(f"handoff is for method self-cd, not {self.method}")
        return self


class SweepConfig(CheckedConfig):
    """`self-cd sweep`: one run for many strengths; each question is read once for all of them."""

    alphas: tuple[Annotated[float, Field(ge=0.0, le=MAX_ALPHA, allow_inf_nan=False)], ...] = Field(
        default=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), min_length=1
    )
    """Strengths. Source: the paper's sweep has 0.5 to 3."""

    @model_validator(mode="after")
    def _different(self) -> SweepConfig:
        shown = [f"{alpha:g}" for alpha in self.alphas]  # as records and figures name them
        if len(set(shown)) != len(shown):
            raise ValueError("alphas: the same strength is there twice, to six digits")
        return self


class CalibrateConfig(ModelRunConfig):
    """`self-cd calibrate`: which strengths keep the refusals of harmful questions."""

    data: tuple[str, ...] = Field(default=("sample",), min_length=1)
    """Data sets with harmless and harmful questions."""
    keep: float = Field(default=0.99, gt=0.0, le=1.0)
    """Share of the true refusals that must be kept."""
    check_tok: int = Field(default=32, ge=0)
    """Tokens of the answers by which the margins' bound is checked; 0 trusts the margins, which see
    the beginning of an answer alone, and only two ways to begin it."""


class AttributeConfig(ModelRunConfig):
    """`self-cd attribute`: how strongly each layer's focus word drives the refusal."""

    data: tuple[str, ...] = Field(default=("sample",), min_length=1)
    """Data sets with focus words."""
    target: Literal["answer", "refusal"] = "answer"
    """Whose loss is explained: that of the model's own answer, or of a fixed refusal."""
    target_tok: int = Field(default=4, ge=1)
    """First tokens of the target that bear loss. The paper's number is not known; ours."""
    refusal: str = Field(default="I cannot help with that.", min_length=1)
    """The fixed refusal; its perplexity is measured in both contexts."""


class JudgeConfig(RunConfig):
    """`self-cd judge`: judge the answers of runs, and how far judges agree."""

    # a sheet that comes back is one more judge of the same answers
    how: ClassVar[frozenset[str]] = frozenset({"batch_size", "write_sheet", "sheets"})

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of `run` or `sweep`."""
    judges: tuple[JudgeName, ...] = Field(default=("keyword",), min_length=1)
    """Who judges; with two or more their agreement is reported."""
    classifier: str | None = None
    """Model of the judge `classifier`: a sequence classifier, hub id or folder."""
    refusal_labels: tuple[str, ...] = ("refusal", "rejection", "refuse")
    """Labels of the classifier that mean a refusal; letter case does not matter."""
    model: str | None = None
    """Model of the judge `llm`: any model reference."""
    helpfulness: bool = False
    """Also let the judge `llm` rate the helpfulness of complied answers from 1 to 5."""
    endpoint: EndpointConfig = EndpointConfig()
    """For an openai: model."""
    batch_size: int | None = Field(default=None, ge=1)
    """Answers at once."""
    write_sheet: Path | None = None
    """Write a CSV sheet for people to judge, in shuffled order and without method and data set."""
    sheets: tuple[Path, ...] = ()
    """Filled sheets to read; each is one more judge."""

    @model_validator(mode="after")
    def _judges_have_models(self) -> JudgeConfig:
        if not self.runs:
            raise ValueError("there is no run to judge: give one folder or more")
        if "classifier" in self.judges and self.classifier is None:
            raise ValueError("the judge classifier needs --classifier MODEL")
        if "llm" in self.judges and self.model is None:
            raise ValueError("the judge llm needs --model REF")
        if self.helpfulness and "llm" not in self.judges:
            raise ValueError("helpfulness is rated by the judge llm: add it to --judges")
        return self


class DataConfig(Config):
    """`self-cd data`: what data sets there are, and installing one."""

    name: str | None = None
    """Data set to install or to look at."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Install it from this file, or from hf:<owner>/<name>/<file> on the hub."""
    unverified: bool = False
    """Accept a file whose hash is not that of the released one."""
    data: tuple[str, ...] = ()
    """Data references to check and describe."""


class TableConfig(Config):
    """`self-cd table`: runs side by side."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of `run`, `sweep` or `judge`."""
    judge: str = "keyword"
    """Whose verdicts to count, where runs were judged by several."""
    markdown: bool = False
    """Print a Markdown table."""
    csv: Path | None = None
    """Write the table to this file, too."""

    @model_validator(mode="after")
    def _has_runs(self) -> TableConfig:
        if not self.runs:
            raise ValueError("there is no run to show: give one folder or more")
        return self
