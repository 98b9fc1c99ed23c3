"""What the authors' own scorer said about 600 answers, recorded by running it outside this project.

The answers are ours: drawn calls for the sample's cases, right, nearly right and broken. The
environments were handed to it in its own layout. Another 20,000 answers for the released files were
compared in the same way when this was recorded, without a difference.
"""

import json
from pathlib import Path

from rotbench.official import score_text

RECORDED = Path(__file__).with_name("official_outputs.jsonl")


def test_the_official_scorer_is_repeated_answer_by_answer(sample_cases):
    cases = {str(case.key): case for case in sample_cases}
    rows = [json.loads(line) for line in RECORDED.read_text("utf-8").splitlines()]
    assert len(rows) == 600
    for row in rows:
        ours = score_text(cases[row["case"]], row["answer"], row["version"])
        assert (list(ours.scores), ours.crash) == (row["scores"], row["crash"]), row
