"""Proving a model: the slow reference inside the model, and small settings that pass the window.

with reference(model, small()):
    expected = model(ids, use_cache=False).logits
with longheads.enable(model, small()):
    assert_close(model(ids).logits, expected)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from longheads import LongHeadsConfig
from longheads.reference import reference_attention
from papercore.testing import tiny_model

CHUNK = 8
WINDOW = 40
TOKENS = 150

FULL_KINDS = (
    "llama",
    "llama-gqa",
    "llama-linear",
    "llama-yarn",
    "llama-llama3",
    "mistral-full",
    "qwen3",
)
ALL_KINDS = (*FULL_KINDS, "mistral")


def small(**changes: object) -> LongHeadsConfig:
    """Settings whose window is passed by a short text."""
    return LongHeadsConfig.model_validate({"chunk_len": CHUNK, "window": WINDOW, **changes})


def make(kind: str) -> PreTrainedModel:
    """A tiny model; `mistral-full` is Mistral as it came from version 0.2 on."""
    if kind == "mistral-full":
        return tiny_model("mistral", sliding_window=None)
    if kind == "llama-linear":
        rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
        return tiny_model("llama", rope_parameters=rope)
    return tiny_model(kind)


def tokens(rows: int = 2, count: int = TOKENS, seed: int = 0) -> Tensor:
    """Random token ids."""
    return torch.randint(3, 200, (rows, count), generator=torch.Generator().manual_seed(seed))


@contextmanager
def reference(
    model: PreTrainedModel, config: LongHeadsConfig, *, prompt_len: int | None = None
) -> Iterator[None]:
    """Runs the slow reference inside the model, from the model's own absolute rotations."""
    window = config.window_for(model.config.max_position_embeddings)
    rotary = model.model.rotary_emb

    def rotate(vectors: Tensor, positions: Tensor) -> Tensor:
        angle = positions.double()[:, None] * rotary.inv_freq.double()[None]
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        left, right = vectors.chunk(2, dim=-1)
        turned: Tensor = vectors * cos + torch.cat([-right, left], dim=-1) * sin
        return turned

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: object,
        scaling: float,
        **_options: object,
    ) -> tuple[Tensor, None]:
        back = -torch.arange(query.shape[2])
        outs = []
        for row in range(len(query)):
            q = torch.stack([rotate(head.double(), back) for head in query[row]])
            k = torch.stack([rotate(head.double(), back) for head in key[row]])
            out = reference_attention(
                q,
                k,
                value[row],
                rotate=rotate,
                scale=scaling,
                config=config,
                window=window,
                prompt_len=prompt_len,
            )
            outs.append(out.to(query.dtype))
        return torch.stack(outs).transpose(1, 2).contiguous(), None

    AttentionInterface.register("longheads_reference", attend)
    previous = model.config._attn_implementation
    model.set_attn_implementation("longheads_reference")
    try:
        yield
    finally:
        model.set_attn_implementation(previous)
