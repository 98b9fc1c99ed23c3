"""Configs and presets of the toy package."""

from pathlib import Path

import tyro
from pydantic import Field

from papercore.config import Config, RunConfig


class Window(Config):
    """Nested settings."""

    size: int = Field(default=8, gt=0)
    """Tokens in the window."""


class GoConfig(RunConfig):
    """Config of the verb `go`."""

    window: Window = Window()
    mode: str = "plain"
    """How to go."""
    fast: bool = False


class ReadConfig(RunConfig):
    """Config of a verb with an argument."""

    source: tyro.conf.Positional[Path]
    """What to read."""
    times: int = 1


GO = {"tiny": GoConfig(), "paper": GoConfig(window=Window(size=64), mode="paper")}
READ = {"default": ReadConfig(source=Path("default.txt"))}
