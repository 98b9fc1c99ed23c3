"""The flags of one verb: tyro over a config and the run flags, side by side and without prefixes.

tyro only reads the command line here. It gives back plain data, so that presets, files and flags
are all validated in one place (`papercore.config.validate`) and complain in the same words.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro
from pydantic import BaseModel, create_model
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from papercore.config import Config, RunFlags, validate

__all__ = ["InfoConfig", "ReportConfig", "has_positionals", "parse"]

C = TypeVar("C", bound=Config)
_MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.PositionalMetavarFromFieldName)


class InfoConfig(Config):
    """Config of the verb `info`."""

    recipe: Literal["mini", "paper"] | None = None
    """Print this recipe instead."""


class ReportConfig(Config):
    """Config of the verb `report`."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    recheck: bool = False
    """Rebuild everything from records.jsonl elsewhere and compare byte by byte."""


class _CommandLine:
    """Stands for the whole command line: a config and the run flags."""


def parse(
    model: type[C],
    settings: Mapping[str, object],
    args: Sequence[str],
    *,
    prog: str,
    about: str,
    source: str = "",
) -> tuple[C, RunFlags]:
    """Read flags on top of settings.

    Args:
        model: The verb's config class.
        settings: What preset and files say; they are the flags' defaults.
        args: The command line after verb, preset and files.
        prog: The command as the user typed it.
        about: The text above the flags in `--help`.
        source: The files that the settings come from, for error messages.

    Raises:
        ConfigError: The settings and flags together are not a valid config.
        SystemExit: After `--help` (0), or when tyro rejects the line (2).
    """
    registry = ConstructorRegistry()
    default = _partial(model, settings, source)

    @registry.struct_rule
    def _rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type is _CommandLine:
            pair = (_flat("config", model, default), _flat("flags", RunFlags, RunFlags()))
            return StructConstructorSpec(instantiate=dict, fields=pair)
        if inspect.isclass(info.type) and issubclass(info.type, BaseModel):
            return StructConstructorSpec(instantiate=dict, fields=_fields(info.type, info.default))
        return None

    raw = tyro.cli(
        _CommandLine, args=args, prog=prog, description=about, registry=registry, config=_MARKERS
    )
    given = typing.cast("dict[str, dict[str, object]]", raw)
    config = validate(model, given["config"])
    return config, validate(RunFlags, given["flags"])


def has_positionals(model: type[BaseModel]) -> bool:
    """Whether a config takes arguments without a flag."""
    return any(
        marker is tyro.conf.Positional
        for field in model.model_fields.values()
        for marker in field.metadata
    )


def _partial(model: type[Config], settings: Mapping[str, object], source: str) -> Config:
    """A config from settings in which required fields may still be missing."""
    missing = {
        name: tyro.MISSING
        for name, field in model.model_fields.items()
        if field.is_required() and name not in settings
    }
    if not missing:
        return validate(model, settings, source=source)
    given: dict[str, typing.Any] = {
        name: (field.annotation, field)
        for name, field in model.model_fields.items()
        if name not in missing
    }
    subset: type[Config] = create_model(model.__name__, __base__=Config, **given)
    valid = validate(subset, settings, source=source)
    values: dict[str, typing.Any] = {**dict(valid), **missing}
    return model.model_construct(**values)


def _flat(name: str, model: type[Config], default: Config) -> StructFieldSpec:
    """A config whose flags carry no prefix."""
    unprefixed: typing.Any = Annotated[model, tyro.conf.arg(name="")]
    return StructFieldSpec(name=name, type=unprefixed, default=default)


def _fields(model: type[BaseModel], default: object) -> tuple[StructFieldSpec, ...]:
    hints = typing.get_type_hints(model, include_extras=True)
    return tuple(
        StructFieldSpec(
            name=name,
            type=hints[name],
            default=getattr(default, name, tyro.MISSING),
            helptext=field.description,
        )
        for name, field in model.model_fields.items()
    )
