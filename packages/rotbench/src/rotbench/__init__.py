"""RoTBench: how robust a model's tool calls are to noise in the names of tools and parameters.

    tools, changes = rotbench.disturb_tools(my_tools, "slight", "tool")
    call = rotbench.restore(rotbench.Call(name, arguments), changes)

Paper: 2401.08326. Importing this module, and what it names, needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rotbench.cases import Call, Case, CaseKey, Tool
    from rotbench.changes import Changes
    from rotbench.config import NoiseRules
    from rotbench.data import load_cases
    from rotbench.foreign import disturb_tools
    from rotbench.noise import Noised, disturb
    from rotbench.rewrite import rename_call, restore

__all__ = [
    "Call",
    "Case",
    "CaseKey",
    "Changes",
    "NoiseRules",
    "Noised",
    "Tool",
    "disturb",
    "disturb_tools",
    "load_cases",
    "rename_call",
    "restore",
]

__version__ = "1.0.0"

_HOME = {
    "Call": "cases",
    "Case": "cases",
    "CaseKey": "cases",
    "Changes": "changes",
    "NoiseRules": "config",
    "Noised": "noise",
    "Tool": "cases",
    "disturb": "noise",
    "disturb_tools": "foreign",
    "load_cases": "data",
    "rename_call": "rewrite",
    "restore": "rewrite",
}


def __getattr__(name: str) -> object:
    """Imports what is asked for, so that `rotbench --help` need not."""
    if name in _HOME:
        return getattr(import_module(f"rotbench.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rotbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is there, with what is imported only when it is asked for."""
    return sorted({*globals(), *_HOME})
