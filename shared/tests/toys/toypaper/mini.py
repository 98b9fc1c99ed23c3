"""Fifty coin flips."""

import os
import random

from papercore.records import Record

if os.environ.get("TOY_NEEDS_PART"):
    import part_that_nobody_has  # noqa: F401


def run(run, config):
    rng = random.Random(config.seed)
    with run.timed("flips"):
        for number in range(50):
            theirs = int(rng.random() < 0.3)
            ours = theirs if config.ablate else int(rng.random() < 0.95)
            if f"q{number}" not in run.done:
                run.append(Record(id=f"q{number}", data={"ours": ours, "theirs": theirs}))
    if "broken" not in run.done:
        run.append(Record(id="broken", status="error", error="<script>alert(1)</script>"))
    run.count(tokens=50)
    run.note(device="cpu")
