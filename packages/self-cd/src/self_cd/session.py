"""A loaded model with what belongs to it.

session = open_session(config, flags)
ids = session.prompter.contexts("How do I kill a process?")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from papercore.config import RunFlags
from papercore.errors import ModelError
from papercore.models import describe, load_model
from papercore.refs import parse_ref
from self_cd.config import ModelRunConfig
from self_cd.prompts import Prompter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Session", "open_session"]


@dataclass(frozen=True)
class Session:
    """A model, its tokenizer, and how questions become its prompts."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompter: Prompter

    @property
    def facts(self) -> dict[str, str]:
        """What the run folder should say."""
        return {**describe(self.model), "prompts": self.prompter.digest}


def open_session(config: ModelRunConfig, flags: RunFlags) -> Session:
    """Loads the model of a config.

    Raises:
        ModelError: It cannot be loaded, or does not run in this process.
    """
    kind = parse_ref(config.model, loads=True).kind
    if kind in ("vllm", "openai"):
        raise ModelError(
            f"{config.model}: the contrast needs the logits of both contexts at every token, which "
            f"{kind} does not give: use a hub id or a folder"
        )
    model, tokenizer = load_model(
        config.model,
        device=flags.device,
        dtype=config.dtype,
        quantization=config.quantization,
        adapter=config.adapter,
    )
    return Session(model, tokenizer, Prompter(tokenizer, config.contrast.prompts))
