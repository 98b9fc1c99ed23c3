"""LongHeads: any proved RoPE model reads far beyond its trained length, without training.

    import longheads
    with longheads.enable(model, longheads.LongHeadsConfig(window=2048)):
        model.generate(**inputs)

Paper: 2402.10685. Importing this module needs no torch; using `enable` does.
"""

from typing import TYPE_CHECKING

from longheads.config import LongHeadsConfig
from longheads.presets import WINDOWS

if TYPE_CHECKING:
    from longheads import trace as trace
    from longheads.plugin import Handle, disable, enable, enabled

__all__ = ["WINDOWS", "Handle", "LongHeadsConfig", "disable", "enable", "enabled"]

__version__ = "1.0.0"

_HEAVY = ("Handle", "disable", "enable", "enabled")


def __getattr__(name: str) -> object:
    """Imports the parts that need torch when they are asked for."""
    if name in _HEAVY:
        from longheads import plugin

        return getattr(plugin, name)
    if name == "trace":  # the module that messages point to
        from importlib import import_module

        return import_module("longheads.trace")
    raise AttributeError(f"module 'longheads' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is there, with what is imported only when it is asked for."""
    return sorted({*globals(), *_HEAVY, "trace"})
