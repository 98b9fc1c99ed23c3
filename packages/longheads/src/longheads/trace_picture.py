"""The picture of a trace: one row per layer and head, one column per chunk. No torch here.

Colour is the share of traced positions that read the chunk; triangles mark the needle's chunks. The
same numbers give the same bytes.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from papercore.files import write_atomic
from papercore.plots import Figure

NAME = "trace"
MARK = "#D55E00"
MAX_LABELS = 24
"""Row labels that are readable side by side; more rows are labelled by layer only."""


@dataclass(frozen=True)
class Picture:
    """What is drawn.

    Attributes:
        rows: layer and head of each row.
        shares: per row, the share of positions that read each chunk.
        marked: chunks of the needle.
        chunk_len: tokens of a chunk.
        num_positions: how many positions were traced.
    """

    rows: tuple[tuple[int, int], ...]
    shares: tuple[tuple[float, ...], ...]
    marked: tuple[int, ...]
    chunk_len: int
    num_positions: int


def draw(into: Path, picture: Picture) -> Figure:
    """Writes the picture as PNG and its numbers as CSV."""
    png, table = into / f"{NAME}.png", into / f"{NAME}.csv"
    write_atomic(png, _png(picture))
    write_atomic(table, _csv(picture))
    marked = " Triangles mark the chunks of the needle." if picture.marked else ""
    caption = (
        f"Share of the last {picture.num_positions} positions at which a head reads a chunk of "
        f"{picture.chunk_len} tokens.{marked}"
    )
    return Figure(NAME, "Chunks that each head reads", caption, png, table)


def _png(picture: Picture) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    height = min(12.0, max(3.0, 1.2 + 0.22 * len(picture.rows)))
    image = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9})
        canvas = Canvas(figsize=(9.0, height), dpi=130, layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        axes.set_title("Chunks that each head reads", loc="left", fontsize=11)
        shown = axes.imshow(
            picture.shares,
            cmap="cividis",
            vmin=0.0,
            vmax=1.0,
            aspect="auto",
            interpolation="nearest",
        )
        canvas.colorbar(shown, ax=axes, label="share of positions")
        for place in (-1.0, len(picture.rows)):
            axes.scatter(
                picture.marked,
                [place] * len(picture.marked),
                marker="v" if place < 0 else "^",
                color=MARK,
                s=28,
                clip_on=False,
            )
        axes.set_ylim(len(picture.rows) + 0.2, -1.2)
        num_chunks = len(picture.shares[0])
        margin = 0.5 + num_chunks / 200  # the first chunk must not lie under the frame
        axes.set_xlim(-margin, num_chunks - 1 + margin)
        axes.set_xlabel("chunk")
        axes.set_ylabel("layer.head")
        places, labels = _labels(picture.rows)
        axes.set_yticks(places, labels)
        canvas.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def _labels(rows: tuple[tuple[int, int], ...]) -> tuple[list[int], list[str]]:
    """Every row, or only the first head of each layer where there are many."""
    kept = [place for place, (_, head) in enumerate(rows) if len(rows) <= MAX_LABELS or head == 0]
    step = -(-len(kept) // (2 * MAX_LABELS))
    kept = kept[::step]
    return kept, [f"{rows[place][0]}.{rows[place][1]}" for place in kept]


def _csv(picture: Picture) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("layer", "head", "chunk", "share", "needle"))
    for (layer, head), shares in zip(picture.rows, picture.shares, strict=True):
        for chunk, share in enumerate(shares):
            if share:
                writer.writerow((layer, head, chunk, f"{share:.4g}", int(chunk in picture.marked)))
    return text.getvalue()
