"""The data sets that others released: where they are, their licences, and how a file is checked.

    check("xstest", content, rows, "xstest_prompts.csv")     # raises unless it is the released one

None of them is part of this package. Layouts, licences and numbers of rows are those of the
repositories. Of the hashes, OKTest's and XSTest's were computed over copies of the released files
that had the md5 and sha256 known for them; those of AdvBench and OR-Bench are as several projects
that pin these files agree. No torch here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from papercore.errors import DataError
from self_cd.items import SIDES, Side
from self_cd.rows import Row

__all__ = [
    "LEAKED_SHA256",
    "RELEASED",
    "Released",
    "attribution",
    "check",
    "content_digest",
    "digests",
    "sides",
]


@dataclass(frozen=True)
class Released:
    """A released data set.

    Attributes:
        file: Name of its file.
        source: Where it is.
        licence: As its authors state it.
        rows: Side -> number of rows in the file.
        sha256: Hash of the file; None where no hash is known, and then the rows are counted.
        content: `content_digest` of its rows, where it was released in several layouts.
        caveat: What a user should know about its sides.
    """

    file: str
    source: str
    licence: str
    rows: Mapping[Side, int]
    sha256: str | None = None
    content: str | None = None
    caveat: str = ""


_TUNED = "github.com/vinid/safety-tuned-llamas, data/evaluation"
_OR_BENCH = "huggingface.co/datasets/bench-llm/or-bench (also bench-llms/or-bench)"
_NONE = "none stated"
_CC_BY = "CC-BY-4.0"


def _tuned(file: str, rows: Mapping[Side, int], caveat: str = "") -> Released:
    return Released(file, _TUNED, _NONE, rows, caveat=caveat)


RELEASED: Mapping[str, Released] = {
    "oktest": Released(
        file="OKTest.csv",
        source="github.com/InvokerStark/OverKill, data",
        licence=_NONE,
        rows={"harmless": 300},
        sha256="1be3e8d3fe6b45a170653da63c8cf70dbf97508a48735e65db0713a44e158860",
    ),
    "oktest-heldout": Released(
        file="OKTest_heldout.csv",
        source="github.com/InvokerStark/OverKill, data",
        licence=_NONE,
        rows={"harmless": 50},
    ),
    "xstest": Released(
        file="xstest_prompts.csv",
        source="github.com/paul-rottger/xstest (v2; also hub walledai/XSTest as CSV)",
        licence=_CC_BY,
        rows={"harmless": 250, "harmful": 200},
        sha256="11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
        content="721c24530925e6bc7063a1f1a8498a7be77afd52ebe2f47975323987728fff98",
    ),
    "i-cona": _tuned("I-CoNa.json", {"harmful": 178}),
    "i-malicious": _tuned("I-MaliciousInstructions.json", {"harmful": 100}),
    "i-controversial": _tuned("I-Controversial.json", {"harmful": 40}),
    "i-physical-unsafe": _tuned("I-PhysicalSafetyUnsafe.json", {"harmful": 100}),
    "i-physical-safe": _tuned("I-PhysicalSafetySafe.json", {"harmless": 100}),
    "i-alpaca": _tuned("I-Alpaca.json", {"ordinary": 50}),
    "q-harm": _tuned(
        "Q-Harm.json", {"harmful": 100}, "many of its questions are harmless: read it with care"
    ),
    "or-bench-80k": Released("or-bench-80k.csv", _OR_BENCH, _CC_BY, {"harmless": 80_359}),
    "or-bench-hard": Released(
        file="or-bench-hard-1k.csv",
        source=_OR_BENCH,
        licence=_CC_BY,
        rows={"harmless": 1_319},
        sha256="a6e2f1166416efe5901f3bb05c47dc92ab3aca3acfe143693d38b8057d841e6d",
    ),
    "or-bench-toxic": Released(
        file="or-bench-toxic.csv",
        source=_OR_BENCH,
        licence=_CC_BY,
        rows={"harmful": 655},
        sha256="3be45901faae3b4b2b51bf7f8a2784c1650a1cc8c631dbc8b171d5312d4e0057",
    ),
    "advbench": Released(
        file="harmful_behaviors.csv",
        source="github.com/llm-attacks/llm-attacks, data/advbench",
        licence="MIT",
        rows={"harmful": 520},
        sha256="6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1",
    ),
    "harmfulq": Released(
        file="toxic_outs.json",
        source="github.com/SALT-NLP/chain-of-thought-bias, data/dangerous-q",
        licence="MIT",
        rows={"harmful": 200},
    ),
    "wikiqa": Released(
        file="WikiQA-test.tsv",
        source="Microsoft Research, WikiQA corpus",
        licence="Microsoft Research Data License, research only",
        rows={"ordinary": 633},
    ),
    "malicious-instruct": Released(
        file="MaliciousInstruct.txt",
        source="github.com/Princeton-SysML/Jailbreak_LLM, data",
        licence=_NONE,
        rows={"harmful": 100},
    ),
}
"""Name -> data set; the format of each has the same name."""

LEAKED_SHA256: frozenset[str] = frozenset(
    {
        "015b80bb352075fe82a30f70e78ee92c127f3937f8ee43ff320387d53f8ede4b",
        "1c210e85f0f07c59946338ae9fb4359e6ab73a08d8afa8aa7ac81f7bdb020856",
        "220637e0ddff3ea7d970e001b2548232319fe145f87e2a998c27241649dcac25",
        "5e4e23e08e46d410cecc3ce794a7be2a5212303b03b9203d334821ef36233c2b",
        "736d65e3c0e6d784570a63b6cdf03b1db09ca67ea04febbf0e4aa51c0f465738",
        "a9eff1550885a02eefc7d3991c542cf6d918f3f7b84e3701e720234ae4d88bb9",
        "c16bbf2d956ab62ebe9a68c15bb1e365922a708d04a784a0bcbfe8828ad42ac5",
        "c65350feb36151be5f851b0a11999dab54c73c6bcd9e7d7d85cc8c756a7b57fe",
        "df074cd23deb686a7823d2a56b58356dd2de1f9fac5fdcd6c20b629c9b459028",
        "ed2ba8ae994be92c10d3023a4c719695331a000424f9e309f97fa7370bb42aae",
    }
)
"""sha256 of the questions that stand in OKTest and in its held-out file, without line end."""


def digests(content: bytes) -> tuple[str, str]:
    """sha256 and md5 of a file."""
    return (
        hashlib.sha256(content).hexdigest(),
        hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )


def content_digest(rows: Iterable[Row]) -> str:
    """Hash of sides and questions, whatever the layout, the order and the white space are."""
    lines = sorted(f"{row.side}\t{' '.join(row.query.split())}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()


def sides(rows: Mapping[Side, int] | Iterable[Row]) -> str:
    """`250 harmless, 200 harmful`."""
    if not isinstance(rows, Mapping):
        rows = Counter(row.side for row in rows)
    return ", ".join(f"{rows[side]} {side}" for side in SIDES if rows.get(side))


def check(name: str, content: bytes, rows: Sequence[Row], where: str) -> None:
    """Checks that a file is the released one.

    Args:
        name: Of the data set.
        content: Bytes of the file.
        rows: What they were read as.
        where: Name of the file, for messages.

    Raises:
        DataError: It is not.
    """
    released = RELEASED[name]
    remedy = (
        f"get {released.file} from {released.source}, or accept this one with `self-cd data "
        f"--name {name} --from FILE --unverified`; a file of your own is given as csv:<path>"
    )
    if released.sha256 is None:
        if sides(rows) != sides(released.rows):
            raise DataError(
                f"{where}: has {sides(rows) or 'no'} rows, but {name} was released with "
                f"{sides(released.rows)}: {remedy}"
            )
        return
    found, _ = digests(content)
    same_content = released.content is not None and content_digest(rows) == released.content
    if found != released.sha256 and not same_content:
        raise DataError(
            f"{where}: its sha256 is {found}, but the released file of {name} has "
            f"{released.sha256}: {remedy}"
        )


def attribution(name: str) -> str:
    """What is to be said wherever the data set is."""
    released = RELEASED[name]
    rights = "; do not pass the file on" if released.licence == _NONE else ""
    caveat = f"Note: {released.caveat}.\n" if released.caveat else ""
    return (
        f"{name}: {released.file} from {released.source}\n"
        f"Licence: {released.licence}{rights}.\n{caveat}"
    )
