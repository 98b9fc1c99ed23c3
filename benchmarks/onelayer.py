"""One layer of attention with nothing around it, read through the public way of LongHeads.

    layer = OneLayer(heads=2, chunk_len=64, chunks=16)
    inputs = random_inputs(heads=2, tokens=4096)
    out = layer.read(joined(inputs), layer.new_cache(4096))

It is a Llama decoder of transformers whose only layer is its attention: projections, norms and MLP
are left out, so that the time is that of the method. Queries, keys and values come in side by
side as input embeddings. The benchmarks of `longheads` share this file; it is not one itself.

Axes: H heads, T tokens, D head width.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.cache_utils import Cache

import longheads
from longheads import LongHeadsConfig

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import Options, Row, cannot_run, read_options

WIDTH = 64
THETA = 10000.0


@dataclass(frozen=True)
class Inputs:
    """Queries, keys and values before any rotation, HTD each."""

    query: Tensor
    key: Tensor
    value: Tensor


class OneLayer:
    """A decoder of one bare attention layer, with LongHeads enabled on it."""

    def __init__(self, *, heads: int, chunk_len: int, chunks: int) -> None:
        self.model = _bare_decoder(heads, chunk_len * chunks)
        self.handle = longheads.enable(
            self.model, LongHeadsConfig(chunk_len=chunk_len, chunks=chunks)
        )

    def new_cache(self, capacity_tok: int) -> Cache:
        """An empty cache with room for so many tokens."""
        return self.handle.make_cache(capacity_tok=capacity_tok)

    @torch.no_grad()
    def read(self, embeds: Tensor, cache: Cache) -> Tensor:
        """Reads tokens after those in the cache.

        Args:
            embeds: from `joined`, or some of its tokens.
            cache: what was read before; the tokens are added.

        Shapes:
            returns THD.
        """
        out: Tensor = self.model(inputs_embeds=embeds, past_key_values=cache).last_hidden_state
        return out.view(out.shape[1], -1, WIDTH)


def joined(inputs: Inputs) -> Tensor:
    """The states of each token side by side, as the input of `OneLayer.read`: 1T(3HD)."""
    states = torch.cat([inputs.query, inputs.key, inputs.value])
    return states.transpose(0, 1).reshape(1, states.shape[1], -1)


def random_inputs(*, heads: int, tokens: int, seed: int = 0) -> Inputs:
    """Independent normal states: every head chooses other chunks for every query."""
    generator = torch.Generator().manual_seed(seed)
    return Inputs(*torch.randn(3, heads, tokens, WIDTH, generator=generator))


def rotate(states: Tensor, positions: Tensor) -> Tensor:
    """Llama's rotary embedding of ...TD by positions that broadcast to ...T."""
    frequency = THETA ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    angle = positions.unsqueeze(-1).float() * frequency
    left, right = states.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def cpu_options() -> Options:
    """Options of a benchmark whose promise is about one CPU thread."""
    options = read_options()
    if options.device != "cpu":
        raise cannot_run("this is promised for one CPU thread: give --device cpu")
    return options


def load_note() -> str:
    """How busy the machine was: neighbours share caches and memory, if not CPU seconds."""
    if not hasattr(os, "getloadavg"):
        return "load of the machine: unknown"
    return f"load average of the machine over 15 minutes: {os.getloadavg()[2]:.1f}"


def labelled(row: Row, label: str, x: float) -> Row:
    """A row that was measured together with rows of other sizes."""
    return dataclasses.replace(row, label=label, x=x)


class _Slice(nn.Module):
    """Stands for a projection: takes its part of the input."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, states: Tensor) -> Tensor:
        return states[..., self.low : self.high]


class _OnlyAttention(nn.Module):
    """Stands for a decoder layer: no norms, no MLP, no residual."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention

    def forward(self, hidden_states: Tensor, **options: object) -> Tensor:
        out: Tensor = self.self_attn(hidden_states=hidden_states, **options)[0]
        return out


def _bare_decoder(heads: int, trained_tok: int) -> LlamaModel:
    size = heads * WIDTH
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=heads,
        head_dim=WIDTH,
        max_position_embeddings=trained_tok,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )
    model: LlamaModel = LlamaModel(config).eval()  # type: ignore[no-untyped-call]
    attention = model.layers[0].get_submodule("self_attn")
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        setattr(attention, name, _Slice(index * size, (index + 1) * size))
    attention.o_proj = nn.Identity()
    model.layers[0] = _OnlyAttention(attention)
    model.add_module("norm", nn.Identity())
    return model
