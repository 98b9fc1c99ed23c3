"""Ids of the records of `calibrate`, `attribute` and `trace`. No torch here.

The ids say which command wrote a record, so a run folder needs no other hint.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = [
    "CALIBRATE",
    "CONTEXTS",
    "FLOW",
    "PPL",
    "SETTINGS_ID",
    "TRACE",
    "Context",
    "flow_id",
    "margin_id",
    "ppl_id",
    "trace_id",
]

Context: TypeAlias = Literal["plain", "safety"]
"""Without and with the safety prompt."""
CONTEXTS: tuple[Context, ...] = ("plain", "safety")

CALIBRATE, FLOW, PPL, TRACE = "calibrate/", "flow/", "ppl/", "trace/"
"""How ids begin."""
SETTINGS_ID = "calibrate/settings"
"""The record with what a calibration was asked for."""


def margin_id(item: str) -> str:
    """Id of the margins of a question."""
    return f"{CALIBRATE}{item}"


def flow_id(item: str, context: Context) -> str:
    """Id of the flow of a question."""
    return f"{FLOW}{item}/{context}"


def ppl_id(item: str, context: Context) -> str:
    """Id of the perplexity of a refusal behind a question."""
    return f"{PPL}{item}/{context}"


def trace_id(item: str, step: int) -> str:
    """Id of a token of an answer."""
    return f"{TRACE}{item}/{step}"
