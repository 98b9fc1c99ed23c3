"""Configs: frozen pydantic models, merged from presets, TOML files and flags, and hashed.

    config = resolve(GenerateConfig, preset=PRESETS["tiny"], files=[Path("mine.toml")])
    digest = config_hash(config, version="1.0.0")

Settings are always merged as plain data and validated as a whole; a bad one is reported in one line
that names its dotted key, its value and what is allowed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, to_jsonable_python

from papercore.errors import ConfigError

__all__ = [
    "Config",
    "MiniConfig",
    "RunConfig",
    "RunFlags",
    "config_hash",
    "differences",
    "identifying",
    "merge",
    "near_miss",
    "one_line",
    "operational",
    "plain",
    "read_toml",
    "resolve",
    "to_toml",
    "validate",
]

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of all configs: frozen, closed to unknown keys, documented by attribute docstrings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
        protected_namespaces=(),
    )

    how: ClassVar[frozenset[str]] = frozenset()
    """Fields that say how to run, not what, such as a batch size: not part of the hash, so that a
    run can go on with other ones."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Refuses a misspelt name in `how`."""
        super().__pydantic_init_subclass__(**kwargs)
        unknown = cls.how - cls.model_fields.keys()
        assert not unknown, f"{cls.__name__}.how: no such fields: {sorted(unknown)}"


class RunConfig(Config):
    """What every command that runs something has."""

    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the model; auto chooses by device."""
    limit: int | None = Field(default=None, gt=0)
    """Use only the first so many examples; None takes all."""


class RunFlags(Config):
    """How to run, not what: these are no part of the config's hash."""

    out: Path | None = None
    """Run folder."""
    resume: bool = False
    """Go on with the run in this folder."""
    overwrite: bool = False
    """Delete the run in this folder first."""
    dry_run: bool = False
    """Print config, hash and estimates; run nothing."""
    debug: bool = False
    """Show the traceback of an error."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; cuda:all spreads a model over all GPUs."""

    @model_validator(mode="after")
    def _one_way(self) -> RunFlags:
        if self.resume and self.overwrite:
            raise ValueError("--resume and --overwrite exclude each other: give one of them")
        return self


class MiniConfig(Config):
    """The miniature: everything from scratch on a CPU, for one seed."""

    seed: int = Field(default=0, ge=0)
    """Seed of world, model and evaluation."""
    quick: bool = False
    """Touch every line on a small budget; claims are then not measured."""
    ablate: bool = False
    """Replace the method by its identity: the effect claims must then be missed."""


def plain(config: BaseModel) -> dict[str, object]:
    """A config as JSON-like data; paths stay as given."""
    dumped: dict[str, object] = config.model_dump(mode="json")
    return dumped


def identifying(config: BaseModel) -> dict[str, object]:
    """A config as JSON-like data, without what says only how to run (`Config.how`)."""
    shown = plain(config)
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(config, Config) and name in config.how:
            del shown[name]
        elif isinstance(value, BaseModel):
            shown[name] = identifying(value)
    return shown


def operational(config: BaseModel) -> frozenset[str]:
    """Dotted keys of what says only how to run (`Config.how`)."""
    counted = {key for key, _ in _flat(identifying(config))}
    return frozenset(key for key, _ in _flat(plain(config)) if key not in counted)


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Lay `over` on `base`; tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        ConfigError: The file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None


def resolve(model: type[C], *, preset: C | None = None, files: Sequence[Path] = ()) -> C:
    """Preset, then files in order, validated together.

    Raises:
        ConfigError: A file or a setting is wrong.
    """
    data, source = layered(preset, files)
    return validate(model, data, source=source)


def layered(preset: Config | None, files: Sequence[Path]) -> tuple[dict[str, object], str]:
    """The merged settings before validation, and a name for where they came from."""
    data = {} if preset is None else plain(preset)
    for path in files:
        data = merge(data, read_toml(path))
    return data, ", ".join(str(path) for path in files)


def validate(model: type[C], data: Mapping[str, object], *, source: str = "") -> C:
    """Make a config from plain data.

    Types are as strict as in JSON: a quoted number is no number and `true` is no 1, while a list
    serves as a tuple and a string as a path.

    Args:
        model: The class of the config.
        data: Its settings.
        source: Where they came from; appended to the message of an error.

    Raises:
        ConfigError: One line with the dotted key, the value and what is allowed.
    """
    _check_unicode(data)
    encoded = json.dumps(to_jsonable_python(data, inf_nan_mode="constants"))
    try:
        return model.model_validate_json(encoded, strict=True)
    except ValidationError as error:
        where = f" (in {source})" if source else ""
        raise ConfigError(f"{_explain_all(error, model, json.loads(encoded))}{where}") from None


