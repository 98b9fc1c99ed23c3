"""Appends records slowly, to be killed: `python appender.py FOLDER [--resume]`."""

import random
import sys
import time
from pathlib import Path

from papercore.config import MiniConfig, RunFlags
from papercore.records import Record
from papercore.runs import Run
from papercore.stats import bootstrap_mean

NUM_RECORDS = 3000

flags = RunFlags(resume="--resume" in sys.argv)
with Run.open(
    Path(sys.argv[1]), MiniConfig(), flags, package="toypaper", version="1.0.0", verb="append"
) as run:
    for number in range(NUM_RECORDS):
        rng = random.Random(number)
        score, text = rng.random(), "é" * rng.randrange(60)
        if f"r{number}" not in run.done:
            run.append(Record(id=f"r{number}", data={"score": score, "text": text}))
            time.sleep(0.0002)
        if number % 10 == 0:
            run.log(number, score=score)
    run.finish({"score": bootstrap_mean([record.data["score"] for record in run.records()])})
