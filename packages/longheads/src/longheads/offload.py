"""A cache whose pages lie in the memory of the host (spec 2.10, CPU offload).

Keys and values go to the host as they come. For one new token, a pool on the device holds the pages
that each KV head read lately, and only those that are missing cross the bus. For many tokens, the
pages that a KV head needs are staged once, the next head's while this one's are read.
Representations and the last queries stay on the device; layers with a sliding window are not
offloaded, they are short.

Axes: B batch, G KV heads, C chunks, L tokens of a chunk, D head width, P pages, N lanes (B x G).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from longheads.attention import Pages
from longheads.cache import LongHeadsLayer
from longheads.chunks import ChunkRep
from longheads.config import LongHeadsConfig
from longheads.host_memory import host_pages
from longheads.lru import NOWHERE, Ints, Move, SlotTable
from papercore.errors import ConfigError

if TYPE_CHECKING:
    from longheads.state import Newest


def pool_chunks(text: PreTrainedConfig, config: LongHeadsConfig) -> int:
    """Pages per KV head that the pool of a model holds.

    Raises:
        ConfigError: `pool_chunks` is less than what one token can read.
    """
    group = text.num_attention_heads // (text.num_key_value_heads or text.num_attention_heads)
    try:
        return config.pool_for(config.window_for(int(text.max_position_embeddings)), group)
    except ValueError as error:
        raise ConfigError(str(error)) from None


class OffloadedLayer(LongHeadsLayer):  # type: ignore[no-untyped-call]  # see there
    """Cache of one layer with its pages on the host.

    Args:
        chunk_len, chunk_rep, capacity_tok: see `LongHeadsLayer`.
        pool_chunks: pages per row and KV head that stay on the device.
    """

    def __init__(
        self, chunk_len: int, *, chunk_rep: ChunkRep, capacity_tok: int, pool_chunks: int
    ) -> None:
        super().__init__(chunk_len, chunk_rep=chunk_rep, capacity_tok=capacity_tok)
        self.pool_chunks = pool_chunks
        self.hits = self.misses = self.staged_pages = 0
        self._table: SlotTable | None = None
        self._pool: Pages | None = None
        self._late: list[tuple[Newest, Tensor, Tensor]] = []  # tokens on their way to the host
        self._moving = False

    @property
    def pinned(self) -> bool:
        """Whether the host's pages are pinned, so that copies run beside the computation."""
        return self.keys is not None and self.keys.is_pinned()

    def facts(self) -> dict[str, int]:
        """Pages found and missed in the pool, staged for prompts, and bytes held."""
        tensors = [self.keys, self.values] if self.keys is not None else []
        pool = [self._pool.keys, self._pool.values] if self._pool is not None else []
        return {
            "hits": self.hits,
            "misses": self.misses,
            "staged_pages": self.staged_pages,
            "host_bytes": sum(part.nbytes for part in tensors if part is not None),
            "pool_bytes": sum(part.nbytes for part in pool),
        }

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        self._flush_()
        for part in (self.keys, self.values):
            if part is not None:
                memo[id(part)] = self._as_host(part)  # pinned too; a plain copy would not be
        return super().__deepcopy__(memo)

    # what changes the pages

    def write_(self, rows: Sequence[int], start: int, key: Tensor, value: Tensor) -> None:
        """See `LongHeadsLayer`."""
        self._flush_()
        end, beside = start + key.shape[2], self.pinned
        for pages, new in zip(self._stored(), (key, value), strict=True):
            for row, states in zip(rows, new, strict=True):
                for head, part in enumerate(states):  # each a copy of one piece, so beside the rest
                    pages[row, head].flatten(0, 1)[start:end].copy_(part, non_blocking=beside)
        self._moving = True
        if self._table is not None:
            last = (end - 1) // self.chunk_len
            self._table.forget(self._lanes(rows), start // self.chunk_len, last)

    def write_one_(self, newest: "Newest", key: Tensor, value: Tensor) -> None:
        """See `LongHeadsLayer`; the host gets the token when it is next asked."""
        late = key.to("cpu", non_blocking=True), value.to("cpu", non_blocking=True)
        self._late.append((newest, *late))
        self._moving = True
        if self._table is None or self._pool is None:
            return
        lane = self._lanes(newest.rows)
        position = np.repeat(np.asarray(newest.positions, dtype=np.int64), self.kv_heads)
        slot = self._table.find(lane, position // self.chunk_len)
        there = slot != NOWHERE
        at = self._to_device(lane[there] * self._table.slots + slot[there])
        offset = self._to_device(position[there] % self.chunk_len)
        chosen = self._to_device(np.flatnonzero(there))
        for pool, new in zip((self._pool.keys, self._pool.values), (key, value), strict=True):
            pool[at, offset] = new.flatten(0, 1)[chosen]

    def _select_(self, rows: list[int]) -> None:
        self._flush_()
        super()._select_(rows)
        if self.keys is not None and self.values is not None:
            self.keys, self.values = (self._as_host(part) for part in (self.keys, self.values))
        if self._table is not None and self._pool is not None:
            lanes = self._lanes(rows)
            self._table.select(lanes)
            slots = self._table.slots
            place = self._to_device((lanes[:, None] * slots + np.arange(slots)).flatten())
            with torch.inference_mode(mode=False):
                self._pool = Pages(self._pool.keys[place], self._pool.values[place])

    def reset(self) -> None:
        """See `LongHeadsLayer`."""
        super().reset()
        self._table = self._pool = None
        self._late, self._moving = [], False

    # what reads them

    def chunk_states(self, rows: Sequence[int], first: int, count: int) -> tuple[Tensor, Tensor]:
        """See `LongHeadsLayer`."""
        self._flush_()
        keys, values = super().chunk_states(rows, first, count)
        return keys.to(self.device), values.to(self.device)

    def resident(self, page: Tensor) -> tuple[Pages, Tensor]:
        """Fetches the pages that the pool lacks; see `LongHeadsLayer`."""
        index = page.cpu().numpy()  # waits for the choice, and so for the tokens before it
        self._flush_()
        wanted, back = np.unique(index, return_inverse=True)
        found = np.full(len(wanted), NOWHERE, dtype=np.int64)
        real = wanted >= 0
        lane, chunk = np.divmod(wanted[real], self._capacity)
        table, pool = self._resident_pool()
        missed = table.place(lane, chunk)
        self.misses += len(missed.lane)
        self.hits += len(lane) - len(missed.lane)
        self._fetch_(missed, pool, table.slots)
        found[real] = lane * table.slots + table.find(lane, chunk)
        return pool, self._to_device(found[back].reshape(index.shape))

    def stage(self, parts: Sequence[Tensor]) -> Iterator[tuple[Pages, Tensor]]:
        """Brings the pages of each part to the device once; see `LongHeadsLayer`.

        A few tokens, such as those that an assistant wrote ahead, read them from the pool.
        """
        total = len(self.lengths) * self.kv_heads * self._capacity
        used = torch.zeros(len(parts), total + 1, dtype=torch.bool, device=self.device)
        for line, page in zip(used, parts, strict=True):
            line[page.flatten() + 1] = True  # -1, no page, is at place 0
        used = used[:, 1:]
        wanted = [line.nonzero().flatten() for line in used.cpu()]  # one wait for all parts
        if parts[0].shape[1] <= self.chunk_len and all(map(self._fits, wanted)):
            yield from map(self.resident, parts)
            return
        self._flush_()
        self.staged_pages += sum(map(len, wanted))
        coming = self._copied(wanted[0])
        for number, page in enumerate(parts):
            pages = coming()
            if number + 1 < len(parts):
                coming = self._copied(wanted[number + 1])
            place = used[number].cumsum(0) - 1
            yield pages, torch.where(page < 0, page, place[page.clamp(min=0)])

    def staged_bytes(self) -> int:
        """See `LongHeadsLayer`."""
        keys, values = self._stored()
        chunks = -(-max(self.lengths, default=0) // self.chunk_len) + 1
        return 2 * chunks * (keys[0, 0, 0].nbytes + values[0, 0, 0].nbytes)

    # inside

    @property
    def _capacity(self) -> int:
        return self._stored()[0].shape[2]

    def _lanes(self, rows: Sequence[int]) -> Ints:
        row = np.asarray(rows, dtype=np.int64)[:, None]
        return (row * self.kv_heads + np.arange(self.kv_heads)).flatten()

    def _to_device(self, index: Ints) -> Tensor:
        return torch.from_numpy(index).to(self.device, non_blocking=True)

    def _grown_pages(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        self._flush_()
        new = host_pages(shape, self.dtype, self.device), host_pages(shape, self.dtype, self.device)
        for old, pages in zip((self.keys, self.values), new, strict=True):
            if old is not None:
                pages[:, :, : old.shape[2]] = old
        if self._table is not None and self._table.slots < min(self.pool_chunks, shape[2]):
            self._table = self._pool = None  # too small for what one token may now read
        if self._table is not None:
            self._table.grow(shape[2])
        return new

    def _as_host(self, pages: Tensor) -> Tensor:
        with torch.inference_mode(mode=False):
            return host_pages(pages.shape, self.dtype, self.device).copy_(pages)

    def _flush_(self) -> None:
        """Waits until the host holds every token."""
        if self._moving and self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        self._moving = False
        late, self._late = self._late, []
        for newest, *states in late:
            rows, places = list(newest.rows), list(newest.positions)
            for pages, new in zip(self._stored(), states, strict=True):
                pages.flatten(2, 3)[rows, :, places] = new

    @property
    def _slots(self) -> int:
        """Pages of a lane that the pool holds: no more than the lane has."""
        return min(self.pool_chunks, self._capacity)

    def _fits(self, pages: Tensor) -> bool:
        """Whether the pool holds so many different pages of each lane at once."""
        return not len(pages) or int(torch.bincount(pages // self._capacity).max()) <= self._slots

    def _resident_pool(self) -> tuple[SlotTable, Pages]:
        if self._table is None or self._pool is None:
            lanes, slots = len(self.lengths) * self.kv_heads, self._slots
            with torch.inference_mode(mode=False):
                self._pool = Pages(
                    *(
                        part.new_zeros(lanes * slots, *part.shape[3:], device=self.device)
                        for part in self._stored()
                    )
                )
            self._table = SlotTable(lanes, slots, self._capacity)
        return self._table, self._pool

    def _fetch_(self, move: Move, pool: Pages, slots: int) -> None:
        """Copies missing pages from the host into the pool."""
        if not len(move.lane):
            return
        source = torch.from_numpy(move.lane * self._capacity + move.chunk)
        pages = self._copied(source)()
        slot = self._to_device(move.lane * slots + move.slot)
        pool.keys[slot], pool.values[slot] = pages.keys, pages.values

    def _copied(self, index: Tensor) -> "_Copy":
        """Begins to bring pages of the host to the device."""
        keys, values = (part.flatten(0, 2) for part in self._stored())
        return _Copy(keys, values, index, self.device, pinned=self.pinned)


class _Copy:
    """Pages on their way to the device, on a stream of their own; calling it waits for them."""

    def __init__(
        self, keys: Tensor, values: Tensor, index: Tensor, device: torch.device, *, pinned: bool
    ) -> None:
        self._event: torch.cuda.Event | None = None
        self._device = device
        if device.type != "cuda":
            self._pages = Pages(keys[index], values[index])
            return
        stream = _stream(device)
        with torch.cuda.stream(stream):
            self._pages = Pages(*(_sent(part, index, device, pinned) for part in (keys, values)))
            self._event = stream.record_event()

    def __call__(self) -> Pages:
        if self._event is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(self._event)
            for part in (self._pages.keys, self._pages.values):
                part.record_stream(stream)
        return self._pages


def _sent(pages: Tensor, index: Tensor, device: torch.device, pinned: bool) -> Tensor:
    """Some pages, gathered on the host and sent; torch keeps pinned memory until it has left."""
    gathered = torch.empty((len(index), *pages.shape[1:]), dtype=pages.dtype, pin_memory=pinned)
    torch.index_select(pages, 0, index, out=gathered)
    return gathered.to(device, non_blocking=pinned)


_STREAMS: dict[torch.device, torch.cuda.Stream] = {}


def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies to a device; one is enough, since copies share the bus."""
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device]


def offload_facts(cache: Cache) -> Mapping[str, float | bool]:
    """How the offloaded layers of a cache did: hit rate, pages staged, bytes; empty without any."""
    layers = [layer for layer in cache.layers if isinstance(layer, OffloadedLayer)]
    if not layers:
        return {}
    found = [layer.facts() for layer in layers]
    total = {name: sum(facts[name] for facts in found) for name in found[0]}
    asked = total["hits"] + total["misses"]
    return {
        **total,
        "hit_rate": total["hits"] / asked if asked else float("nan"),
        "pinned": all(layer.pinned for layer in layers),
    }
