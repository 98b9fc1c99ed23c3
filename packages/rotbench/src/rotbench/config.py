"""Settings of the noise and of the commands. No torch here.

rules = NoiseRules(mode="official")
"""

import string
from typing import Literal

from pydantic import Field

from papercore.config import Config


class NoiseRules(Config):
    """How names are disturbed.

    Source: the official generator; what the paper says and it does not is marked.
    """

    mode: Literal["strict", "official"] = "strict"
    """`official` has the released data's distributions: names may collide or become empty.
    `strict` has neither, changes every gold call, and can be undone."""
    alphabet: str = string.ascii_letters
    """Letters of made-up names. Source: official generator, upper and lower case, no digits."""
    share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the names that is drawn to be changed, rounded up; the gold's come on top."""
    edits: float = Field(default=1 / 3, gt=0.0, le=1.0)
    """Slight: edits per letter of a name, rounded up, is the bound on the number of edits."""
    nonsense_tool: int = Field(default=10, ge=1)
    """Medium: longest made-up name of a tool."""
    nonsense_parameter: int = Field(default=5, ge=1)
    """Medium: longest made-up name of a parameter; heavy: of an added one."""
    addendum: float = Field(default=0.5, ge=0.0, le=1.0)
    """Heavy: probability that a tool gets an added parameter rather than exchanged names."""
    addendum_value: int = Field(default=3, ge=1)
    """Heavy: longest value of an added parameter."""
