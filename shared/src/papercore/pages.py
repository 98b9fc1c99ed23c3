"""HTML from templates: escaped, self-contained, the same bytes for the same content."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

__all__ = ["data_uri", "render"]

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, content: Mapping[str, object], *, folder: Path | None = None) -> str:
    """Fill a template; whatever is put in is escaped.

    Args:
        template: File name.
        content: What the template names.
        folder: A package's own templates, which may extend those of this one; None has none.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([_TEMPLATES] if folder is None else [folder, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(content)


def data_uri(png: bytes) -> str:
    """An image to put into a page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
