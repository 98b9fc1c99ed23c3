"""The backend that a model reference names.

    generator = generator_for("openai:Qwen/Qwen3-8B@http://127.0.0.1:8000/v1")

Importing this module loads no torch and no backend.
"""

from __future__ import annotations

from typing import Literal

from papercore.errors import ConfigError
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.types import Generator
from papercore.models import load_model
from papercore.refs import parse_ref

__all__ = ["generator_for"]


def generator_for(
    ref: str,
    *,
    endpoint: EndpointConfig | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    seed: int = 0,
    max_context: int | None = None,
) -> Generator:
    """Makes the generator for a model reference.

    Args:
        ref: Hub id, directory or `tiny:<package>` for transformers, `vllm:<id or dir>`, or
            `openai:<model>@<base_url>`.
        endpoint: For `openai:` references; the defaults if `None`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, for a local model.
        dtype: `auto`, `float32`, `bfloat16` or `float16`, for a local model.
        batch_size: Most requests in one batch, for a local model.
        seed: From which a sampled request without a seed gets its own, by its id.
        max_context: Prompt and new tokens together, for a local model; by default what its config
            says.

    Raises:
        ModelError: One line that says what is missing or wrong and what to do about it.
        ConfigError: An option does not apply to this kind of model.
    """
    del endpoint
    parsed = parse_ref(ref)
    if parsed.kind in ("vllm", "openai"):
        raise ConfigError(f"{ref}: this backend is not there yet")
    from papercore.generate.hf import HFGenerator

    model, tokenizer = load_model(ref, device=device, dtype=dtype)
    return HFGenerator(model, tokenizer, batch_size=batch_size, seed=seed, max_context=max_context)
