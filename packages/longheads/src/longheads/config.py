"""Settings of the method and of the commands. No torch here.

config = LongHeadsConfig(chunk_len=256, window=2048)
"""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from longheads.longbench_sets import SETS, SetName, set_of_file, sets_of
from papercore.config import Config, RunConfig

IMPLEMENTATION = "longheads"
"""Name of the attention implementation in transformers' registries."""

Method = Literal["longheads", "full", "streaming", "random", "infllm", "pi", "ntk", "yarn"]
"""`longheads` and the baselines that run in the same harness."""

CHUNK_METHODS: tuple[Method, ...] = ("longheads", "streaming", "random", "infllm")
"""Those that read chunks: LongHeads itself, and LongHeads with another way of choosing."""


class LongHeadsConfig(Config):
    """How every head reads a long text. The defaults are the method; the rest are ablations.

    Source: the official configuration and modeling file; symbols l (chunk_len), W (window),
    k (window / chunk_len).
    """

    chunk_len: int = Field(default=256, ge=2)
    """Tokens of a chunk, l. Source: official config `window_size` = 256."""
    window: int | Literal["auto"] = "auto"
    """Attention window W in tokens, a multiple of chunk_len; texts up to W are read densely.
    `auto` is the largest multiple not above half of the trained length: the paper's code has 4096,
    its author's working passkey setting (issue 3 of the official repository) is 2048."""
    chunks: int | None = Field(default=None, ge=4)
    """Chunks per query, k, own one included; sets the window to k x chunk_len instead."""
    chunk_rep: Literal["attention", "mean", "minmax", "last", "random", "received"] = "attention"
    """What represents a chunk. `attention` is the paper's two-step representation, `received` the
    four keys that later tokens of the chunk attend to most (as InfLLM does)."""
    select: Literal["scores", "random", "recent"] = "scores"
    """How the free chunks are chosen."""
    keep_first: bool = True
    """Always read chunk 0."""
    keep_last: bool = True
    """Always read the chunk before the own one."""
    share_selection: Literal["per_head", "group_mean", "group_max", "layer_mean", "layer_max"] = (
        "per_head"
    )
    """Who chooses. The paper's models have one KV head per query head; for grouped-query models
    `per_head` is the faithful rule, `group_mean` and `group_max` let a KV group choose together."""
    compat: Literal["fixed", "official"] = "fixed"
    """`official` repeats two slips of the authors' code: a prefilled token beyond the window does
    not see itself, and the last token of a chunk is decoded with one chunk fewer."""
    check_finite: bool = True
    """Stop with a message when chunk scores are NaN or infinite (one reduction per layer)."""
    seed: int = Field(default=0, ge=0)
    """Seed of `random` choices."""
    offload: bool = False
    """Keep keys and values in the host's memory, and on the GPU only the pages that are in use."""
    pool_chunks: int | None = Field(default=None, ge=1)
    """With offload: chunks per KV head that stay on the GPU; None: twice what one token reads."""

    kernel: Literal["auto", "torch"] = "auto"
    """`auto` takes Triton kernels where they run (NVIDIA GPUs from Ampere on), else torch."""

    how: ClassVar[frozenset[str]] = frozenset({"offload", "pool_chunks", "kernel"})

    @model_validator(mode="after")
    def _window_holds_chunks(self) -> "LongHeadsConfig":
        if self.chunks is not None and self.window != "auto":
            raise ValueError(
                "window and chunks both set the window: give one of them (where a preset sets the "
                "window, add --longheads.window auto)"
            )
        if isinstance(self.window, int):
            if self.window % self.chunk_len:
                raise ValueError(
                    f"window={self.window} is not a multiple of chunk_len={self.chunk_len}"
                )
            if self.window < 4 * self.chunk_len:
                raise ValueError(
                    f"window={self.window} holds fewer than 4 chunks of {self.chunk_len} tokens "
                    "(first, last, own and one to choose)"
                )
        return self

    def pool_for(self, window: int, group: int) -> int:
        """With offload: chunks of each KV head that stay on the GPU.

        Args:
            window: in tokens.
            group: query heads that share a KV head.

        Raises:
            ValueError: if `pool_chunks` is less than what one token can read.
        """
        least = window // self.chunk_len * (group if self.share_selection == "per_head" else 1)
        if self.pool_chunks is None:
            return 2 * least
        if self.pool_chunks < least:
            raise ValueError(
                f"pool_chunks={self.pool_chunks} is too small: one token reads up to {least} "
                "chunks of each KV head"
            )
        return self.pool_chunks

    def window_for(self, trained_len: int) -> int:
        """The window in tokens for a model trained at `trained_len`.

        Raises:
            ValueError: if `auto` leaves room for fewer than 4 chunks.
        """
        if self.chunks is not None:
            return self.chunks * self.chunk_len
        if self.window != "auto":
            return self.window
        window = trained_len // 2 // self.chunk_len * self.chunk_len
        if window < 4 * self.chunk_len:
            raise ValueError(
                f"chunk_len={self.chunk_len} is too long for a model trained at {trained_len} "
                f"tokens: half of it must hold 4 chunks; use chunk_len <= {trained_len // 8}"
            )
        return window


