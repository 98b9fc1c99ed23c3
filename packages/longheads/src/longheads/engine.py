"""The attention function that a model calls while LongHeads is enabled (spec 2.3 to 2.6, 2.10).

Per layer and forward pass: store the new keys and values in their pages, summarise the chunks that
became complete, choose chunks for every query, attend. One new token per row takes the gathering
path; more tokens take the chunk-major path, block by block, so that memory does not grow with the
square of the text nor with the text at all, apart from the cache.

Axes: B batch, R rows of a group, H query heads, S selecting heads, G KV heads, T tokens, C chunks,
K slots, L tokens of a chunk, D head width.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from longheads.attention import Pages, Plan, Room, attend_chunk_major, attend_gathered
from longheads.cache import TAIL_CHUNKS, LongHeadsLayer, row_index
from longheads.choice import Chooser
from longheads.chunks import represent
from longheads.config import IMPLEMENTATION
from longheads.kernels import attend_decode, attend_prefill, available
from longheads.state import Group, ModelState, Newest, layer_index
from papercore.errors import ModelError

F = TypeVar("F", bound=Callable[..., object])

WORKSPACE_BYTES = 128 << 20
"""Memory for intermediate results of one layer; bounds the blocks."""

GPU_WORKSPACE_BYTES = 1 << 30
"""The same on a GPU, which needs larger blocks to be busy."""

STATE_ATTRIBUTE = "longheads_state"
"""Where `enable` puts the `ModelState` on each attention module."""


def untraced(function: F) -> F:
    """Keeps torch.compile out: what happens inside depends on the text, so it would never end."""
    return cast("F", torch.compiler.disable(function))  # type: ignore[no-untyped-call]


@untraced
def longheads_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function behind the attention implementation `longheads`.

    Shapes:
        query: BHTD, key and value: BGTD, at local rotation; returns BTHD.
    """
    state: ModelState | None = getattr(module, STATE_ATTRIBUTE, None)
    if state is None:
        raise ModelError(
            f"attention implementation {IMPLEMENTATION!r} is set on a model on which LongHeads is "
            "not enabled: call longheads.enable(model, ...)"
        )
    _refuse_options(query, dropout, options)
    layer = state.layer(module)
    if layer.sliding_window != sliding_window:
        raise ModelError(
            f"layer {layer_index(module)}: sliding window {sliding_window} was not expected"
        )
    if not layer.is_initialized:
        layer.lazy_initialization(key, value)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = _Call(state, layer, layer_index(module), scale, options.get("softcap"))
    out = call.run(query, key, value)
    return out.transpose(1, 2).contiguous(), None


