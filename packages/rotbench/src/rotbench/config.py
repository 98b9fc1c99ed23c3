"""Settings of the noise and of the commands. No torch here.

rules = NoiseRules(mode="official")
"""

import string
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

import tyro
from pydantic import Field, model_validator

from papercore.config import Config, RunConfig
from papercore.generate.endpoint import EndpointConfig
from rotbench.cases import LEVELS, TURNS, Half, Level, Turn

Mode: TypeAlias = Literal["react", "native", "raven1", "raven2"]
"""How tools are shown and calls are written: text in the released format, the model's own tool
calls, or the Python calls of NexusRaven-13B, versions 1 and 2."""


class NoiseRules(Config):
    """How names are disturbed.

    Source: the official generator; what the paper says and it does not is marked.
    """

    mode: Literal["strict", "official"] = "strict"
    """`official` has the released data's distributions: names may collide or become empty.
    `strict` has neither, changes every gold call, and can be undone."""
    alphabet: str = Field(default=string.ascii_letters, min_length=1)
    """Letters of made-up names. Source: official generator, upper and lower case, no digits."""
    share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the names that is drawn to be changed, rounded up; the gold's come on top. Heavy
    exchanges all names of tools, whatever the share."""
    edits: float = Field(default=1 / 3, gt=0.0, le=1.0)
    """Slight: edits per letter of a name, rounded up, is what the number of edits stays below."""
    nonsense_tool: int = Field(default=10, ge=1)
    """Medium: longest made-up name of a tool."""
    nonsense_parameter: int = Field(default=5, ge=1)
    """Medium: longest made-up name of a parameter; heavy: of an added one."""
    addendum: float = Field(default=0.5, ge=0.0, le=1.0)
    """Heavy: probability that a tool gets an added parameter rather than exchanged names."""
    addendum_value: int = Field(default=3, ge=1)
    """Heavy: longest value of an added parameter."""
    extra: tuple[Literal["casing", "order", "description"], ...] = ()
    """Noise that the paper has not, on top of a level: other casing of names that were left alone,
    tools in another order, typos in descriptions."""


class DataConfig(Config):
    """Settings of `data`."""

    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Install the released files from here: a folder, a .zip or .tar archive, or its https
    address. Without it, say what there is."""
    sha256: str | None = None
    """Checksum of the archive; an address needs it."""
    unverified: bool = False
    """Accept files that are not the released bytes, if their schema is right."""
    data: str = "released"
    """What to look at: `released` is what was installed; or `sample`, or a folder."""
    write_sample: Path | None = None
    """Write the sample into this new folder, as a start for cases of your own."""


class NoiseConfig(Config):
    """Settings of `noise`."""

    tools: tyro.conf.Positional[Path]
    """File with tools: OpenAI tools or functions, an MCP tools/list result, or BFCL lines."""
    answers: Path | None = None
    """BFCL's file of accepted calls; their names are disturbed first, and it is rewritten too."""
    level: Level | Literal["all"] = "all"
    """How strongly names are disturbed; all does every level but clean."""
    half: Half | Literal["all"] = "all"
    """Names of tools, of parameters, or both; all does every half that the level has."""
    seed: int = Field(default=0, ge=0)
    """Seed of the noise."""
    copies: int = Field(default=1, ge=1, le=10_000)
    """Disturbed versions of every level and half."""
    rules: NoiseRules = NoiseRules()
    """How names are disturbed."""


class Quota(Config):
    """How many augmented trajectories each level gets. Source: the paper's numbers, second hand."""

    clean: int = Field(default=12_247, ge=0)
    """Unchanged trajectories."""
    slight: int = Field(default=3_000, ge=0)
    """Half of them with disturbed names of tools, half of parameters; so for the next two."""
    medium: int = Field(default=3_000, ge=0)
    heavy: int = Field(default=3_000, ge=0)
    union: int = Field(default=1_500, ge=0)
    """Tools and parameters disturbed together."""

    @model_validator(mode="after")
    def _not_empty(self) -> "Quota":
        if not self.total:
            raise ValueError("every level has quota 0: give at least one trajectory to a level")
        return self

    def of(self, level: Level) -> int:
        """The quota of a level."""
        return int(getattr(self, level))

    @property
    def total(self) -> int:
        """All levels together."""
        return self.clean + self.slight + self.medium + self.heavy + self.union


