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
    from longheads.plugin import Handle, disable, enable, enabled

__all__ = ["WINDOWS", "Handle", "LongHeadsConfig", "disable", "enable", "enabled"]

__version__ = "1.0.0"

_HEAVY = ("Handle", "disable", "enable", "enabled")


def __getattr__(name: str) -> object:
    """Imports the parts that need torch when they are asked for."""
    if name in _HEAVY:
        from longheads import plugin

        return getattr(plugin, name)
    raise AttributeError(f"module 'longheads' has no attribute {name!r}")
