"""The old place of `self_cd.generation`, until all imports have moved.

A module of this name hides the function `self_cd.generate`: delete it with its last import.
"""

from self_cd.generation import ContrastGenerator, Stream, generate, stream

__all__ = ["ContrastGenerator", "Stream", "generate", "stream"]
