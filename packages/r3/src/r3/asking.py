"""Who answers the questions of `r3 eval`: any model reference behind one interface.

    asker = open_asker(config, flags, prepared.prompt)
    completions = asker.generate([asker.request(answer_id, question, shots, params)])

transformers and vLLM are sent the token ids that tuning and RL have, from `r3.prompting`. An
`openai:` endpoint has a tokenizer of its own: it is sent text, to `/completions` for plain prompts
and as chat messages for `style=chat`, and decides itself on BOS and on the template of the chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from papercore.config import RunFlags
from papercore.errors import ConfigError
from papercore.generate.backends import generator_for
from papercore.generate.spend import Spend
from papercore.generate.types import Completion, Generator, Request, SamplingParams
from papercore.refs import parse_ref
from r3.config import EvalConfig, PromptConfig
from r3.demos import Demo
from r3.prompting import prompt_ids, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Asker", "Facts", "open_asker"]

Facts = dict[str, str | float | bool | None]


@dataclass
class Asker:
    """A backend and the form in which it is asked.

    Attributes:
        backend: Completes requests.
        tokenizer: Makes the token ids; None sends text.
        prompt: How a question becomes a prompt.
        about: What is known of the model from the start.
    """

    backend: Generator
    tokenizer: PreTrainedTokenizerBase | None
    prompt: PromptConfig
    about: Mapping[str, str]

    def request(
        self, name: str, question: Demo, shots: Sequence[Demo], params: SamplingParams
    ) -> Request:
        """A question as this backend takes it.

        Raises:
            ConfigError: The prompt does not fit the model.
        """
        if self.tokenizer is not None:
            ids = prompt_ids(self.tokenizer, question.question, self.prompt, shots=shots)
            return Request(id=name, token_ids=ids, params=params)
        rendered = render(question.question, self.prompt, shots=shots)
        if isinstance(rendered, str):
            return Request(id=name, prompt=rendered, params=params)
        return Request(id=name, messages=rendered, params=params)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completes every request, in their order."""
        return self.backend.generate(requests)

    @property
    def facts(self) -> Facts:
        """What the run folder should say of it, by now."""
        found: Facts = {"backend": type(self.backend).__name__, **self.about}
        spend = getattr(self.backend, "spend", None)
        if isinstance(spend, Spend):
            found |= {f"endpoint_{name}": value for name, value in spend.model_dump().items()}
        return found


def open_asker(config: EvalConfig, flags: RunFlags, prompt: PromptConfig) -> Asker:
    """Loads the model of a config, or gets ready to talk to it.

    Raises:
        ConfigError: An option does not apply to this kind of model.
        ModelError: The model cannot be loaded.
    """
    kind = parse_ref(config.model).kind
    if kind in ("hf", "tiny"):
        return _local(config, flags, prompt)
    if config.adapter is not None:
        raise ConfigError(
            f"--adapter is for models in this process, not {kind}: give a merged model, such as "
            "the model/ folder of `r3 sft` or `r3 train`"
        )
    backend = generator_for(
        config.model,
        endpoint=config.endpoint if kind == "openai" else None,
        device=flags.device,
        dtype=config.dtype,
        batch_size=config.batch_size or "auto",
        seed=config.seed,
    )
    tokenizer = cast("PreTrainedTokenizerBase | None", getattr(backend, "tokenizer", None))
    return Asker(backend, tokenizer, prompt, {})


def _local(config: EvalConfig, flags: RunFlags, prompt: PromptConfig) -> Asker:
    from papercore.models import check_directory, describe, load_model

    check_directory(config.model)
    from papercore.generate.hf import HFGenerator
    from papercore.trainers import quiet

    with quiet():
        model, tokenizer = load_model(
            config.model, device=flags.device, dtype=config.dtype, adapter=config.adapter
        )
    backend = HFGenerator(
        model, tokenizer, batch_size=config.batch_size or "auto", seed=config.seed
    )
    return Asker(backend, tokenizer, prompt, describe(model))