class _Call:
    """One layer in one forward pass."""

    def __init__(
        self,
        state: ModelState,
        layer: LongHeadsLayer,
        index: int,
        scale: float,
        softcap: float | None,
    ) -> None:
        self.state = state
        self.layer = layer
        self.index = index
        self.scale = scale
        self.softcap = softcap
        self.rotation = state.rotation(layer.device, index)
        self.workspace = GPU_WORKSPACE_BYTES if layer.device.type == "cuda" else WORKSPACE_BYTES
        self.chunk_len = layer.chunk_len
        self.chooser = Chooser(state, layer, index)
        self._attend_chunk_major = partial(attend_chunk_major, room=Room())

    def run(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores the new tokens and answers their queries."""
        step, layer = self.state.step, self.layer
        batch, kv_heads, columns, width = key.shape
        longest = max(group.start + group.count for group in step.groups)
        layer.reserve_(batch, kv_heads, query.shape[1], width, longest)
        if step.is_decode:
            out = self._decode(query, key, value)
        else:
            out = self._prefill_groups(query, key, value)
        layer.note_rows_(step.groups, columns)
        return out

    # many tokens

    def _prefill_groups(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        groups = [group for group in self.state.step.groups if group.count]
        if (
            len(groups) == 1
            and groups[0].count == query.shape[2]
            and len(groups[0].rows) == len(query)
        ):
            return self._prefill(groups[0], query, key, value)
        out = torch.zeros_like(query)
        for group in groups:
            rows = list(group.rows)
            span = slice(group.column, group.column + group.count)
            part = (tensor[rows][:, :, span] for tensor in (query, key, value))
            out[rows, :, span] = self._prefill(group, *part)
        return out

    def _prefill(self, group: Group, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, start = group.rows, group.start
        self.layer.write_(rows, start, key, value)
        if not self.layer.is_sliding:
            self._represent_new_(rows, start, query)
        out = torch.empty_like(query)
        for low, high in self._blocks(query, start):
            positions = torch.arange(start + low, start + high, device=query.device)
            part = query[:, :, low:high]
            chunks = self.chooser.choose(
                rows, positions.unsqueeze(0), part, furthest=start + high - 1, decode=False
            )
            out[:, :, low:high] = self._attend_block(rows, positions, chunks, part)
        self.layer.keep_queries_(rows, start, query)
        return out

    def _blocks(self, query: Tensor, start: int) -> Iterator[tuple[int, int]]:
        """Cuts the tokens into blocks; none lies on both sides of the window."""
        rows, heads, tokens, width = query.shape
        slots = self.state.max_slots
        for_choices = self.workspace // (8 * rows * heads * slots)
        for_answers = self.workspace // (slots * (4 * width + 64))  # of one head
        room = min(for_choices, for_answers) // self.chunk_len * self.chunk_len
        size = max(self.chunk_len, room)
        border = max(0, self.state.window - start)
        low = 0
        while low < tokens:
            high = min(tokens, low + size)
            if low < border < high and not self.layer.is_sliding:
                high = border
            yield low, high
            low = high

    def _attend_block(
        self, rows: Sequence[int], positions_T: Tensor, chunk_RSTK: Tensor, query_RHTD: Tensor
    ) -> Tensor:
        """Attention of one block of tokens, over as many heads at once as the workspace holds."""
        num_rows, heads, tokens, width = query_RHTD.shape
        kv_heads = self.layer.kv_heads
        group = heads // kv_heads
        first_TK, last_TK, masked = self._bounds(positions_T, chunk_RSTK.shape[-1])
        per_head = tokens * chunk_RSTK.shape[-1] * (4 * width + 64)
        per_kv_head = per_head * group + self.layer.staged_bytes()
        kv_step = max(1, min(kv_heads, self.workspace // per_kv_head))
        row_step = max(1, self.workspace // (per_kv_head * kv_heads))
        out = torch.empty_like(query_RHTD)
        places = [
            (slice(row, row + row_step), slice(kv * group, (kv + kv_step) * group))
            for row in range(0, num_rows, row_step)
            for kv in range(0, kv_heads, kv_step)
        ]
        parts = [
            self._page_index(rows[at[0]], chunk_RSTK[at[0]], heads)[:, at[1]].flatten(0, 1)
            for at in places
        ]
        for at, (pages, page) in zip(places, self.layer.stage(parts), strict=True):
            part = query_RHTD[at].flatten(0, 1)
            attend = attend_prefill if self._on_kernel(part, pages) else self._attend_chunk_major
            flat = attend(
                part,
                pages,
                Plan(page, first_TK, last_TK, masked),
                self.rotation,
                scale=self.scale,
                softcap=self.softcap,
            )
            out[at] = flat.view_as(out[at])
        return out

    # one token per row

    def _decode(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        layer = self.layer
        newest = self.state.step.newest(query.device)
        if not newest.rows:
            return torch.zeros_like(query)
        at = newest.row_A, slice(None), newest.column_A
        query_AHD = query[at]
        layer.write_one_(newest, key[at], value[at])
        layer.keep_query_(newest, query_AHD)
        if not layer.is_sliding:
            self._represent_completed_(newest)
        out = torch.zeros_like(query)
        out[at] = self._decode_attend(newest, query_AHD.unsqueeze(2)).squeeze(2)
        return out

    def _decode_attend(self, newest: Newest, query_AH1D: Tensor) -> Tensor:
        heads, kv_heads = query_AH1D.shape[1], self.layer.kv_heads
        chunk_ASK = self.chooser.choose_ragged(newest, query_AH1D)
        num_select = chunk_ASK.shape[1]
        if num_select == 1:
            chunk_ASK = chunk_ASK.expand(-1, kv_heads, -1)
            num_select = kv_heads
        page_ASK = self._page_index(newest.rows, chunk_ASK.unsqueeze(2), num_select).squeeze(2)
        first_AK, last_AK, _ = self._bounds(newest.position_A, chunk_ASK.shape[-1], decode=True)
        pages, page_ASK = self.layer.resident(page_ASK)
        query = query_AH1D.view(len(newest.rows), num_select, heads // num_select, -1)
        attend = attend_decode if self._on_kernel(query, pages) else attend_gathered
        out = attend(
            query,
            pages,
            page_ASK,
            self.rotation,
            first_BK=first_AK,
            last_BK=last_AK,
            scale=self.scale,
            softcap=self.softcap,
        )
        return out.reshape(query_AH1D.shape)

    def _on_kernel(self, query: Tensor, pages: Pages) -> bool:
        return self.state.config.kernel == "auto" and available(query, pages)

    # representations

    def _represent_new_(self, rows: Sequence[int], start: int, query: Tensor) -> None:
        """Summarises the chunks that a run of tokens completes."""
        tail = self.layer.tail_queries
        assert tail is not None
        first, offset = divmod(start, self.chunk_len)
        done = (start + query.shape[2]) // self.chunk_len
        skipped = 0
        if offset and done > first:
            skipped = self.chunk_len - offset
            earlier = tail[list(rows), :, first % TAIL_CHUNKS, :offset]
            whole = torch.cat([earlier, query[:, :, :skipped]], dim=2)
            self._represent_(rows, first, whole.unsqueeze(2))
            first += 1
        count = done - first
        if count <= 0:
            return
        whole = query[:, :, skipped : skipped + count * self.chunk_len]
        chunked = whole.reshape(*whole.shape[:2], count, self.chunk_len, -1)
        work = chunked.shape[0] * chunked.shape[1] * self.chunk_len * max(self.chunk_len, 64)
        step = max(1, self.workspace // 64 // work)
        for low in range(0, count, step):
            self._represent_(rows, first + low, chunked[:, :, low : low + step])

    def _represent_completed_(self, newest: Newest) -> None:
        """Summarises the chunks that a decoded token completes."""
        tail = self.layer.tail_queries
        assert tail is not None
        for row, position in zip(newest.rows, newest.positions, strict=True):
            if (position + 1) % self.chunk_len == 0:
                chunk = position // self.chunk_len
                self._represent_(
                    [row], chunk, tail[row : row + 1, :, chunk % TAIL_CHUNKS].unsqueeze(2)
                )

    def _represent_(self, rows: Sequence[int], first: int, query_RHCLD: Tensor) -> None:
        reps = self.layer.reps
        assert reps is not None
        count = query_RHCLD.shape[2]
        kind, seed = self.state.config.chunk_rep, self.state.config.seed
        group = query_RHCLD.shape[1] // self.layer.kv_heads
        key, value = (
            states.repeat_interleave(group, dim=1)
            for states in self.layer.chunk_states(rows, first, count)
        )
        chosen = row_index(rows, reps.shape[0])
        reps[chosen, :, first : first + count] = represent(
            query_RHCLD, key, value, scale=self.scale, softcap=self.softcap, kind=kind, seed=seed
        ).to(reps.dtype)

    # what a query may see

    def _bounds(
        self, position_X: Tensor, num_slots: int, *, decode: bool = False
    ) -> tuple[Tensor | None, Tensor, tuple[int, ...]]:
        """Lowest and highest key offset per slot, XK, and the slots where they hide keys."""
        offset_X = position_X % self.chunk_len
        last_XK = position_X.new_full((*position_X.shape, num_slots), self.chunk_len - 1)
        last_XK[..., -1] = offset_X
        if self.state.config.compat == "official" and not decode and not self.layer.is_sliding:
            last_XK[..., -1] -= (position_X >= self.state.window).long()
        window = self.layer.sliding_window
        if window is None:
            return None, last_XK, (num_slots - 1,)
        start_XK = (position_X // self.chunk_len).unsqueeze(-1) * self.chunk_len
        steps = torch.arange(1 - num_slots, 1, device=position_X.device)
        start_XK = start_XK + steps * self.chunk_len
        first_XK = (position_X.unsqueeze(-1) - window + 1 - start_XK).clamp(min=0)
        masked = {slot for slot in (0, 1, num_slots - 1) if slot < num_slots}
        return first_XK, last_XK, tuple(sorted(masked))

    def _page_index(self, rows: Sequence[int], chunk_RSTK: Tensor, heads: int) -> Tensor:
        """Flat pages for `heads` heads, from chunks chosen by fewer of them."""
        kv_heads = self.layer.kv_heads
        shape = (len(rows), -1, *chunk_RSTK.shape[2:])
        chunk = chunk_RSTK.expand(len(rows), -1, -1, -1)
        if chunk.shape[1] == 1:
            chunk = chunk.expand(-1, heads, -1, -1)
        elif chunk.shape[1] != heads:
            chunk = chunk.repeat_interleave(heads // chunk.shape[1], dim=1)
        kv_head = torch.arange(heads, device=chunk.device) // (heads // kv_heads)
        return self.layer.page_index(rows, chunk, kv_head.view(1, heads, 1, 1)).view(shape)


def _refuse_options(query: Tensor, dropout: float, options: dict[str, Any]) -> None:
    """Stops rather than ignore something that would change the result."""
    if options.get("s_aux") is not None:
        raise ModelError("attention sinks (s_aux) are not supported by LongHeads")
    if dropout or (query.requires_grad and torch.is_grad_enabled()):
        raise ModelError("LongHeads is for inference: call model.eval() and use torch.no_grad()")
