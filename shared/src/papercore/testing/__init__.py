"""What the tests of all packages share: tiny models, comparisons, commands and endpoints.

    from papercore.testing import assert_close, run_cli, stub_endpoint, tiny_model

The fixtures are in `papercore.testing.fixtures`, to be imported by a `conftest.py`. Only the tiny
models and `assert_close` need torch, and only when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

from papercore.testing.commands import free_port, run_cli
from papercore.testing.serving import served
from papercore.testing.stub import Answer, Call, StubEndpoint, chat, stub_endpoint, text

if TYPE_CHECKING:
    from papercore.testing.models import SHAPE, TINY, TinyKind, assert_close, tiny_model

__all__ = [
    "SHAPE",
    "TINY",
    "Answer",
    "Call",
    "StubEndpoint",
    "TinyKind",
    "assert_close",
    "chat",
    "free_port",
    "run_cli",
    "served",
    "stub_endpoint",
    "text",
    "tiny_model",
]


def __getattr__(name: str) -> object:
    """What needs torch, imported when it is first used."""
    if name in {"SHAPE", "TINY", "TinyKind", "assert_close", "tiny_model"}:
        return getattr(importlib.import_module("papercore.testing.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
