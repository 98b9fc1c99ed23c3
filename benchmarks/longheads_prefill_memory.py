"""Memory that a prefill takes beyond its KV cache, while the length doubles.

A small Llama of transformers reads a prompt in pieces, as `longheads generate` does, and each time
in a process of its own: the most resident memory during the prefill, less what the process held
before, less keys and values of the prompt. Representations of chunks count as beyond the cache. One
more process per length follows the bytes of live tensors, which do not depend on the allocator.
The peer is the same model with full attention of torch and the cache of transformers.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

import longheads
from harness import Options, Ratio, Result, Row, device_slug, finish
from longheads import LongHeadsConfig
from longheads.continuation import read as read_prompt
from onelayer import cpu_options, load_note
from papercore.device import peak_memory, reset_peak_memory, timed

CHUNK_LEN = 256
CHUNKS = 16
PIECE_TOK = 4096
LAYERS, HEADS, KV_HEADS, WIDTH = 2, 2, 1, 64
LENGTHS = (16384, 32768, 65536)
FULL_LENGTHS = (16384, 32768)
OURS, FULL = "longheads", "full attention (SDPA)"
LIMIT = 1.3
KV_TOK_BYTES = 4 * 2 * LAYERS * KV_HEADS * WIDTH
VOCABULARY = 256
MODEL = (
    f"{LAYERS} layers, {HEADS} heads and {KV_HEADS} KV head of {WIDTH}; the KV cache takes "
    f"{KV_TOK_BYTES} bytes per token"
)

Reading = tuple[float, int]
"""CPU seconds, bytes beyond the cache."""


def main(options: Options) -> int:
    """Read each length in turn, in new processes; write the result and its figure."""
    tasks = [(OURS, n) for n in LENGTHS] + [(FULL, n) for n in FULL_LENGTHS]
    if options.quick:
        tasks = [(OURS, PIECE_TOK // 2), (OURS, PIECE_TOK), (FULL, PIECE_TOK)]
    readings: dict[tuple[str, int], list[Reading]] = {task: [] for task in tasks}
    # what a quick run reads means nothing, so most of it needs no process of its own
    read_ours = child if options.quick else read_apart
    for repetition in range(options.repetitions):
        for label, tokens in tasks if repetition % 2 == 0 else tasks[::-1]:
            read = read_ours if label == OURS else read_apart
            readings[label, tokens].append(read("resident", label, tokens))
    live = {tokens: read_ours("live", OURS, tokens)[1] for label, tokens in tasks if label == OURS}
    rows = tuple(
        Row(label, n, tuple(s for s, _ in found), max(b for _, b in found))
        for (label, n), found in readings.items()
    )
    result = Result(
        "longheads_prefill_memory",
        f"memory of a prefill beyond the KV cache grows at most {LIMIT:g} times when the length "
        f"doubles (l={CHUNK_LEN}, k={CHUNKS}, pieces of {PIECE_TOK})",
        rows,
        (*_growth(readings), *_live_growth(live)),
        x_label="tokens",
        notes=(
            MODEL,
            "the peak of a row is its largest reading beyond the cache",
            load_note(),
            *(
                f"{label} at {n}, {_listed([b for _, b in f])}"
                for (label, n), f in readings.items()
            ),
            *(f"longheads at {n}, live tensors, {_listed([b])}" for n, b in live.items()),
        ),
    )
    code = finish(result, options)
    if not options.quick:
        path = options.results / device_slug(options.device) / f"{result.name}.png"
        draw_memory(readings, path)
    return code


def read_apart(what: str, label: str, tokens: int) -> Reading:
    """What a new process measures while it reads a prompt.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    command = [sys.executable, __file__, "child", what, label, str(tokens)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds, beyond = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), int(beyond)


