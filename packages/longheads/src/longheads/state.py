"""What one model knows while LongHeads is enabled on it, and what one forward pass knows.

Nothing here is global: two models, or two threads that use one model, do not meet.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from longheads.cache import LongHeadsLayer
from longheads.config import LongHeadsConfig
from longheads.rotary import RotaryKind, Rotation, model_rotation
from longheads.selection import Rules
from papercore.errors import ModelError

if TYPE_CHECKING:
    from longheads.plugin import Handle


class SelectionSink(Protocol):
    """Receives the choices of every layer."""

    def __call__(self, layer: int, rows: Sequence[int], positions: Tensor, chunks: Tensor) -> None:
        """Takes the positions of the queries, RT, and the chunks they read, RSTK (-1: none)."""


Boost = Callable[[int, Sequence[int], Tensor], Tensor | None]
"""(layer, rows, masked scores RSTC) -> scores to use instead; for oracle selection."""


@dataclass(frozen=True)
class Group:
    """Rows of a batch that get equally many new tokens after equally many old ones."""

    rows: tuple[int, ...]
    start: int
    column: int
    count: int


@dataclass(frozen=True)
class Newest:
    """One new token per active row, as numbers and as tensors on a device.

    Axes: A active rows.
    """

    rows: tuple[int, ...]
    positions: tuple[int, ...]
    row_A: Tensor
    column_A: Tensor
    position_A: Tensor

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device) -> "Newest":
        """The new tokens of the groups that have one."""
        active = [(row, g.start, g.column) for g in groups if g.count for row in g.rows]
        row_A, position_A, column_A = torch.tensor(
            active, dtype=torch.long, device=device
        ).view(-1, 3).unbind(-1)  # fmt: skip
        rows, positions = tuple(row for row, *_ in active), tuple(start for _, start, _ in active)
        return cls(rows, positions, row_A, column_A, position_A)


@dataclass
class Step:
    """One forward pass.

    Attributes:
        layers: the layers of the cache that it reads and writes.
        groups: rows with equal lengths.
        columns: width of the batch.
        offsets_BT: offset of every token inside its chunk, for the rotary module.
        sums: what must be finite at the end, and the layer it comes from.
        inner: it is part of a call of the whole model, and ends with that.
    """

    layers: list[LongHeadsLayer]
    groups: tuple[Group, ...]
    columns: int
    offsets_BT: Tensor
    sums: list[tuple[int, Tensor]] = field(default_factory=list)
    inner: bool = False
    _newest: dict[torch.device, "Newest"] = field(default_factory=dict)

    def newest(self, device: torch.device) -> "Newest":
        """The new token of each row, when there is at most one."""
        if device not in self._newest:
            self._newest[device] = Newest.of(self.groups, device)
        return self._newest[device]

    def check_finite(self) -> None:
        """One look at the sums of all layers, so that a GPU is not waited for in each of them.

        Raises:
            ModelError: if a layer's chunk scores were not finite.
        """
        for device in {total.device for _, total in self.sums}:
            mine = [(layer, total) for layer, total in self.sums if total.device == device]
            good = torch.stack([total for _, total in mine]).isfinite().tolist()
            for (layer, _), fine in zip(mine, good, strict=True):
                if not fine:
                    raise ModelError(
                        f"layer {layer}: chunk scores are not finite (NaN or overflow in the "
                        "activations); check the weights and the dtype"
                    )

    @property
    def is_decode(self) -> bool:
        """At most one new token per row, after earlier ones."""
        return all(group.count <= 1 for group in self.groups)


@dataclass
class ModelState:
    """The settings of one model and its running forward passes.

    Attributes:
        config: what `enable` was given.
        window: W in tokens.
        rules: how slots are filled.
        attentions: the attention modules, in order of their layers.
        rotary: the model's rotary module.
        rotary_kinds: what each layer asks of it.
        sinks: who wants to see the choices.
        boost: replaces scores (oracle selection).
    """

    config: LongHeadsConfig
    window: int
    rules: Rules
    decoder: nn.Module
    attentions: tuple[nn.Module, ...]
    rotary: nn.Module
    rotary_kinds: tuple[RotaryKind, ...]
    max_slots: int
    handle: "Handle | None" = None
    sinks: list[SelectionSink] = field(default_factory=list)
    boost: Boost | None = None
    _asking: threading.local = field(default_factory=threading.local)
    _steps: dict[int, Step] = field(default_factory=dict)
    _announced: set[int] = field(default_factory=set)
    _rotations: dict[tuple[torch.device, RotaryKind], Rotation] = field(default_factory=dict)

    @cached_property
    def choices(self) -> Mapping[str, object]:
        """The settings that decide what a text is read as; a cache keeps to them."""
        config = self.config
        named = set(type(config).model_fields) - config.how - {"check_finite", "chunks"}
        return {**{name: getattr(config, name) for name in named}, "window": self.window}

    @property
    def step(self) -> Step:
        """The forward pass of this thread.

        Raises:
            ModelError: if an attention module is called outside of its model.
        """
        step = self._steps.get(threading.get_ident())
        if step is None:
            raise ModelError("LongHeads is enabled on the whole model: call the model, not a layer")
        return step

    @property
    def running(self) -> Step | None:
        """The forward pass of this thread, if there is one."""
        return self._steps.get(threading.get_ident())

    def announce(self) -> None:
        """The whole model was called in this thread; its decoder will be."""
        self._announced.add(threading.get_ident())

    def begin(self, step: Step) -> None:
        """Opens a forward pass."""
        thread = threading.get_ident()
        step.inner = thread in self._announced
        self._announced.discard(thread)
        self._steps[thread] = step
        for layer in step.layers:
            layer.open_pass_()

    def end(self, *, whole: bool) -> None:
        """Closes the forward pass of this thread, if one is open.

        Args:
            whole: it went through. If not (out of memory, say), its layers forget what they were
                given and hold what they held before; a pass that was interrupted is closed like
                that by whoever comes next.
        """
        thread = threading.get_ident()
        self._announced.discard(thread)
        step = self._steps.pop(thread, None)
        for layer in step.layers if step else ():
            layer.close_pass_(whole=whole)

    def settle(self) -> None:
        """Closes a forward pass of this thread that an interrupt left open."""
        if self.running is not None:
            self.end(whole=False)

    def abandon(self) -> None:
        """Closes the forward passes of all threads."""
        while self._steps:
            _, step = self._steps.popitem()
            for layer in step.layers:
                layer.close_pass_(whole=False)

    @property
    def asking_rotary(self) -> bool:
        """Whether this thread asks the rotary module for tables of its own."""
        return getattr(self._asking, "now", False)

    def rotation(self, device: torch.device, layer: int) -> Rotation:
        """Rotation tables of a layer on a device, asked of the model once."""
        key = (device, self.rotary_kinds[layer])
        if key not in self._rotations:
            self._asking.now = True
            try:
                self._rotations[key] = model_rotation(
                    self.rotary,
                    self.attentions[0],
                    kind=key[1],
                    chunk_len=self.config.chunk_len,
                    num_slots=self.max_slots,
                    device=device,
                )
            finally:
                self._asking.now = False
        return self._rotations[key]

    def layer(self, module: nn.Module) -> LongHeadsLayer:
        """The cache layer of an attention module in the running forward pass."""
        return self.step.layers[layer_index(module)]

    def __deepcopy__(self, memo: dict[int, object]) -> "ModelState":
        raise ModelError("a model with LongHeads enabled cannot be copied: disable LongHeads first")


def layer_index(attention: nn.Module) -> int:
    """The layer that an attention module belongs to."""
    index = attention.layer_idx
    assert isinstance(index, int), "transformers numbers its attention modules"
    return index


def plan_groups(valid_BT: Tensor | None, lengths: Sequence[int], columns: int) -> tuple[Group, ...]:
    """Sorts rows by how many tokens they have and get.

    Args:
        valid_BT: which new columns hold tokens; None: all.
        lengths: tokens that each row has stored.
        columns: new columns.

    Raises:
        ModelError: if the tokens of a row are not next to each other.
    """
    rows_of: dict[tuple[int, int, int], list[int]] = {}
    for row, length in enumerate(lengths):
        column, count = (0, columns) if valid_BT is None else _span(valid_BT[row], row)
        rows_of.setdefault((length, column, count), []).append(row)
    return tuple(
        Group(tuple(rows), start, column, count) for (start, column, count), rows in rows_of.items()
    )


def _span(valid_T: Tensor, row: int) -> tuple[int, int]:
    places = valid_T.nonzero().flatten().tolist()
    if not places:
        return 0, 0
    first, count = places[0], len(places)
    if places[-1] - first + 1 != count:
        raise ModelError(
            f"row {row} has masked tokens between its tokens: LongHeads takes padding on the left "
            "or right, not holes or packed sequences"
        )
    return first, count
