"""The backend that a model reference names.

    generator = generator_for("openai:Qwen/Qwen3-8B@http://127.0.0.1:8000/v1")

Importing this module loads no torch and no backend.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Literal

from papercore.errors import ConfigError, ModelError
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.types import Generator
from papercore.refs import ModelRef, parse_ref

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
        endpoint: For `openai:` references; the defaults if `None`. Local models need none of it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, for transformers; vLLM has one of its own.
        dtype: `auto`, `float32`, `bfloat16` or `float16`, for a local model.
        batch_size: Most requests in one batch, for a local model.
        seed: From which a sampled request without a seed gets its own, by its id.
        max_context: Prompt and new tokens together, for a local model; by default what its config
            says.

    Raises:
        ModelError: One line that says what is missing or wrong and what to do about it.
        ConfigError: An option does not apply to this kind of model.
    """
    parsed = parse_ref(ref)
    local = {
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "max_context": max_context,
    }
    if parsed.kind == "openai":
        from papercore.generate.api import OpenAIGenerator

        _refuse(parsed, local)
        return OpenAIGenerator(parsed.name, str(parsed.base_url), endpoint=endpoint, seed=seed)
    if parsed.kind == "vllm":
        _require("vllm", parsed, "vllm")
        from papercore.generate.vllm import VLLMGenerator

        _refuse(parsed, {"device": device})
        return VLLMGenerator(
            parsed.name, dtype=dtype, batch_size=batch_size, seed=seed, max_context=max_context
        )
    for module in ("torch", "transformers"):
        _require(module, parsed, "hf")
    from papercore.generate.hf import HFGenerator
    from papercore.models import load_model

    model, tokenizer = load_model(ref, device=device, dtype=dtype)
    return HFGenerator(model, tokenizer, batch_size=batch_size, seed=seed, max_context=max_context)


def _refuse(ref: ModelRef, options: Mapping[str, object]) -> None:
    """Refuses options that this backend would have to ignore."""
    for name, value in options.items():
        if value not in ("auto", None):
            where = "the endpoint" if ref.kind == "openai" else "the installed vLLM"
            raise ConfigError(f"{name}={value} does not apply to {ref}: {where} decides it")


def _require(module: str, ref: ModelRef, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ModelError(f"{ref} needs {module}: pip install 'papercore[{extra}]'")
