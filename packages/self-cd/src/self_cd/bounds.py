"""The bound that `self-cd calibrate` found for a model, kept for later commands. No torch here.

    remember_bound("my/model", config, prompter.digest, 2.1, keep=0.99, num_true=200, data=digest)
    bound_of("my/model", config, prompter.digest)          # Bound(2.1, 0.99, 200)
    check_bound(config, prompter.digest, i_know=False, alphas=(2.5,))

Above it `run` and `generate` refuse, `sweep` and `trace` warn: these are there to look.

A bound belongs to a model with its adapter, quantization and weights, to the wording of the prompts
(another safety prompt pushes otherwise) and to the openings that refusals were told by. It is never
loosened unseen: a calibration replaces earlier ones only if it keeps no smaller share of no fewer
true refusals; otherwise both are kept, and the smallest bound counts. Deleting the file forgets.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import cast

from papercore.errors import ConfigError, DataError
from papercore.files import cache_dir, read_json, write_json
from papercore.refs import directory, parse_ref
from self_cd.config import ModelRunConfig
from self_cd.margin_rule import FEW

__all__ = [
    "Bound",
    "Kept",
    "bound_file",
    "bound_of",
    "check_bound",
    "remember_bound",
    "warn_above",
    "weights_of",
]

logger = logging.getLogger(__name__)

SCHEMA = 2
_CONFIGS = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class Bound:
    """Largest strength that keeps enough refusals.

    Attributes:
        upper: The strength.
        keep: Share of the true refusals that it keeps.
        num_true: How many true refusals it was found with.
    """

    upper: float
    keep: float
    num_true: int

    def __str__(self) -> str:
        return f"{self.shown} (keeps {self.kept})"

    @property
    def shown(self) -> str:
        """The strength rounded down to three decimals, so that what is shown is itself allowed."""
        down = Decimal(repr(self.upper)).quantize(Decimal("0.001"), rounding=ROUND_FLOOR)
        return f"{float(down):.6g}"

    @property
    def kept(self) -> str:
        """What it keeps, in words."""
        return f"{100 * self.keep:.6g} % of {self.num_true} true refusals"

    def covers(self, other: Bound) -> bool:
        """Whether it keeps no smaller share of no fewer true refusals."""
        return self.keep >= other.keep and self.num_true >= other.num_true


@dataclass(frozen=True)
class Kept:
    """What is kept of a model after a calibration.

    Attributes:
        bound: The one that counts; None if none is kept.
        num_others: Bounds beside it that the calibration could not replace, or that stay though it
            is smaller.
        path: The file; deleting it forgets all of them.
    """

    bound: Bound | None
    num_others: int
    path: Path


def check_bound(
    config: ModelRunConfig, digest: str, *, i_know: bool, alphas: Sequence[float]
) -> None:
    """Refuses strengths above what `self-cd calibrate` found for this model; warns without a bound.

    Args:
        config: Of the command.
        digest: The prompter's, of wording and template.
        i_know: Whether the user allows them.
        alphas: All strengths that will be used.

    Raises:
        ConfigError: The largest one is above, and `i_know` is not given.
        DataError: What was kept cannot be read.
    """
    bound = bound_of(config.model, config, digest)
    strongest = max(alphas)
    if bound is None:
        logger.warning(
            "alpha %s is not calibrated for %s with these prompts and openings: `self-cd "
            "calibrate` tells how many refusals of harmful questions it costs",
            *(_number(strongest), config.model),
        )
    elif strongest > bound.upper and not i_know:
        raise ConfigError(
            f"alpha {_number(strongest)} is above {bound.shown}, up to which {config.model} keeps "
            f"{bound.kept} (self-cd calibrate): lower it, or add --i-know"
        )


def warn_above(config: ModelRunConfig, digest: str, alphas: Sequence[float]) -> None:
    """Names the strengths above the bound, for commands that are there to look at them.

    Raises:
        DataError: What was kept cannot be read.
    """
    bound = bound_of(config.model, config, digest)
    above = [] if bound is None else sorted({one for one in alphas if one > bound.upper})
    if bound is not None and above:
        logger.warning(
            "alpha %s: above %s, up to which %s keeps %s",
            *(", ".join(map(_number, above)), bound.shown, config.model, bound.kept),
        )


def bound_of(model: str, config: ModelRunConfig, digest: str) -> Bound | None:
    """The calibrated bound; None if nobody has calibrated this model with these prompts.

    Args:
        model: The model's reference.
        config: Of the command; its adapter, quantization and openings count.
        digest: The prompter's, of wording and template.

    Raises:
        DataError: What was kept cannot be read.
    """
    entries = _read(bound_file(model, config, digest))
    return _bound(entries[0]) if entries else None


def remember_bound(
    model: str,
    config: ModelRunConfig,
    digest: str,
    upper: float,
    *,
    keep: float,
    num_true: int,
    data: str = "",
) -> Kept:
    """Keeps a bound, beside those that it cannot replace; not one of few true refusals.

    Args:
        model: The model's reference.
        config: Of the command.
        digest: The prompter's.
        upper: The bound.
        keep: Share of the true refusals that it keeps.
        num_true: How many true refusals it was found with.
        data: Digest of the data that it was found with.

    Raises:
        DataError: What was kept before cannot be read.
    """
    path = bound_file(model, config, digest)
    entries = _read(path)
    if num_true >= FEW:
        found = Bound(upper, keep, num_true)
        entry = {"upper": upper, "keep": keep, "num_true": num_true, "data": data}
        stay = [one for one in entries if not found.covers(_bound(one))]
        entries = sorted([entry, *stay], key=lambda one: _bound(one).upper)
        first, *others = entries
        key = _key(model, config, digest)
        write_json(path, {"schema": SCHEMA, **key, **first, "others": others})
    return Kept(_bound(entries[0]) if entries else None, max(0, len(entries) - 1), path)


def bound_file(model: str, config: ModelRunConfig, digest: str) -> Path:
    """Where the bound of a model is kept."""
    text = json.dumps(_key(model, config, digest), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return cache_dir() / "self-cd" / "bounds" / f"{name}.json"


def weights_of(model: str, config: ModelRunConfig) -> str | None:
    """Fingerprint of the weights of a folder or tiny: model and its adapter; None for hub ids.

    Hashed are names, sizes and modification times of the safetensors files, and the config files.
    Headers would not do: a model that is trained on has the same. A copy made without its times
    counts as another model, and must be calibrated again.
    """
    refs = [ref for ref in (model, config.adapter) if ref is not None]
    places = [place for ref in refs if (place := _folder(ref)) is not None]
    if not places:
        return None
    parts: list[list[object]] = []
    for place in places:
        stats = [(file.name, file.stat()) for file in sorted(place.glob("*.safetensors"))]
        parts.append([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
        configs = [place / name for name in _CONFIGS if (place / name).is_file()]
        parts.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in configs])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _key(model: str, config: ModelRunConfig, digest: str) -> dict[str, object]:
    openings = config.contrast.openings
    return {
        "model": _place(model),
        "adapter": None if config.adapter is None else _place(config.adapter),
        "quantization": config.quantization,
        "weights": weights_of(model, config),
        "prompts": digest,
        # their order does not matter to the margins
        "refusal_openings": sorted(set(openings.refusal)),
        "answer_openings": sorted(set(openings.answer)),
    }


def _place(ref: str) -> str:
    """A folder by its full path, so that it is the same from everywhere."""
    found = directory(ref)
    return ref if found is None else str(found.resolve())


def _folder(ref: str) -> Path | None:
    """Where the weights are, if they are no hub's; for tiny: models, in the cache."""
    found = directory(ref)
    if found is not None or not ref.startswith("tiny:"):
        return found
    # loads torch, which whoever uses the model has loaded
    made: Path = importlib.import_module(f"{parse_ref(ref).name}.mini").tiny_spec(seed=0).directory
    return made


def _read(path: Path) -> list[Mapping[str, object]]:
    """Kept bounds, the smallest first."""
    if not path.exists():
        return []
    document = read_json(path)
    others = document.get("others")
    entries = [
        {name: one.get(name) for name in ("upper", "keep", "num_true", "data")}
        for one in (document, *(others if isinstance(others, list) else ()))
        if isinstance(one, dict)
    ]
    numbers = [one[name] for one in entries for name in ("upper", "keep", "num_true")]
    sound = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
    if document.get("schema") != SCHEMA or not isinstance(others, list) or not sound:
        raise DataError(f"{path}: is no bound of this version: delete it and calibrate again")
    return sorted(entries, key=lambda one: _bound(one).upper)


def _bound(entry: Mapping[str, object]) -> Bound:
    return Bound(
        upper=float(cast("float", entry["upper"])),
        keep=float(cast("float", entry["keep"])),
        num_true=int(cast("int", entry["num_true"])),
    )


def _number(alpha: float) -> str:
    return f"{alpha:.12g}"
