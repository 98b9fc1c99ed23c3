"""Model references: one string that names a model everywhere.

    ref = parse_ref("openai:Qwen/Qwen3-8B@http://127.0.0.1:8000/v1")

A hub id or a local directory is for transformers, `vllm:<id or dir>` for vLLM,
`openai:<model>@<base_url>` for an endpoint, and `tiny:<package>` is the trained miniature of a
package.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from papercore.errors import ModelError

__all__ = ["ModelRef", "directory", "id_or_directory", "parse_ref"]

Kind = Literal["hf", "vllm", "openai", "tiny"]

_PLAIN = "a hub id or a directory"
_LOADED = "a hub id, a directory or tiny:<package>"
_FORMS = "a hub id, a directory, vllm:<id or dir>, openai:<model>@<base_url> or tiny:<package>"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PACKAGE = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class ModelRef:
    """A parsed model reference.

    Attributes:
        name: Hub id, directory, model name of an endpoint, or import name of a package.
        base_url: Of the endpoint, for `openai` only.
    """

    kind: Kind
    name: str
    base_url: str | None = None

    def __str__(self) -> str:
        if self.kind == "hf":
            return self.name
        return f"{self.kind}:{self.name}" + (f"@{self.base_url}" if self.base_url else "")

    @property
    def is_directory(self) -> bool:
        """Whether the name is a directory here."""
        return directory(self.name) is not None


def parse_ref(ref: str, *, loads: bool = False) -> ModelRef:
    """Parses a model reference; looks at no network and loads nothing.

    Args:
        ref: The reference.
        loads: Whoever asks can load a model only, not ask one elsewhere, so that messages offer no
            `vllm:` and no `openai:`; these are parsed all the same.

    Raises:
        ModelError: It has none of the forms that a reference can have.
    """
    forms = _LOADED if loads else _FORMS
    scheme, colon, rest = ref.partition(":")
    if not colon or directory(ref) is not None:
        return ModelRef("hf", id_or_directory(ref, forms))
    if scheme == "vllm":
        return ModelRef("vllm", id_or_directory(rest))
    if scheme == "openai":
        return _endpoint(rest)
    if scheme == "tiny":
        if not _PACKAGE.fullmatch(rest):
            raise ModelError(f"model {ref!r} names no package: use for instance tiny:longheads")
        return ModelRef("tiny", rest.replace("-", "_"))
    raise ModelError(f"unknown scheme {scheme + ':'!r} in model {ref!r}: use {forms}")


def _endpoint(rest: str) -> ModelRef:
    """`<model>@<base_url>`; a reference is written into run folders, so it must hold no secret."""
    start = re.search(r"@(?=https?://)", rest)
    if start is None or not rest[: start.start()]:
        shown = f"openai:{rest.split('://', 1)[0]}"
        raise ModelError(f"model {shown!r} is not openai:<model>@<base_url> with an http(s) URL")
    base_url = rest[start.end() :]
    if "@" in base_url or "?" in base_url or "#" in base_url:
        raise ModelError(
            f"the address of openai:{rest[: start.start()]} has a user, a query or a fragment: "
            "give the key in an environment variable"
        )
    return ModelRef("openai", rest[: start.start()], base_url.rstrip("/"))


def directory(name: str) -> Path | None:
    """The directory of this name, or `None`; `~` is the home directory."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # no such user
        return None
    return path if path.is_dir() else None


def id_or_directory(name: str, forms: str = _PLAIN) -> str:
    """The name, if it is a directory here or written like a hub id.

    Args:
        name: The name.
        forms: What a message offers instead.

    Raises:
        ModelError: It is neither.
    """
    if not name.strip():
        raise ModelError(f"the model reference is empty: use {forms}")
    if directory(name) is not None:
        return name
    if _HUB_ID.fullmatch(name) and not name.startswith(("./", "../")) and name.strip("."):
        return name
    raise ModelError(f"there is no directory {name!r}, and no hub id is written so: use {forms}")