def child(what: str, label: str, tokens: int) -> Reading:
    """Reads a prompt; the model has read a few tokens before, so that all code is loaded."""
    torch.set_num_threads(1)
    model = _model()
    ids = torch.randint(0, VOCABULARY, (tokens,)).tolist()
    handle = None
    if label == OURS:
        handle = longheads.enable(model, LongHeadsConfig(chunk_len=CHUNK_LEN, chunks=CHUNKS))

    def run(prompt: Sequence[int]) -> None:
        read_prompt(model, prompt, handle=handle, prefill_tok=PIECE_TOK)

    run(ids[:CHUNK_LEN])
    if what == "live":
        with LivePeak() as peak:
            run(ids)
        return 0.0, peak.bytes - tokens * KV_TOK_BYTES
    return _resident(lambda: run(ids), tokens)


class LivePeak(TorchDispatchMode):
    """Follows every storage that an operation returns until it dies."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                held = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._live[storage.data_ptr()] = (held, storage.nbytes())
        self._live = {at: item for at, item in self._live.items() if not _expired(item[0])}
        self.bytes = max(self.bytes, sum(size for _, size in self._live.values()))
        return out


def draw_memory(readings: Mapping[tuple[str, int], Sequence[Reading]], path: Path) -> None:
    """The figure of this benchmark shows bytes, not seconds."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for label in (OURS, FULL):
        lengths = [n for other, n in readings if other == label]
        sizes = [[b / 2**20 for _, b in readings[label, n]] for n in lengths]
        middle = [statistics.median(s) for s in sizes]
        low = [m - min(s) for m, s in zip(middle, sizes, strict=True)]
        high = [max(s) - m for m, s in zip(middle, sizes, strict=True)]
        axes.errorbar(lengths, middle, yerr=[low, high], marker="o", capsize=3, label=label)
    axes.plot(LENGTHS, [n * KV_TOK_BYTES / 2**20 for n in LENGTHS], "k:", label="the KV cache")
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="MiB beyond the KV cache")
    axes.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
    axes.minorticks_off()
    mib = (16, 32, 64, 128, 256, 512, 1024)
    axes.set_yticks(mib, [str(size) for size in mib])
    axes.set_title("longheads_prefill_memory")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _listed(sizes: Sequence[int]) -> str:
    return "MiB beyond the cache: " + ", ".join(f"{size / 2**20:.1f}" for size in sizes)


def _expired(held: StorageWeakRef) -> bool:
    return bool(held.expired())  # type: ignore[no-untyped-call]


def _resident(run: Callable[[], object], tokens: int) -> Reading:
    if not reset_peak_memory():
        raise SystemExit("this system does not reset its mark of the most resident memory")
    before = peak_memory()
    with timed() as timer:
        run()
    return timer.cpu_s, peak_memory() - before - tokens * KV_TOK_BYTES


def _model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HEADS * WIDTH,
        intermediate_size=2 * HEADS * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=CHUNK_LEN * CHUNKS,
    )
    torch.manual_seed(0)
    model: LlamaForCausalLM = LlamaForCausalLM(config).eval()  # type: ignore[no-untyped-call]
    return model


def _growth(readings: Mapping[tuple[str, int], Sequence[Reading]]) -> list[Ratio]:
    found = []
    for label in (OURS, FULL):
        lengths = [n for other, n in readings if other == label]
        for short, long in pairwise(lengths):
            values = [
                a / b
                for (_, a), (_, b) in zip(
                    readings[label, long], readings[label, short], strict=True
                )
            ]
            found.append(_ratio(f"{label}: memory at {long} / {short}", values, label == OURS))
    return found


def _live_growth(live: Mapping[int, int]) -> list[Ratio]:
    lengths = list(live)
    return [
        _ratio(f"longheads: live tensors at {long} / {short}", [live[long] / live[short]], True)
        for short, long in pairwise(lengths)
    ]


def _ratio(name: str, values: Sequence[float], promised: bool) -> Ratio:
    middle = statistics.median(values)
    bounds = min(values), max(values)
    if not promised:
        return Ratio(name, middle, *bounds, len(values))
    return Ratio(name, middle, *bounds, len(values), "<=", LIMIT)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(child(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        raise SystemExit(0)
    raise SystemExit(main(cpu_options()))
