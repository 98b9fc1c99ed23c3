"""A key-value cache in chunk pages, with what LongHeads needs beside keys and values (spec 2.10).

Per layer: pages of keys (rotated by the offset inside the chunk) and values, one representation per
query head and complete chunk, and the queries of the last chunks, from which the representation of
an unfinished chunk is made later. Rows of a batch may have different lengths; padding is never
stored. Memory grows geometrically and nothing is concatenated per token.

Axes: B batch, G KV heads, H query heads, C chunks, L tokens of a chunk, D head width.
"""

import copy
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Self

import torch
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin

from longheads.attention import Pages
from longheads.chunks import ChunkRep, rep_width
from papercore.errors import ModelError

if TYPE_CHECKING:
    from longheads.state import Group, Newest

TAIL_CHUNKS = 3
"""Chunks whose queries are kept, the unfinished one included."""

CROP_CHUNKS = TAIL_CHUNKS - 1
"""Chunks of tokens that can always be taken back."""


@dataclass
class _Before:
    """What a layer held when a forward pass began, as far as the pass may change it.

    Attributes:
        lengths, leads, columns, tail_chunks: as in the layer.
        overwritten: queries of unfinished chunks that new ones took the place of: rows, chunk,
            RHTD.
    """

    lengths: list[int]
    leads: list[int]
    columns: int
    tail_chunks: list[list[int]]
    overwritten: list[tuple[tuple[int, ...], int, Tensor]] = field(default_factory=list)


class LongHeadsLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers types it half
    """Cache of one layer. It belongs to LongHeads: plain attention must not read it.

    Args:
        chunk_len: tokens of a chunk.
        chunk_rep: what represents a chunk; fixes the width of the representations.
        sliding_window: tokens that a sliding layer sees; such a layer keeps no representations and
            drops pages that nothing can see any more.
        capacity_tok: tokens to make room for at once.
    """

    is_croppable = True

    def __init__(
        self,
        chunk_len: int,
        *,
        chunk_rep: ChunkRep = "attention",
        sliding_window: int | None = None,
        capacity_tok: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chunk_len = chunk_len
        self.chunk_rep: ChunkRep = chunk_rep
        self.sliding_window = sliding_window
        self.is_sliding = sliding_window is not None
        self.capacity_tok = capacity_tok
        self.lengths: list[int] = []  # tokens stored per row
        self.leads: list[int] = []  # columns of padding before a row's first token
        self.seen_columns = 0  # columns of the batch so far, padding included
        self.base = 0  # chunk that lies in page 0; only sliding layers move it
        self.armed = False  # inside a forward pass of a model that has LongHeads enabled
        self._before: _Before | None = None  # what a failed pass goes back to
        self.owner: weakref.ref[nn.Module] | None = None  # the decoder that filled it
        self.choices: Mapping[str, object] = {}  # the settings it was filled under
        self.reps: Tensor | None = None
        self.tail_queries: Tensor | None = None
        self.tail_chunks: list[list[int]] = []  # which chunks these are, per row

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        shared = ("owner", "choices")
        for name, value in vars(self).items():
            setattr(twin, name, value if name in shared else copy.deepcopy(value, memo))
        return twin

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise ModelError(
            "a LongHeads cache cannot be stored: its keys belong to one model and its settings; "
            "read the text again, or copy the cache with copy.deepcopy"
        )

    # what transformers calls

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Notes dtype and device; pages come with the first tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Hands the new states through; the attention function stores them.

        Raises:
            ModelError: if another attention implementation calls it.
        """
        if not self.armed:
            raise ModelError(
                "this cache holds chunk-local keys and only LongHeads can read it: "
                "enable LongHeads on the model again or start with a new cache"
            )
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Columns seen so far, padding included, as transformers counts them.

        A pass that is open, or was interrupted, does not count.
        """
        return self._before.columns if self._before else self.seen_columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys, padding included."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def reset(self) -> None:
        """Forgets all tokens and frees the memory."""
        self.keys = self.values = self.reps = self.tail_queries = None
        self.lengths, self.leads, self.tail_chunks = [], [], []
        self.seen_columns = self.base = 0
        self.armed, self._before = False, None
        self.owner = None
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last tokens of every row; takes a negative number, as transformers does.

        Raises:
            ModelError: if the queries of the chunk that becomes unfinished are gone.
        """
        self.check_crop(tokens_to_remove)
        if self.lengths:
            self.lengths = [length + tokens_to_remove for length in self.lengths]
            self.seen_columns += tokens_to_remove

    def check_crop(self, tokens_to_remove: int) -> None:
        """Refuses what `crop` cannot do, and changes nothing; see there."""
        self.settle_()
        if tokens_to_remove > 0:
            raise ModelError(f"crop takes a negative number of tokens, got {tokens_to_remove}")
        if tokens_to_remove == 0:
            return
        for row, length in enumerate(self.lengths):
            if self.leads[row] + length != self.seen_columns:
                raise ModelError(f"cannot crop: row {row} has padding behind or between its tokens")
            self._check_crop(row, length + tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorders the rows for beam search."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats every row."""
        rows = torch.arange(len(self.lengths)).repeat_interleave(repeats)
        self.batch_select_indices(rows)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps the given rows, in the given order."""
        self.settle_()
        everything = list(range(len(self.lengths)))
        rows = torch.arange(len(self.lengths))[indices.cpu()].tolist() if everything else []
        if rows != everything:
            self._select_(rows)

    def _select_(self, rows: list[int]) -> None:
        self.lengths = [self.lengths[row] for row in rows]
        self.leads = [self.leads[row] for row in rows]
        self.tail_chunks = [list(self.tail_chunks[row]) for row in rows]
        for name in ("keys", "values", "reps", "tail_queries"):
            tensor = getattr(self, name)
            if tensor is not None:
                with torch.inference_mode(mode=False):
                    index = torch.as_tensor(rows, device=tensor.device)
                    setattr(self, name, tensor.index_select(0, index))

    def offload(self) -> None:
        """Refuses: moving a whole layer per step is the wrong grain for chunk pages."""
        raise ModelError(
            "LongHeads caches cannot use transformers' offloading: set offloading=False"
        )

    def prefetch(self) -> None:
        """See `offload`."""
        raise ModelError(
            "LongHeads caches cannot use transformers' offloading: set offloading=False"
        )

    # a forward pass

    def open_pass_(self) -> None:
        """Begins a forward pass: all of it will count, or nothing."""
        tails = [list(chunks) for chunks in self.tail_chunks]
        self._before = _Before(list(self.lengths), list(self.leads), self.seen_columns, tails)
        self.armed = True

    def close_pass_(self, *, whole: bool) -> None:
        """Ends a forward pass; after one that failed the layer holds what it held before."""
        before, self._before, self.armed = self._before, None, False
        if whole:
            self.drop_unseen_()
        elif before is not None and not before.lengths:
            owner = self.owner
            self.reset()
            self.owner = owner
        elif before is not None:
            self.lengths, self.leads = before.lengths, before.leads
            self.seen_columns = before.columns
            self.tail_chunks = [
                [chunk if chunk == now else -1 for chunk, now in zip(*both, strict=True)]
                for both in zip(before.tail_chunks, self.tail_chunks, strict=True)
            ]
            for rows, chunk, queries in before.overwritten:
                assert self.tail_queries is not None
                slot = chunk % TAIL_CHUNKS
                self.tail_queries[list(rows), :, slot, : queries.shape[2]] = queries
                self._note_tail_(rows, chunk)

    def settle_(self) -> None:
        """Takes back what a pass left behind that was interrupted."""
        if self.armed:
            self.close_pass_(whole=False)

    def note_rows_(self, groups: "Sequence[Group]", columns: int) -> None:
        """Counts the tokens that a pass has stored."""
        for group in groups:
            for row in group.rows if group.count else ():
                if not self.lengths[row]:
                    self.leads[row] = self.seen_columns + group.column
                self.lengths[row] = group.start + group.count
        self.seen_columns += columns

    # what the attention function calls

    @property
    def kv_heads(self) -> int:
        """KV heads per row."""
        return self._stored()[0].shape[1]

    def resident(self, page: Tensor) -> tuple[Pages, Tensor]:
        """Pages on the device for one new token per row, and where those of `page` lie in them.

        Shapes:
            page: from `page_index`, -1 for none; returned with the same shape.
        """
        return self._flat_pages(), page

    def stage(self, parts: Sequence[Tensor]) -> Iterator[tuple[Pages, Tensor]]:
        """The same for many queries, part by part."""
        pages = self._flat_pages()
        for page in parts:
            yield pages, page

    def staged_bytes(self) -> int:
        """Device memory that the pages of one row and KV head may take in `stage`."""
        return 0

    def page_index(self, rows: Sequence[int], chunk: Tensor, kv_head: Tensor) -> Tensor:
        """Flat page of each (row, KV head, chunk); -1 stays -1.

        Shapes:
            chunk: B..., one leading entry per row. kv_head: broadcastable to chunk.
        """
        keys, _ = self._stored()
        heads, capacity = keys.shape[1], keys.shape[2]
        row = torch.as_tensor(list(rows), device=chunk.device)
        row = row.view(-1, *([1] * (chunk.dim() - 1)))
        index = (row * heads + kv_head) * capacity + chunk - self.base
        return torch.where(chunk < self.base, -1, index)

    def chunk_states(self, rows: Sequence[int], first: int, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values of some chunks in a row.

        Shapes:
            returns RGCLD, twice.
        """
        index = row_index(rows, len(self.lengths))
        keys, values = (pages[:, :, first : first + count] for pages in self._stored())
        return keys[index], values[index]

    def reserve_(self, batch: int, kv_heads: int, heads: int, width: int, length: int) -> None:
        """Makes room for rows of up to `length` tokens."""
        if not self.lengths:
            self.lengths, self.leads = [0] * batch, [0] * batch
            self.tail_chunks = [[-1] * TAIL_CHUNKS for _ in range(batch)]
        if len(self.lengths) != batch:
            raise ModelError(f"the cache holds {len(self.lengths)} rows but the batch has {batch}")
        wanted = -(-length // self.chunk_len) - self.base
        have = 0 if self.keys is None else self.keys.shape[2]
        if wanted <= have:
            return
        # a sliding layer drops what nothing sees any more, so it never holds a whole text
        planned = 0 if self.is_sliding else -(-self.capacity_tok // self.chunk_len)
        grown = have + have // 4 if have else planned
        capacity = max(wanted + 1 + wanted // 16, grown)
        shape = (batch, kv_heads, capacity, self.chunk_len, width)
        reps, queries = self.reps, self.tail_queries
        with torch.inference_mode(mode=False):  # a later pass may run in another mode
            if not self.is_sliding:
                rep_shape = (batch, heads, capacity, rep_width(width, self.chunk_rep))
                reps = self._grown(reps, rep_shape)
                if queries is None:
                    queries = self._new((batch, heads, TAIL_CHUNKS, self.chunk_len, width))
            # all or none: memory may run out at any of them
            self.keys, self.values = self._grown_pages(shape)
        self.reps, self.tail_queries = reps, queries

    def write_(self, rows: Sequence[int], start: int, key: Tensor, value: Tensor) -> None:
        """Stores tokens `start`, `start`+1, ... of some rows that have equal lengths.

        Shapes:
            key, value: one entry per row, G, T, D.
        """
        begin = start - self.base * self.chunk_len
        index = row_index(rows, len(self.lengths))
        for pages, new in zip(self._stored(), (key, value), strict=True):
            pages.flatten(2, 3)[index, :, begin : begin + key.shape[2]] = new

    def write_one_(self, newest: "Newest", key: Tensor, value: Tensor) -> None:
        """Stores one token of each active row at its own position.

        Shapes:
            key, value: one entry per row, G, D.
        """
        place = newest.position_A - self.base * self.chunk_len
        for pages, new in zip(self._stored(), (key, value), strict=True):
            pages.flatten(2, 3)[newest.row_A, :, place] = new

    def keep_queries_(self, rows: Sequence[int], start: int, query: Tensor) -> None:
        """Keeps the queries of the last chunks, for representations to come.

        Shapes:
            query: one entry per row, H, T, D; its first token is at position `start`.
        """
        if self.tail_queries is None:
            return
        end = start + query.shape[2]
        index = row_index(rows, len(self.lengths))
        self._remember_tail_(rows, start, end)
        first = max(start // self.chunk_len, (end - 1) // self.chunk_len - TAIL_CHUNKS + 1)
        for chunk in range(first, (end - 1) // self.chunk_len + 1):
            low, high = max(start, chunk * self.chunk_len), min(end, (chunk + 1) * self.chunk_len)
            offset = low - chunk * self.chunk_len
            kept = self.tail_queries[:, :, chunk % TAIL_CHUNKS, offset : offset + high - low]
            kept[index] = query[:, :, low - start : high - start]
            self._note_tail_(rows, chunk)

    def keep_query_(self, newest: "Newest", query: Tensor) -> None:
        """Keeps the query of one token of each active row.

        Shapes:
            query: one entry per row, H, D.
        """
        if self.tail_queries is None:
            return
        chunk_A = newest.position_A // self.chunk_len
        offset_A = newest.position_A % self.chunk_len
        self.tail_queries[newest.row_A, :, chunk_A % TAIL_CHUNKS, offset_A] = query
        for row, position in zip(newest.rows, newest.positions, strict=True):
            self._note_tail_([row], position // self.chunk_len)

    def drop_unseen_(self) -> None:
        """Lets a sliding layer forget pages that no later token and no crop can reach."""
        if self.sliding_window is None or self.keys is None or self.values is None:
            return
        reach = min(self.lengths) - self.sliding_window - TAIL_CHUNKS * self.chunk_len
        surplus = reach // self.chunk_len - self.base
        if surplus < max(8, self.keys.shape[2] // 2):
            return
        with torch.inference_mode(mode=False):
            self.keys = self.keys[:, :, surplus:].clone()
            self.values = self.values[:, :, surplus:].clone()
        self.base += surplus

    def _remember_tail_(self, rows: Sequence[int], start: int, end: int) -> None:
        """Copies the queries of the unfinished chunk if the new ones take their place."""
        chunk, offset = divmod(start, self.chunk_len)
        if self._before is None or self.tail_queries is None or not offset:
            return
        if (end - 1) // self.chunk_len - chunk >= TAIL_CHUNKS:
            kept = self.tail_queries[list(rows), :, chunk % TAIL_CHUNKS, :offset]  # a copy
            self._before.overwritten.append((tuple(rows), chunk, kept))

    def _note_tail_(self, rows: Sequence[int], chunk: int) -> None:
        for row in rows:
            self.tail_chunks[row][chunk % TAIL_CHUNKS] = chunk

    def _check_crop(self, row: int, new: int) -> None:
        chunk, rest = divmod(new, self.chunk_len)
        if self.is_sliding:
            lost = self._dropped(new)
        else:
            lost = rest != 0 and self.tail_chunks[row][chunk % TAIL_CHUNKS] != chunk
        if new < 0 or lost:
            raise ModelError(
                f"cannot crop from {self.lengths[row]} to {new} tokens: only the last "
                f"{CROP_CHUNKS} chunks of {self.chunk_len} tokens can be taken back"
            )

    def _dropped(self, length: int) -> bool:
        return max(0, length - (self.sliding_window or 0)) // self.chunk_len < self.base

    def _flat_pages(self) -> Pages:
        keys, values = self._stored()
        return Pages(keys.flatten(0, 2), values.flatten(0, 2))

    def _stored(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None, "nothing stored yet"
        return self.keys, self.values

    def _grown_pages(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self._grown(self.keys, shape), self._grown(self.values, shape)

    def _new(self, shape: Sequence[int]) -> Tensor:
        return torch.zeros(*shape, dtype=self.dtype, device=self.device)

    def _grown(self, old: Tensor | None, shape: Sequence[int]) -> Tensor:
        new = self._new(shape)
        if old is not None:
            new[:, :, : old.shape[2]] = old
        return new


def row_index(rows: Sequence[int], batch: int) -> slice | list[int]:
    """All rows as a slice, which is a view; some rows as a list."""
    return slice(None) if list(rows) == list(range(batch)) else list(rows)
