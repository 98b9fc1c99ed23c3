"""The bound that `self-cd calibrate` found for a model, kept for `run` and `sweep`. No torch here.

    remember_bound("my/model", config, prompter.digest, 2.1, keep=0.99, num_true=200)
    bound_of("my/model", config, prompter.digest)          # 2.1

A bound belongs to a model with its adapter and quantization, and to the wording of the prompts:
another safety prompt pushes otherwise. The latest calibration counts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from papercore.errors import DataError
from papercore.files import cache_dir, read_json, write_json
from papercore.refs import directory
from self_cd.config import ModelRunConfig

__all__ = ["bound_file", "bound_of", "remember_bound"]

SCHEMA = 1


def bound_of(model: str, config: ModelRunConfig, digest: str) -> float | None:
    """Largest calibrated strength; None if nobody has calibrated this model with these prompts.

    Args:
        model: The model's reference.
        config: Of the command; its adapter and quantization count.
        digest: The prompter's, of wording and template.

    Raises:
        DataError: What was kept cannot be read.
    """
    path = bound_file(model, config, digest)
    if not path.exists():
        return None
    document = read_json(path)
    upper = document.get("upper")
    if document.get("schema") != SCHEMA or not isinstance(upper, int | float):
        raise DataError(f"{path}: is no bound of this version: delete it and calibrate again")
    return float(upper)


def remember_bound(
    model: str,
    config: ModelRunConfig,
    digest: str,
    upper: float,
    *,
    keep: float,
    num_true: int,
) -> Path:
    """Keeps a bound instead of the one that was there.

    Args:
        model: The model's reference.
        config: Of the command.
        digest: The prompter's.
        upper: The bound.
        keep: Share of the true refusals that it keeps.
        num_true: How many true refusals it was found with.
    """
    path = bound_file(model, config, digest)
    document: dict[str, object] = {
        "schema": SCHEMA,
        **_key(model, config, digest),
        "upper": upper,
        "keep": keep,
        "num_true": num_true,
    }
    write_json(path, document)
    return path


def bound_file(model: str, config: ModelRunConfig, digest: str) -> Path:
    """Where the bound of a model is kept."""
    text = json.dumps(_key(model, config, digest), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return cache_dir() / "self-cd" / "bounds" / f"{name}.json"


def _key(model: str, config: ModelRunConfig, digest: str) -> dict[str, object]:
    return {
        "model": _place(model),
        "adapter": None if config.adapter is None else _place(config.adapter),
        "quantization": config.quantization,
        "prompts": digest,
    }


def _place(ref: str) -> str:
    """A folder by its full path, so that it is the same from everywhere."""
    found = directory(ref)
    return ref if found is None else str(found.resolve())
