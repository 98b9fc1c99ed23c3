"""What the verbs run: everything that a user can get wrong is checked here, then torch is imported.

A missing file or a folder in use is so reported at once, not after half a minute of loading.
"""

from __future__ import annotations

import logging
from pathlib import Path

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.refs import parse_ref
from papercore.runs import check_folder
from self_cd.config import (
    CheckedConfig,
    GenerateConfig,
    ModelRunConfig,
    QueryConfig,
    RunAnswersConfig,
    SelfCDConfig,
    SweepConfig,
)
from self_cd.data import harmful_sample, load_items
from self_cd.items import ItemSet
from self_cd.perturb import perturb

__all__ = ["gather", "generate", "read_query", "run", "sweep", "warn_of_unused"]

logger = logging.getLogger(__name__)

RUN_FOLDER = Path("runs") / "self-cd-run"
SWEEP_FOLDER = Path("runs") / "self-cd-sweep"


def generate(config: GenerateConfig, flags: RunFlags) -> int:
    """`self-cd generate`."""
    query = read_query(config)
    warn_of_unused(config, contrasted=config.method == "self-cd")
    if flags.out is not None:
        check_folder(flags.out, flags)
    from self_cd.generate_command import run as run_it

    return run_it(config, flags, query)


def run(config: RunAnswersConfig, flags: RunFlags) -> int:
    """`self-cd run`."""
    if config.handoff is not None and parse_ref(config.handoff).kind == "openai":
        raise ConfigError(
            f"handoff {config.handoff!r}: an endpoint takes no token ids: use vllm:<id or dir>"
        )
    out = flags.out or RUN_FOLDER
    check_folder(out, flags)
    warn_of_unused(config, contrasted=config.method == "self-cd")
    items = gather(config)
    if config.perturb is not None:
        kind = config.perturb
        disturbed = tuple(perturb(item, kind, config.seed) for item in items.items)
        items = ItemSet(disturbed, items.bad, items.digest, items.notes)
    from self_cd.run_command import run as run_it

    return run_it(config, flags, out, items)


def sweep(config: SweepConfig, flags: RunFlags) -> int:
    """`self-cd sweep`."""
    if config.contrast.alpha != SelfCDConfig().alpha or config.contrast.schedule:
        raise ConfigError("sweep takes its strengths from --alphas: leave out --alpha, --schedule")
    out = flags.out or SWEEP_FOLDER
    check_folder(out, flags)
    warn_of_unused(config, contrasted=True)
    items = gather(config)
    from self_cd.sweep_command import run as run_it

    return run_it(config, flags, out, items)


def gather(config: CheckedConfig) -> ItemSet:
    """The questions of a command, harmful ones always among them.

    Raises:
        DataError: A data set is unknown or cannot be read, or holds no question at all.
    """
    items = load_items(config.data, limit=config.limit)
    for note in items.notes:
        logger.warning("%s", note)
    if not items.items:
        raise DataError(f"{', '.join(config.data)}: there is no question in there")
    if items.of("harmful"):
        return items
    added = harmful_sample(limit=config.limit)
    logger.warning(
        "no harmful questions in %s: the %d of the sample are added, because a method that refuses "
        "less must be seen on both sides",
        *(", ".join(config.data), len(added.items)),
    )
    return ItemSet(
        (*items.items, *added.items),
        (*items.bad, *added.bad),
        f"{items.digest}+{added.digest}",
        (*items.notes, *added.notes),
    )


def read_query(config: QueryConfig) -> str:
    """The question, from the command line or from a file.

    Raises:
        DataError: There is none, it is empty, or the file is not text in UTF-8.
    """
    if config.query_file is not None:
        where = str(config.query_file)
        try:
            query = config.query_file.expanduser().read_text(encoding="utf-8").rstrip("\r\n")
        except FileNotFoundError:
            raise DataError(f"{where}: no such file") from None
        except UnicodeDecodeError:
            raise DataError(f"{where}: is not UTF-8 text") from None
        except OSError as error:
            raise DataError(f"{where}: cannot be read: {error.strerror}") from None
    elif config.query is not None:
        query, where = config.query, "the question"
    else:
        raise DataError("there is no question: give --query TEXT or --query-file FILE")
    if not query.strip():
        raise DataError(f"{where} is empty: give a question")
    return query


def warn_of_unused(config: ModelRunConfig, *, contrasted: bool) -> None:
    """Names settings of the contrast that a baseline leaves unused."""
    if contrasted:
        return
    usual = SelfCDConfig()
    for name in SelfCDConfig.model_fields:
        if name not in ("prompts", "openings", "float32_head") and (
            getattr(config.contrast, name) != getattr(usual, name)
        ):
            option = name.replace("_", "-")
            logger.warning("--%s is not used: a baseline has one context", option)