class AugmentConfig(Config):
    """`rotbench augment`: rewrite trajectories into the five environments."""

    trajectories: str = "sample"
    """A .jsonl or .json file, or `sample`, the few that ship with the package."""
    quota: Quota = Quota()
    """Trajectories per level, met exactly; one that is used again gets noise of its own."""
    rules: NoiseRules = NoiseRules()
    """How names are disturbed."""
    layout: Literal["same", "rotbench", "openai"] = "same"
    """How the result is written: as each trajectory came, as the released files are, or as messages
    with tools and tool calls."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of trajectories and of the noise."""
    limit: int | None = Field(default=None, gt=0)
    """Read only the first so many trajectories; None takes all."""


class LoraConfig(Config):
    """The adapter. Source: none was found for any of these numbers; they are our choice."""

    r: int = Field(default=8, ge=1)
    """Rank."""
    alpha: float = Field(default=16.0, gt=0.0)
    """The adapter's output is scaled by alpha / r."""
    dropout: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Dropout before the adapter."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the layers that get one: all projections of the attention."""


class TrainConfig(RunConfig):
    """`rotbench train`: tune a model on augmented trajectories.

    Source: the paper has LoRA, 5 epochs and interpolated positions; the learning rate is in the
    name of an adapter in a script of the authors. What no source gives is marked as ours.
    """

    base: str = "meta-llama/Llama-2-7b-hf"
    """Hub id or directory, or `random`: a tiny model made in code, to try the command. Source: the
    paper, LLaMA-2-7B base."""
    data: str = "sample"
    """What `augment` wrote (its folder or file), any file that it reads, or `sample`."""
    clean_only: bool = False
    """Leave the disturbed trajectories out: the baseline without augmentation."""
    prompt_style: Literal["plain", "chat", "native"] = "plain"
    """`plain` writes the official `System: ... User: ... Assistant:` lines, for base models; `chat`
    the same through the chat template; `native` uses the template's own tools and tool calls."""
    tune: Literal["lora", "full"] = "lora"
    """Train an adapter, or all weights."""
    lora: LoraConfig = LoraConfig()
    """The adapter's shape."""
    epochs: float = Field(default=5.0, gt=0.0, allow_inf_nan=False)
    """Passes over the data. Source: the paper."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps instead of epochs, so that two runs on different data train equally long."""
    learning_rate: float = Field(default=5e-5, gt=0.0, allow_inf_nan=False)
    """Peak. Source: the name of an adapter's folder in the official repository, so indirect."""
    warmup: float = Field(default=0.04, ge=0.0, lt=1.0)
    """Share of the steps in which the learning rate rises; a cosine follows. Ours."""
    batch: int = Field(default=64, ge=1)
    """Sequences of one optimizer step, over all devices. Ours."""
    micro_batch: int = Field(default=1, ge=1)
    """Sequences that one device holds at a time."""
    max_length: int = Field(default=8192, ge=16)
    """Longest sequence in tokens. Source: official inference code (the paper prints 8,096)."""
    too_long: Literal["skip", "cut"] = "skip"
    """Leave a longer sequence out, or cut its end; both are counted. Ours."""
    rope_linear: float = Field(default=2.0, ge=1.0, allow_inf_nan=False)
    """Positions are divided by this; 1 leaves them. Source: official inference code, 8192/4096."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: less memory, a third more time."""
    save_steps: int = Field(default=100, ge=1)
    """Steps from one checkpoint to the next; `--resume` goes on from the last."""
    merged: bool = True
    """Also save the whole model with the adapter in it, which `eval` and every other tool reads."""


class ExpandConfig(RunConfig):
    """`rotbench expand`: let a model write new queries. No tool is called and no answer written."""

    model: str = "openai:gpt-4@https://api.openai.com/v1"
    """Who writes: any model reference. Source: the paper, GPT-4."""
    tools: str = "sample"
    """Where the environments of tools come from: `sample`, `released`, a folder of such files, or a
    JSON file with tools of your own."""
    queries: Path | None = None
    """Text file with one human query per line, for the one environment of a tools file; cases bring
    their own."""
    count: int = Field(default=100, ge=1)
    """New queries wanted, over all environments. Source: the paper ends with 4,077."""
    per_prompt: int = Field(default=5, ge=1, le=50)
    """New queries that one prompt asks for. Ours."""
    human: int = Field(default=6, ge=0)
    """Human queries that a prompt shows. Ours; as in Self-Instruct (2212.10560)."""
    generated: int = Field(default=2, ge=0)
    """Earlier generated queries that it shows. Ours; as in Self-Instruct."""
    rouge: float = Field(default=0.55, gt=0.0, le=1.0)
    """A query is kept if its Rouge-L with every other is below this. Source: the paper."""
    temperature: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    """Ours: the same prompt should give different queries."""
    max_new_tokens: int = Field(default=1024, ge=16)
    """Tokens of one reply at most."""
    wave: int = Field(default=8, ge=1)
    """Prompts that are sent together; they see the queries of earlier waves only."""
    patience: int = Field(default=5, ge=1)
    """Waves in a row without a new query, after which it stops."""
    endpoint: EndpointConfig = EndpointConfig()
    """Limits, prices, budget and cache of an `openai:` model."""


