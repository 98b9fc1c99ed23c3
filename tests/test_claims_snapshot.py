"""The bars stay where they were set.

`tests/bars.json` repeats every bar of every package. To change one, change the claim, run
`python tests/test_claims_snapshot.py`, and write a line into docs/log.md that says why and names
the fingerprint that the command prints.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNAPSHOT = ROOT / "tests" / "bars.json"
HOW = "a bar changed: run `python tests/test_claims_snapshot.py` and explain it in docs/log.md"


def bars_of(import_name: str) -> dict[str, object]:
    """What a claim promises; its wording may improve freely."""
    claims = importlib.import_module(f"{import_name}.claims").CLAIMS
    return {
        claim.id: {
            "kind": claim.kind,
            "planted": claim.planted,
            "bars": [bar.text() for bar in claim.bars],
        }
        for claim in claims
    }


def fingerprint(snapshot: str) -> str:
    return hashlib.sha256(snapshot.encode()).hexdigest()[:8]


def test_every_bar_is_the_one_in_the_snapshot(package):
    saved = json.loads(SNAPSHOT.read_text("utf-8"))
    assert saved.get(package.name) == bars_of(package.import_name), HOW


def test_the_snapshot_knows_no_package_that_is_gone(packages):
    assert set(json.loads(SNAPSHOT.read_text("utf-8"))) == {p.name for p in packages}


def test_the_log_explains_the_snapshot():
    mark = f"bars {fingerprint(SNAPSHOT.read_text('utf-8'))}"
    assert mark in (ROOT / "docs" / "log.md").read_text("utf-8"), f"docs/log.md lacks `{mark}`"


def test_every_claim_can_be_judged(package):
    claims = importlib.import_module(f"{package.import_name}.claims").CLAIMS
    assert len({claim.id for claim in claims}) == len(claims), "two claims share an id"
    assert any(claim.kind == "effect" for claim in claims), "the ablation test needs an effect"
    for claim in claims:
        assert claim.bars, f"{claim.id} has no bar"
        assert claim.statement, claim.id
        assert claim.source, claim.id
        assert claim.paper is not None or claim.origin == "unread", claim.id


def main() -> None:
    names = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
    document = {name: bars_of(name.replace("-", "_")) for name in names}
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    SNAPSHOT.write_text(text, "utf-8")
    print(f"docs/log.md must now say why, in a line with: bars {fingerprint(text)}")


if __name__ == "__main__":
    main()
