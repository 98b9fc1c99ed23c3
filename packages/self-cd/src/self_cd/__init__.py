"""Self-Contrastive Decoding: fewer refusals of harmless questions, without training.

    import self_cd
    answers = self_cd.generate(model, tokenizer, ["How do I kill a process?"],
                               self_cd.SelfCDConfig(alpha=2.5))

Paper: 2401.17633. Importing this module needs no torch; using it does.
"""

from typing import TYPE_CHECKING

from self_cd.config import PromptConfig, SelfCDConfig

if TYPE_CHECKING:
    from self_cd.calibration import calibrate
    from self_cd.custom import contrastive_decode
    from self_cd.generation import ContrastGenerator, generate, stream

__all__ = [
    "ContrastGenerator",
    "PromptConfig",
    "SelfCDConfig",
    "calibrate",
    "contrastive_decode",
    "generate",
    "stream",
]

__version__ = "1.0.0"

_HEAVY = {
    "ContrastGenerator": "self_cd.generation",
    "calibrate": "self_cd.calibration",
    "contrastive_decode": "self_cd.custom",
    "generate": "self_cd.generation",
    "stream": "self_cd.generation",
}


def __getattr__(name: str) -> object:
    """Imports the parts that need torch when they are asked for."""
    if name in _HEAVY:
        from importlib import import_module

        return getattr(import_module(_HEAVY[name]), name)
    raise AttributeError(f"module 'self_cd' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is there, with what is imported only when it is asked for."""
    return sorted({*globals(), *_HEAVY})
