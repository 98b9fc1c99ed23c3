"""What the toy verbs do."""

import os
import signal

from papercore.errors import GenerationError
from papercore.records import Record
from papercore.runs import Run


def go(config, flags):
    print(config.model_dump_json())
    print(flags.model_dump_json())
    return 0


def needs_part(config, flags):
    import part_that_nobody_has  # noqa: F401


def needs_own(config, flags):
    import toypaper.forgotten  # noqa: F401


def fails(config, flags):
    raise RuntimeError("two\nlines")


def fails_kindly(config, flags):
    raise GenerationError("the backend went away: start it again")


def interrupted(config, flags):
    os.kill(os.getpid(), signal.SIGINT)


def together(config, flags):
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=config.window.size)
    return 0


def stopped(config, flags):
    """Interrupted after as many examples as `limit` says."""
    with Run.open(
        flags.out, config, flags, package="toypaper", version="0.1", verb="stopped"
    ) as run:
        for number in range(config.limit or 0):
            run.append(Record(id=f"q{number}", data={"ours": 1, "theirs": 0}))
        interrupted(config, flags)


def talks(config, flags):
    for _ in range(100_000):
        print("a line that nobody reads")
    return 0


def estimate(config):
    return {"memory": f"{config.window.size} MiB"}
