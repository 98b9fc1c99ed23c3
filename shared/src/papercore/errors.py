"""The errors a user may see: one tree, each with the exit code of the command that meets it.

A message is one line: it names the offending value and says what to do about it. Every kind is
also the standard-library error that it refines, so that library users can catch what they expect:

    raise ConfigError(f"window={window} is not a multiple of chunk={chunk}: change one")
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ConfigError",
    "DataError",
    "GenerationError",
    "ModelError",
    "PaperError",
    "SandboxError",
]


class PaperError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""

    exit_code: ClassVar[int] = 1
    """Exit code of the command: 2 for a mistake that the user can correct, 1 for a failed run."""


class ConfigError(PaperError, ValueError):
    """A setting, a flag or the way a command was called is wrong."""

    exit_code = 2


class DataError(PaperError, ValueError):
    """A data file, a record or a run folder is not what it should be."""

    exit_code = 2


class ModelError(PaperError, RuntimeError):
    """A model or a tokenizer cannot be found, loaded or used here."""

    exit_code = 2


class GenerationError(PaperError, RuntimeError):
    """A backend failed while it generated."""


class SandboxError(PaperError, RuntimeError):
    """The sandbox cannot give the protection that was asked for, or broke."""