def _check_unicode(data: Mapping[str, object]) -> None:
    """Refuses bytes of the command line that are no text.

    Raises:
        ConfigError: There are such.
    """
    for key, value in _flat(data):
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ConfigError(f"{key}: {text!a} is no text in UTF-8: write it in UTF-8")


def one_line(error: ValidationError) -> str:
    """Pydantic's complaint as one line without addresses, whatever it complains about."""
    first = _worst(error.errors(include_url=False))
    where = ".".join(str(part) for part in first["loc"])
    reason = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {reason}" if where else reason


def config_hash(config: Config, *, version: str, data_hash: str | None = None) -> str:
    """SHA-256 over what a config says to run, the package's version and the data."""
    content = {
        "config": identifying(config),
        "kind": type(config).__name__,
        "version": version,
        "data": data_hash,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """What changed between two plain configs, as `key: old -> new` with dotted keys."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = list(before) + [key for key in after if key not in before]
    return [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in keys
        if key not in before or key not in after or before[key] != after[key]
    ]


def near_miss(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a choice looks like the word, else nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def to_toml(config: BaseModel) -> str:
    """A config as TOML that `@file.toml` reads back; None, which TOML lacks, becomes a comment."""
    return "\n".join(_toml_lines(plain(config), ())).strip() + "\n"


def _toml_lines(table: Mapping[str, object], path: tuple[str, ...]) -> Iterable[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if path:
        yield f"\n[{'.'.join(_toml_key(part) for part in path)}]"
    for key, value in table.items():
        if value is None:
            yield f"# {_toml_key(key)} is not set"
        elif key not in tables:
            yield f"{_toml_key(key)} = {_toml_value(value)}"
    for key, value in tables.items():
        yield from _toml_lines(value, (*path, key))


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "_").isidentifier()
    return key if bare else _toml_value(key)


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(key)} = {_toml_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _flat(data: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(flat: Mapping[str, object], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "(absent)"


def _worst(details: Sequence[ErrorDetails]) -> ErrorDetails:
    """The error to show first: a misspelt key explains a missing one."""
    order = {"extra_forbidden": 0, "missing": 2}
    return min(details, key=lambda detail: order.get(detail["type"], 1))


def _explain_all(error: ValidationError, model: type[Config], data: object) -> str:
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{_explain(_worst(details), model, data)}{more}"


def _explain(detail: ErrorDetails, model: type[Config], data: object) -> str:
    loc = _key_path(detail, data)
    key = ".".join(str(part) for part in loc)
    kind = detail["type"]
    if kind == "extra_forbidden":
        allowed = sorted(_fields_at(model, loc[:-1]))
        return (
            f"{key}: no such setting{near_miss(str(loc[-1]), allowed)}"
            f" (there are: {', '.join(allowed)})"
        )
    if kind == "missing":
        return f"{key}: is required but was not given"
    if kind == "value_error":
        reason = str(detail["msg"]).removeprefix("Value error, ")
        return f"{key}: {reason}" if key else reason
    return f"{key}: {_clip(detail['input'])} is not allowed: {_requirement(detail)}"


def _requirement(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        choices = [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]
        return f"one of {', '.join(choices)}{near_miss(str(detail['input']), choices)}"
    return str(detail["msg"]).removeprefix("Input ")


def _key_path(detail: ErrorDetails, data: object) -> tuple[str | int, ...]:
    """The error's place in the data, without pydantic's names for the members of a union."""
    path: list[str | int] = []
    for part in detail["loc"]:
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int)
        )
        if inside:
            data = data[part]  # type: ignore[index]
            path.append(part)
    if detail["type"] == "missing":
        path.append(detail["loc"][-1])
    return tuple(path)


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The names of the fields of the config that a path of keys leads to."""
    for part in loc:
        field = model.model_fields.get(str(part))
        nested = None if field is None else _model_in(field.annotation)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The config class within an annotation such as `Inner | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _clip(value: object, width: int = 60) -> str:
    shown = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return shown if len(shown) <= width else f"{shown[: width - 3]}..."
