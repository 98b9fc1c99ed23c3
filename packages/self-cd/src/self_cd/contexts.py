"""The two contexts of a question as token ids. No torch here.

pair = Contexts(emphasis=(1, 5, 9), plain=(1, 9))
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Contexts"]


@dataclass(frozen=True)
class Contexts:
    """Prompts of one question, up to where the answer begins.

    Attributes:
        emphasis: With the prompt that stresses safety; its logits are y.
        plain: Without it; its logits are y'.
    """

    emphasis: tuple[int, ...]
    plain: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longer one, which has less room for an answer."""
        return max(len(self.emphasis), len(self.plain))
