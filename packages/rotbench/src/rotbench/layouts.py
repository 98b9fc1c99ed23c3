"""What a row of trajectories looks like.

`rotbench` is the released files' own: `{"id", "conversations": [{"from", "value"}], "scenario"}`,
whose system text holds the list of tools, and whose assistant writes Thought, Action, Action Input.
`openai` is `{"id", "tools": [...], "messages": [...]}` with `tool_calls`. Details are in
`rotbench_layout` and `openai_layout`.

    trajectory = parse(json.loads(line))
    line = json.dumps(row(trajectory, "openai"))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, cast

from pydantic import JsonValue

from rotbench.cases import LEVELS
from rotbench.fields import as_table, fail
from rotbench.openai_layout import from_openai, to_openai
from rotbench.rotbench_layout import from_rotbench, to_rotbench
from rotbench.trajectories import Layout, NoiseTag, Trajectory

__all__ = ["NOISE_FIELD", "parse", "row"]

NOISE_FIELD: Final = "rotbench"
"""The field of a row in which `augment` stores how it was disturbed."""


def parse(data: object) -> Trajectory:
    """Reads a row of either layout.

    Raises:
        DataError: What is wrong, beginning with the field that is.
    """
    fields = as_table(data, "the row")
    if "conversations" in fields:
        trajectory = from_rotbench(fields)
    elif "messages" in fields:
        trajectory = from_openai(fields)
    else:
        fail("the row", "has neither conversations nor messages")
    _check_calls(trajectory)
    noise = fields.get(NOISE_FIELD)
    return trajectory if noise is None else replace(trajectory, noise=_noise(noise))


def row(trajectory: Trajectory, layout: Layout | None = None) -> dict[str, object]:
    """A row that `parse` reads back.

    Args:
        trajectory: What to write.
        layout: How; as it came if None.

    Raises:
        DataError: It has no place in this layout.
    """
    rotbench = (layout or trajectory.layout) == "rotbench"
    written = to_rotbench(trajectory) if rotbench else to_openai(trajectory)
    if trajectory.noise is not None:
        written[NOISE_FIELD] = {"level": trajectory.noise.level, **trajectory.noise.data}
    return written


def _check_calls(trajectory: Trajectory) -> None:
    """Every call must be of a tool that is there: a model should not learn to make one up."""
    names = {tool.name for tool in trajectory.tools}
    calls = trajectory.calls
    if not calls:
        fail("the row", "calls no tool")
    for call in calls:
        if call.name not in names:
            fail("the row", f"calls {call.name!r:.80}, which is not among its tools")


def _noise(value: object) -> NoiseTag:
    fields = as_table(value, NOISE_FIELD)
    level = fields.get("level")
    if level not in LEVELS:
        fail(f"{NOISE_FIELD}.level", f"should be one of {', '.join(LEVELS)}")
    data: Mapping[str, JsonValue] = {
        key: cast("JsonValue", item) for key, item in fields.items() if key != "level"
    }
    return NoiseTag(level, data)
