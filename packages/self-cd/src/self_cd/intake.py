"""What is asked: requests become pairs of contexts, and what cannot be answered is refused alone.

intake = Intake(model, prompter, seed=0, max_context=None)
asked = intake.read(0, request_of(0, "How do I kill a process?", params))
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedModel

from papercore.errors import DataError, ModelError
from papercore.generate.jobs import failed
from papercore.generate.types import Completion, Message, Request, SamplingParams
from self_cd.contexts import Contexts
from self_cd.decoding import PairJob
from self_cd.items import Item
from self_cd.prompts import Prompter

__all__ = ["Asked", "Intake", "request_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A request that can be answered, and where its completion belongs."""

    place: int
    request: Request
    job: PairJob

    @property
    def prompt_tok(self) -> int:
        """Tokens of both contexts."""
        return len(self.job.contexts.emphasis) + len(self.job.contexts.plain)


class Intake:
    """Reads requests for one model."""

    def __init__(
        self, model: PreTrainedModel, prompter: Prompter, *, seed: int, max_context: int | None
    ) -> None:
        """Looks at the model's limits.

        Args:
            seed: From which a sampled request without a seed gets its own, by its id.
            max_context: Prompt and answer in tokens; None takes what the model's config says.
        """
        config = model.config.get_text_config(decoder=True)
        trained: int | None = getattr(config, "max_position_embeddings", None)
        self._prompter = prompter
        self._seed = seed
        self._max_context = trained if max_context is None else max_context
        if trained is not None and max_context is not None and max_context > trained:
            _check_beyond(config, trained, max_context)
        self._vocab_size: int = config.vocab_size

    def read(self, place: int, request: Request) -> Asked | Completion:
        """What to decode, or a completion with the reason why this cannot be answered."""
        try:
            question, turns = _question(request)
            contexts = self._prompter.contexts(question, turns)
        except (DataError, ModelError) as error:
            return failed(request, str(error), "input")
        limit = self._max_context
        job = PairJob(
            contexts=contexts,
            params=request.params,
            seed=request.seed_from(self._seed),
            max_new_tokens=None if limit is None else limit - contexts.longest,
        )
        asked = Asked(place, request, job)
        problem = _misfit(contexts, limit, self._vocab_size)
        return asked if problem is None else failed(request, problem, "input", asked.prompt_tok)


def _check_beyond(config: PreTrainedConfig, trained: int, max_context: int) -> None:
    """More context than the model's config says works with rotary positions, if at all.

    Raises:
        ModelError: Its positions end there.
    """
    said = f"max_context={max_context} is more than the {trained} positions of the model"
    if not getattr(config, "rope_parameters", None):
        raise ModelError(f"{said}, which has no others: leave it out or lower it")
    logger.warning("%s: it was not made for more", said)


def request_of(place: int, query: str | Item, params: SamplingParams) -> Request:
    """A question as a request; its id is the item's, or its place."""
    if isinstance(query, str):
        return Request(id=str(place), prompt=query, params=params)
    if not query.turns:
        return Request(id=query.id, prompt=query.query, params=params)
    said = [text for turn in query.turns for text in turn]
    messages = [
        Message(role="assistant" if place % 2 else "user", content=text)
        for place, text in enumerate([*said, query.query])
    ]
    return Request(id=query.id, messages=tuple(messages), params=params)


def _question(request: Request) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The question of a request, and the turns before it.

    Raises:
        DataError: It is no question of a user.
    """
    if request.prompt is not None:
        return request.prompt, ()
    if request.token_ids is not None:
        raise DataError("token ids leave no place for the two system prompts: send the question")
    if request.tools is not None:
        raise DataError("the contrast knows no tools: leave them out")
    texts = []
    for place, message in enumerate(request.messages or ()):
        expected = "assistant" if place % 2 else "user"
        if message.role != expected:
            raise DataError(
                f"message {place + 1} is of the role {message.role!r} instead of {expected!r}: send"
                " turns of a user and an assistant; the system prompts are the method's own"
            )
        if not isinstance(message.content, str):
            raise DataError(f"message {place + 1} has parts: send plain text")
        texts.append(message.content)
    if len(texts) % 2 == 0:
        raise DataError("the last message is no question of a user: end with one")
    return texts[-1], tuple(zip(texts[0:-1:2], texts[1::2], strict=True))


def _misfit(contexts: Contexts, limit: int | None, vocab_size: int) -> str | None:
    """Why a model cannot continue these contexts."""
    sides = {"context with the safety prompt": contexts.emphasis, "plain context": contexts.plain}
    for name, ids in sides.items():
        if limit is not None and len(ids) >= limit:
            return (
                f"the {name} is too long: {len(ids)} tokens leave no room in a context of {limit}: "
                "shorten the question"
            )
        if beyond := [token for token in ids if not 0 <= token < vocab_size]:
            return (
                f"token id {beyond[0]} of the {name} is outside the model's vocabulary of "
                f"{vocab_size}: the tokenizer belongs to another model"
            )
    return None
