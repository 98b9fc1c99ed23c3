"""What the commands share: a loaded model that reads by a method, and where a run goes.

with open_session(config, flags) as session:
continue_prompt(session.model, ids, handle=session.handle, settings=...)
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

import longheads
from longheads.architectures import trained_length
from longheads.baselines import apply_method
from longheads.config import LongHeadsConfig, ModelRunConfig
from longheads.plugin import Handle
from papercore.config import RunFlags, merge, plain, validate
from papercore.device import seed_everything
from papercore.models import describe, load_model
from papercore.runs import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """A model that reads by the method of a config.

    Attributes:
        model: the loaded model.
        tokenizer: its tokenizer.
        handle: of LongHeads; None for methods that read no chunks.
        trained: tokens that the model was trained to read.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    handle: Handle | None
    trained: int

    @property
    def window(self) -> int | None:
        """The attention window in tokens; None for methods without one."""
        return self.handle.window if self.handle else None

    @property
    def facts(self) -> dict[str, str | float | bool | None]:
        """What the model runs as, for `env.json`."""
        return {**describe(self.model), "trained_tok": self.trained, "window_tok": self.window}


@contextmanager
def open_session(config: ModelRunConfig, flags: RunFlags) -> Iterator[Session]:
    """Loads the model of a config and lets it read by the method of the config.

    Raises:
        ModelError: The model cannot be loaded, or the method is not proved on it.
        ConfigError: The window does not fit the model.
    """
    seed_everything(config.seed)
    model, tokenizer = load_model(
        config.model, device=flags.device, dtype=config.dtype, quantization=config.quantization
    )
    trained = trained_length(model.config.get_text_config(decoder=True))
    # `seed` is the seed of everything random, so it moves the drawn chunks too
    drawn = {"seed": config.longheads.seed + config.seed}
    settings = validate(LongHeadsConfig, merge(plain(config.longheads), drawn))
    with apply_method(model, config.method, settings, factor=config.factor) as handle:
        if handle is not None and handle.window * 8 <= trained:
            logger.warning(
                "the window of %d tokens is small for a model trained at %d: other presets and "
                "--longheads.window auto give it more",
                *(handle.window, trained),
            )
        yield Session(model, tokenizer, handle, trained)


def open_run(
    out: Path, config: ModelRunConfig, flags: RunFlags, verb: str, *, data_hash: str | None = None
) -> Run:
    """Opens the run folder of a command."""
    return Run.open(
        out,
        config,
        flags,
        package="longheads",
        version=longheads.__version__,
        verb=verb,
        data_hash=data_hash,
    )


def tell(line: str) -> None:
    """Writes a line for the person at the terminal to stderr; stdout holds the answer alone."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def answer(line: str) -> None:
    """Writes a line of the command's answer to stdout."""
    sys.stdout.write(f"{line}\n")