class ModelRunConfig(RunConfig):
    """What every command that loads a model has."""

    how: ClassVar[frozenset[str]] = frozenset({"prefill_tok"})

    model: str = "tiny:longheads"
    """Hub id, local folder, or tiny:longheads (the miniature's model, after `longheads mini`)."""
    method: Method = "longheads"
    """How the model reads beyond its trained length."""
    longheads: LongHeadsConfig = LongHeadsConfig()
    """Settings of the method, and of the baselines streaming, random and infllm, which share its
    chunks."""
    factor: float = Field(default=8.0, gt=1.0, allow_inf_nan=False)
    """Stretch of the positions for pi, ntk and yarn."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the weights with bitsandbytes."""
    prefill_tok: int = Field(default=4096, ge=16)
    """Tokens per forward pass while the prompt is read; bounds the memory of activations."""


class PromptConfig(ModelRunConfig):
    """A command that reads one text."""

    prompt: str | None = None
    """The prompt itself."""
    prompt_file: Path | None = None
    """A UTF-8 text file with the prompt; the question is its end. Line ends there are cut."""

    @model_validator(mode="after")
    def _one_prompt(self) -> "PromptConfig":
        if self.prompt is not None and self.prompt_file is not None:
            raise ValueError("give --prompt or --prompt-file, not both")
        if self.limit is not None:
            raise ValueError("limit counts examples, and here there is one text: leave it out")
        return self


class GenerateConfig(PromptConfig):
    """`longheads generate`: read a long prompt, write an answer."""

    max_new_tokens: int = Field(default=32, ge=1)
    """Tokens to write at most."""
    temperature: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """0 takes the best token each time."""
    chat: bool = False
    """Send the prompt as a user's message through the model's chat template."""
    assistant: str | None = None
    """A smaller model with the same tokenizer that writes ahead (assisted generation), read by the
    same method; hub id or local folder."""


class TrialsConfig(ModelRunConfig):
    """A command that hides a key in filler, again and again."""

    lengths: tuple[int, ...] = Field(default=(4096, 8192, 16384), min_length=1)
    """Prompt lengths in tokens. Source: passkey figure of the paper has 4k to 128k."""
    trials: int = Field(default=50, ge=1)
    """Prompts per length. Source: official passkey script."""
    task: Literal["passkey", "world"] = "passkey"
    """`passkey` is the paper's prompt in English; `world` is the miniature's key-value text."""

    @model_validator(mode="after")
    def _different_lengths(self) -> "TrialsConfig":
        _check_lengths(self.lengths)
        return self


class PasskeyConfig(TrialsConfig):
    """`longheads passkey`: find a number in filler, at every length and depth."""

    depth_bins: int = Field(default=10, ge=1)
    """Rows of the heat map."""


class AblateConfig(TrialsConfig):
    """`longheads ablate`: the trials of `passkey` with one setting of the method changed at a time.

    Source: section 3.4 of the spec; the values of the paper's table could not be read.
    """

    variants: tuple[str, ...] = ()
    """Only these, such as select=random, beside the settings as given; none: all that fit, which
    `--dry-run` lists."""

    @model_validator(mode="after")
    def _ablates_the_method(self) -> "AblateConfig":
        if self.method != "longheads":
            raise ValueError(
                f"method {self.method!r} has nothing to ablate: the variants are those of longheads"
            )
        return self


