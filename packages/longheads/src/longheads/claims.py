"""What the miniature promises, declared before it runs. No torch here.

The paper's numbers beside ours are those of its passkey figure (LLaMA-2-7B, trained at 4k tokens),
read at the same multiple of the trained length. Multiples: 1x is the trained length, 256 words for
the miniature.
"""

from papercore.claims import Bar, Claim

__all__ = ["CLAIMS"]

PASSKEY_FIGURE = "2402.10685v2, figure on passkey retrieval, LLaMA-2-7B"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="full-attention-breaks",
        statement="Full attention reads the trained length and fails far beyond it.",
        source=f"{PASSKEY_FIGURE}, full attention at 16k",
        paper=0.0,
        origin="read",
        kind="control",
        planted=False,
        bars=(Bar("full_1x", ">=", 0.95), Bar("full_16x", "<=", 0.30)),
    ),
    Claim(
        id="same-inside-the-window",
        statement="Inside the window LongHeads is full attention, word by word.",
        source="official modeling file: texts up to the window are read densely",
        paper=None,
        origin="unread",
        kind="exact",
        planted=False,
        bars=(Bar("longheads_1x", ">=", 0.95), Bar("same_words_1x", ">=", 1.0)),
    ),
    Claim(
        id="reads-8x",
        statement="Without training, LongHeads retrieves from 8 times the trained length.",
        source=f"{PASSKEY_FIGURE}, LongHeads at 32k",
        paper=0.98,
        origin="read",
        kind="effect",
        planted=False,
        bars=(Bar("longheads_8x", ">=", 0.80),),
    ),
    Claim(
        id="reads-16x",
        statement=(
            "At 16 times the trained length LongHeads is far ahead of full attention and of chunks "
            "drawn at random."
        ),
        source=f"{PASSKEY_FIGURE}, LongHeads at 64k",
        paper=0.96,
        origin="read",
        kind="effect",
        planted=False,
        bars=(
            Bar("longheads_16x", ">=", 0.75),
            Bar("longheads_minus_full_16x", ">=", 0.45),
            Bar("longheads_minus_random_16x", ">=", 0.30),
        ),
    ),
    Claim(
        id="reads-32x",
        statement="LongHeads reads 32 times the trained length, where full attention has failed.",
        source=f"{PASSKEY_FIGURE}, LongHeads at 128k",
        paper=1.0,
        origin="read",
        kind="effect",
        planted=False,
        bars=(Bar("longheads_32x", ">=", 0.65), Bar("full_32x", "<=", 0.25)),
    ),
    Claim(
        id="remapping-loses-nothing",
        statement=(
            "With the needle's chunks put into the last layer's choice nearly all is found: what "
            "LongHeads loses, it loses in the choice, not by renumbering positions."
        ),
        source="our own; the paper has no oracle",
        paper=None,
        origin="unread",
        kind="mechanism",
        planted=False,
        bars=(Bar("oracle_8x", ">=", 0.90),),
    ),
)
