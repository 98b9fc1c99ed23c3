"""What a command will need, for `--dry-run`: questions, tokens and memory. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from papercore.errors import PaperError
from papercore.generate.spend import estimate as spend
from papercore.generate.types import Message, Request, SamplingParams
from papercore.shapes import (
    Shape,
    bytes_per_weight,
    find_shape,
    kv_bytes_per_token,
    shown_bytes,
)
from self_cd.commands import gather
from self_cd.config import (
    AttributeConfig,
    CalibrateConfig,
    CheckedConfig,
    DataConfig,
    GenerateConfig,
    JudgeConfig,
    ModelRunConfig,
    RunAnswersConfig,
    SweepConfig,
    TableConfig,
    TraceConfig,
)
from self_cd.data import load_items
from self_cd.items import SIDES, ItemSet
from self_cd.presets import TINY_MODEL
from self_cd.wording import SAFETY

__all__ = [
    "attribute",
    "calibrate",
    "data",
    "generate",
    "judge",
    "run",
    "sweep",
    "table",
    "trace",
]

CHARS_PER_TOK = 4
"""Of English text. Source: our own rule of thumb."""
TEMPLATE_TOK = 16
"""Marks of a chat template around a question. Source: our own guess."""
USUAL_BATCH = 64
"""Where the batch size starts if none is given."""
QUERY_TOK = 24
"""Of a question whose length is not known. Source: spec, section 6."""

KNOWN: Mapping[str, Shape] = {
    # source: spec of the miniature (section 8.1)
    TINY_MODEL: Shape(2, 64, 128, 2, 2, 32, 112, 256, tied=False),
}


def run(config: RunAnswersConfig) -> dict[str, str]:
    """Estimates of `self-cd run`."""
    contexts = 2 if config.method == "self-cd" else 1
    found = _sets(config)
    if config.model.startswith("openai:"):
        return {**found, **_money(config)}
    return {**found, **_needs(config, contexts, config.max_new_tokens)}


def sweep(config: SweepConfig) -> dict[str, str]:
    """Estimates of `self-cd sweep`."""
    count = len(config.alphas)
    found = _sets(config)
    found["strengths"] = f"{count}, each question is read once for all of them"
    return {**found, **_needs(config, 2 * count, config.max_new_tokens)}


def generate(config: GenerateConfig) -> dict[str, str]:
    """Estimates of `self-cd generate`."""
    contexts = 2 if config.method == "self-cd" else 1
    return _needs(config, contexts, config.max_new_tokens, batch=1)


def trace(config: TraceConfig) -> dict[str, str]:
    """Estimates of `self-cd trace`."""
    return _needs(config, 2, config.max_new_tokens, batch=1)


def calibrate(config: CalibrateConfig) -> dict[str, str]:
    """Estimates of `self-cd calibrate`: only openings of answers are read."""
    openings = len(config.contrast.openings.refusal) + len(config.contrast.openings.answer)
    found = {"data": _size(config.data, config.limit)}
    return {**found, **_needs(config, 2 * openings, 8)}


def attribute(config: AttributeConfig) -> dict[str, str]:
    """Estimates of `self-cd attribute`: one prompt at a time, with gradients, in float32."""
    found = {"data": _size(config.data, config.limit)}
    return {**found, **_needs(config, 1, config.target_tok, batch=1)}


def judge(config: JudgeConfig) -> dict[str, str]:
    """Estimates of `self-cd judge`."""
    models = [name for name in (config.classifier, config.model) if name is not None]
    return {
        "runs": str(len(config.runs)),
        "judges": ", ".join((*config.judges, *map(str, config.sheets))),
        "models": ", ".join(models) or "none",
    }


def data(config: DataConfig) -> dict[str, str]:
    """Estimates of `self-cd data`."""
    return {"data": _size(config.data, None) if config.data else "nothing is loaded"}


def table(config: TableConfig) -> dict[str, str]:
    """Estimates of `self-cd table`."""
    return {"runs": str(len(config.runs))}


def _sets(config: CheckedConfig) -> dict[str, str]:
    try:
        items = gather(config)
    except PaperError as error:
        return {"data": str(error)}
    return {"data": _count(items)}


def _size(refs: Sequence[str], limit: int | None) -> str:
    try:
        return _count(load_items(refs, limit=limit))
    except PaperError as error:
        return str(error)


def _count(items: ItemSet) -> str:
    counts = [f"{len(items.of(side))} {side}" for side in SIDES if items.of(side)]
    bad = f", {len(items.bad)} bad rows" if items.bad else ""
    return f"{', '.join(counts)} questions{bad}"


def _money(config: RunAnswersConfig) -> Mapping[str, str]:
    try:
        items = gather(config).items
    except PaperError:
        return {}
    params = SamplingParams(max_new_tokens=config.max_new_tokens)
    system = Message(role="system", content=config.contrast.prompts.safety or SAFETY)
    requests = [
        Request(
            id=item.id,
            messages=(system, Message(role="user", content=item.query)),
            params=params,
        )
        for item in items
    ]
    return spend(requests, config.endpoint)


def _needs(
    config: ModelRunConfig, contexts: int, new_tok: int, batch: int | None = None
) -> dict[str, str]:
    """Weights, the float32 copy of the output head, and the cache of a batch."""
    shape = find_shape(config.model.removeprefix("vllm:"), KNOWN)
    if shape is None:
        return {
            "memory": f"unknown: the shape of {config.model} is not known before it is downloaded"
        }
    is_float32 = config.dtype == "float32" or config.model == TINY_MODEL
    item_bytes = 4 if is_float32 else 2
    weights = shape.weights * bytes_per_weight(item_bytes, config.quantization)
    found = {"weights": f"{shown_bytes(weights)} ({shape.weights / 1e9:.3g} G weights)"}
    if not is_float32 and config.contrast.float32_head:
        found["output head"] = f"{shown_bytes(4 * shape.vocabulary * shape.hidden)} in float32"
    size = batch or config.batch_size or USUAL_BATCH
    rows = size * contexts
    tokens = rows * (_prompt_tok(config) + new_tok)
    kv = tokens * kv_bytes_per_token(shape, item_bytes)
    found["kv cache"] = f"{shown_bytes(kv)} for {rows} rows of a batch of {size}"
    return found


def _prompt_tok(config: ModelRunConfig) -> int:
    safety = config.contrast.prompts.safety or SAFETY
    query = getattr(config, "query", None)
    asked = len(query) // CHARS_PER_TOK if isinstance(query, str) else QUERY_TOK
    return len(safety) // CHARS_PER_TOK + TEMPLATE_TOK + asked