class PerplexityConfig(ModelRunConfig):
    """`longheads perplexity`: how well a model predicts long documents, by length of the context.

    Source: sliding windows with stride 256, loss on the last 256 tokens (spec 3.2 and 8.2).
    """

    data: tuple[str, ...] = ()
    """Text files, folders of *.txt, JSONL with a field `text` (.gz too), pg19, proof-pile, world
    (the miniature's noise), or a data set of the hub: owner/name[:config][@revision][#split]."""
    lengths: tuple[int, ...] = Field(default=(4096, 16384, 32768), min_length=1)
    """Tokens that the model reads at once. Source: perplexity table of the paper (not read)."""
    scheme: Literal["window", "block"] = "window"
    """`window` is the paper's: each window is a text of its own, and its last `stride` tokens
    count. `block` reads blocks of the longest length once; for a length L it counts the tokens with
    L/2 to L - 1 others before them. Much cheaper, and not the same number."""
    stride: int = Field(default=256, ge=1)
    """Tokens from a window to the next, and counted at the end of each; not used by `block`."""
    max_windows: int | None = Field(default=None, gt=0)
    """At most so many windows (or blocks) of a document, evenly spread; None takes all. Documents
    weigh alike, however many windows they have."""
    same_targets: bool = False
    """All lengths count the very same tokens, which lie beyond the longest length; then the numbers
    by token can be compared between lengths too."""
    bos: Literal["document", "window", "none"] = "document"
    """`document`: what the tokenizer puts before a text, once; `window`: the BOS token takes the
    first place of every window; `none`: no special token. The paper does not say."""
    min_tok: int | None = Field(default=None, ge=2)
    """Documents with fewer tokens are skipped; None: with fewer than the longest length, so that
    all lengths read the same documents. With less, short lengths read documents that long ones do
    not, and the numbers differ by documents too."""

    @model_validator(mode="after")
    def _windows_fit(self) -> "PerplexityConfig":
        _check_lengths(self.lengths)
        shortest = min(self.lengths)
        if shortest < 2:
            raise ValueError(f"lengths: {shortest} leaves no token to predict from another")
        if self.scheme == "block" and self.same_targets:
            raise ValueError("same_targets needs scheme 'window': blocks count other tokens")
        if self.scheme == "window" and self.stride > shortest:
            raise ValueError(
                f"stride={self.stride} is longer than the shortest length, {shortest}: tokens "
                "between two windows would be left out"
            )
        return self

    @property
    def needed_tok(self) -> int:
        """Tokens that a document must have."""
        return max(self.lengths) if self.min_tok is None else self.min_tok


class LongBenchConfig(ModelRunConfig):
    """`longheads longbench`: the 16 English sets of LongBench, with LongBench's scores."""

    data: str = "zai-org/LongBench"
    """A folder with <set>.jsonl (.gz too), one such file, the released data.zip, or a data set of
    the hub that holds data.zip."""
    sets: tuple[SetName, ...] = ()
    """Only these; none: all, or the one whose file `data` is."""
    extended: bool = False
    """LongBench-E instead (<set>_e.jsonl), 13 sets whose lengths are spread evenly."""
    prompts: Path | None = None
    """A JSON file of prompts by set, such as LongBench's config/dataset2prompt.json; None: ours,
    which say the same in other words."""
    answer_lengths: Path | None = None
    """A JSON file of tokens by set, such as LongBench's config/dataset2maxlen.json."""
    truncate_tok: int | None = Field(default=None, ge=2)
    """Longer prompts keep their first and last half of so many tokens; None reads them whole. For
    full attention LongBench takes 3500 with LLaMA-2-7B-chat (its config/model2maxlen.json)."""
    chat: bool = False
    """Send prompts through the model's chat template; not those of trec, triviaqa, samsum, lcc and
    repobench-p. Source: LongBench's pred.py."""

    @model_validator(mode="after")
    def _sets_are_there(self) -> "LongBenchConfig":
        if len(set(self.sets)) != len(self.sets):
            raise ValueError("sets: the same set is there twice")
        lacking = [name for name in self.sets if self.extended and not SETS[name].extended]
        if lacking:
            raise ValueError(f"sets: LongBench-E has no {lacking[0]}")
        return self

    @property
    def chosen_sets(self) -> tuple[SetName, ...]:
        """The sets to run; of one set's file, that set."""
        only = set_of_file(self.data, extended=self.extended)
        return self.sets or ((only,) if only else sets_of(extended=self.extended))


class TraceConfig(PromptConfig):
    """`longheads trace`: which head of which layer reads which chunk."""

    needle: str | None = None
    """A text inside the prompt; the chunks that hold it are followed and recall is reported."""
    last_tok: int = Field(default=16, ge=1)
    """How many of the last prompt tokens are traced."""


def _check_lengths(lengths: tuple[int, ...]) -> None:
    if min(lengths) < 1:
        raise ValueError(f"lengths: {min(lengths)} is not a number of tokens")
    if len(set(lengths)) != len(lengths):
        raise ValueError("lengths: the same length is there twice")