class EvalConfig(RunConfig):
    """Settings of `eval`. `limit` takes the first queries, each at every level."""

    how: ClassVar[frozenset[str]] = frozenset({"batch_size", "flush_every", "scoring"})

    model: str = "baseline:lexical"
    """`baseline:` and `oracle`, `random`, `first` or `lexical`; or a hub id or directory, `vllm:<id
    or dir>`, `openai:<model>@<base_url>`."""
    data: str = "sample"
    """`sample` ships with the package; `released` is what `rotbench data` installed; or a folder
    in the layout of the released files."""
    turns: tuple[Turn, ...] = TURNS
    """A first call, or one after two steps of history."""
    levels: tuple[Level, ...] = LEVELS
    """Levels of noise."""
    mode: Mode = "react"
    """How tools are shown and calls are written."""
    prompt_style: Literal["chat", "plain"] = "chat"
    """`plain` writes the official `System: ... User: ... Assistant:` lines, for a model without a
    chat template; `react` only."""
    scoring: Literal["fixed", "official"] = "fixed"
    """Whose numbers stand first. Both are always there."""
    noise: Literal["stored", "fresh"] = "stored"
    """Disturbed cases of the data, or new ones made from its clean cases."""
    noise_seeds: tuple[int, ...] = (0,)
    """Fresh noise: every clean case is disturbed once per seed."""
    rules: NoiseRules = NoiseRules()
    """Fresh noise: how names are disturbed."""
    max_new_tokens: int = Field(default=512, gt=0)
    """Longest answer, in tokens. Ours; the official code has 1,024."""
    temperature: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """0 is greedy. Ours; the official code has 0.3."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """The official code has 0.5."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, besides the model's own end."""
    max_context: int | None = Field(default=None, gt=0)
    """Tokens of prompt and answer together; None takes what the model's config says."""
    batch_size: int | None = Field(default=None, gt=0)
    """Most prompts in one batch of a local model; None lets the backend choose."""
    flush_every: int = Field(default=128, gt=0)
    """Prompts handed to the backend at a time; their records are written when they are done."""
    endpoint: EndpointConfig = EndpointConfig()
    """For `openai:` models."""

    @model_validator(mode="after")
    def _consistent(self) -> "EvalConfig":
        if self.prompt_style == "plain" and self.mode != "react":
            raise ValueError(f"prompt_style plain is for mode react, not {self.mode}")
        if not self.turns or not self.levels:
            raise ValueError("turns and levels need at least one each")
        if len(set(self.noise_seeds)) != len(self.noise_seeds) or not self.noise_seeds:
            raise ValueError(f"noise_seeds {list(self.noise_seeds)}: give different ones")
        return self


class ScoreConfig(Config):
    """Settings of `score`."""

    how: ClassVar[frozenset[str]] = frozenset({"scoring"})

    answers: tyro.conf.Positional[Path]
    """records.jsonl of a run; a JSONL of `{"key", "text"}`; or results in the official layout, a
    file or a folder of `First_Turn/clean.json` and so on."""
    data: str = "released"
    """The cases that were answered; as for `eval`."""
    turns: tuple[Turn, ...] = TURNS
    """Only these; every one of their cases must have its answer."""
    levels: tuple[Level, ...] = LEVELS
    """Only these."""
    mode: Mode = "react"
    """How the answers are written."""
    scoring: Literal["fixed", "official"] = "fixed"
    """Whose numbers stand first. Both are always there."""
    model: str = "unnamed"
    """Who wrote the answers, for the report."""


class CompareConfig(Config):
    """Settings of `compare`."""

    ours: tyro.conf.Positional[Path]
    """Run folder of `eval` or `score`."""
    theirs: tyro.conf.Positional[Path]
    """Another one, over the same cases."""
