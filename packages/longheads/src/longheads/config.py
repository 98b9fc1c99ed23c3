"""Settings of the method and of the commands. No torch here.

config = LongHeadsConfig(chunk_len=256, window=2048)
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from papercore.config import Config, RunConfig

IMPLEMENTATION = "longheads"
"""Name of the attention implementation in transformers' registries."""

Method = Literal["longheads", "full", "streaming", "random", "pi", "ntk", "yarn"]
"""`longheads` and the baselines that run in the same harness."""

CHUNK_METHODS: tuple[Method, ...] = ("longheads", "streaming", "random")
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
    chunk_rep: Literal["attention", "mean", "minmax", "last", "random"] = "attention"
    """What represents a chunk. `attention` is the paper's two-step representation."""
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

    model: str = "tiny:longheads"
    """Hub id, local folder, or tiny:longheads (the miniature's model, after `longheads mini`)."""
    method: Method = "longheads"
    """How the model reads beyond its trained length."""
    longheads: LongHeadsConfig = LongHeadsConfig()
    """Settings of the method, and of the baselines streaming and random, which share its chunks."""
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


class PasskeyConfig(ModelRunConfig):
    """`longheads passkey`: find a number in filler, at every length and depth."""

    lengths: tuple[int, ...] = Field(default=(4096, 8192, 16384), min_length=1)
    """Prompt lengths in tokens. Source: passkey figure of the paper has 4k to 128k."""
    trials: int = Field(default=50, ge=1)
    """Prompts per length. Source: official passkey script."""
    task: Literal["passkey", "world"] = "passkey"
    """`passkey` is the paper's prompt in English; `world` is the miniature's key-value text."""
    depth_bins: int = Field(default=10, ge=1)
    """Rows of the heat map."""

    @model_validator(mode="after")
    def _different_lengths(self) -> "PasskeyConfig":
        if min(self.lengths) < 1:
            raise ValueError(f"lengths: {min(self.lengths)} is not a number of tokens")
        if len(set(self.lengths)) != len(self.lengths):
            raise ValueError("lengths: the same length is there twice")
        return self


class TraceConfig(PromptConfig):
    """`longheads trace`: which head of which layer reads which chunk."""

    needle: str | None = None
    """A text inside the prompt; the chunks that hold it are followed and recall is reported."""
    last_tok: int = Field(default=16, ge=1)
    """How many of the last prompt tokens are traced."""
