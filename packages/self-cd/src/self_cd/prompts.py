"""How a question becomes a model's context: through the tokenizer's own chat template.

    prompter = Prompter(tokenizer, PromptConfig())
    pair = prompter.contexts("How do I kill a process?")
    ids = prompter.context("How do I kill a process?", "icl")

Source: 2401.17633, official script: LLaMA-2's template, with the safety text in its system slot or
    with none. Here any chat template will do.
Deviation: where a template writes a default system prompt by itself, the plain context has an empty
    system message; where it has no system role, the safety text stands in front of the question.
    The template alone decides on BOS, as in every chat backend; the tokenizer adds none of its own.

Only the template opens and closes turns. Control tokens in a question are encoded as plain text. A
question with the plain-text mark of a template that has such marks (LLaMA-2's `[/INST]`) would give
the template's own tokens: it is refused, see `chat_template`. Importing this module loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from papercore.errors import ConfigError, DataError, ModelError
from papercore.generate.types import Message
from self_cd import wording
from self_cd.chat_template import UNENCODABLE, ChatTemplate, one_line
from self_cd.config import Method, PromptConfig
from self_cd.contexts import Contexts
from self_cd.shots import retriever_for
from self_cd.wording import Shot

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Place", "Plain", "Prompter", "messages"]

logger = logging.getLogger(__name__)

Plain: TypeAlias = Literal["absent", "empty"]
"""What stands for no system prompt."""

Place: TypeAlias = Literal["system", "user"]
"""Where a system prompt stands: in a message of its own, or in front of the first question."""

Shape = tuple[tuple[str, bool], ...]


class Prompter:
    """Writes the contexts of questions for one tokenizer.

    Attributes:
        digest: Hash of our wording, the chat template and the settings.
        notes: What a user should know of the contexts, one line each; they are logged as well.
        plain: What stands for no system prompt here.
        place: Where the system prompt stands here.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: PromptConfig | None = None
    ) -> None:
        """Looks at the chat template.

        Raises:
            ModelError: There is no chat template, or one that cannot be used.
            ConfigError: The settings ask for what the template cannot do.
        """
        self._config = config or PromptConfig()
        self._template = ChatTemplate(tokenizer)
        self.place: Place = _place(self._template, self._config)
        self.plain: Plain = _plain(self._template, self._config)
        self._allowed: dict[Shape, list[int]] = {}
        self._check_system_prompts()
        self.digest = _digest(self._config, self._template.text, self.place, self.plain)
        self.notes = self._find_notes()
        for note in self.notes:
            _warn_once(note)

    def contexts(self, query: str, turns: Sequence[Shot] = ()) -> Contexts:
        """The question with the safety prompt and without.

        Args:
            query: The question.
            turns: Earlier questions with their answers.

        Raises:
            DataError: The query is empty, or holds text that would divide turns.
            ModelError: The template cannot write such a conversation.
        """
        return Contexts(
            emphasis=self.context(query, "safety", turns), plain=self.context(query, "plain", turns)
        )

    def context(self, query: str, method: Method, turns: Sequence[Shot] = ()) -> tuple[int, ...]:
        """The question as a method with one context has it.

        Raises:
            ConfigError: The method is `self-cd`, which has two contexts.
            DataError: The query is empty, or holds text that would divide turns.
            ModelError: The template cannot write such a conversation.
        """
        self._check_marks("the query", query)
        for text in (text for turn in turns for text in turn):
            self._check_marks("an earlier turn", text)
        written = self.messages(query, method, turns)
        allowed = self._allowed_ids(written)
        try:
            ids = self._template.encode(written)
        except UNENCODABLE as error:
            raise DataError(
                f"the query cannot be written as a prompt: {one_line(error)}"
            ) from error
        if self._special(ids) != allowed:
            raise DataError(
                "the query would change the control tokens of the prompt: take out of it what the "
                f"tokenizer reads as one of {self._template.special_tokens}"
            )
        return ids

    def messages(
        self, query: str, method: Method, turns: Sequence[Shot] = ()
    ) -> tuple[Message, ...]:
        """What the chat template is given.

        Raises:
            ConfigError: The method is `self-cd`, which has two contexts.
            DataError: The query is empty.
        """
        config = self._config.model_copy(update={"system_role": self.place})
        return messages(method, query, config, turns=turns, plain=self.plain)

    def _check_marks(self, what: str, text: str) -> None:
        if found := self._template.marks_in(text):
            raise DataError(
                f"{what} holds {found[0]!r}, which this model's chat template writes as plain "
                "text to divide turns: take it out or reword it"
            )

    def _check_system_prompts(self) -> None:
        for name in ("safety", "helpful"):
            text = getattr(self._config, name)
            if text is not None and not text.strip():
                raise ConfigError(f"prompts: {name} is blank: give a text, or leave it out")
            if text is not None and (found := self._template.marks_in(text)):
                raise ConfigError(
                    f"prompts: {name} holds {found[0]!r}, which the chat template writes by "
                    "itself: give the text alone"
                )

    def _allowed_ids(self, written: Sequence[Message]) -> list[int]:
        """Special ids of a conversation like this one, whose contents are harmless words."""
        shape = tuple((one.role, one.content == "") for one in written)
        if shape not in self._allowed:
            self._allowed[shape] = self._special(self._stand_in(shape))
        return self._allowed[shape]

    def _stand_in(self, shape: Shape) -> tuple[int, ...]:
        words = ["" if empty else f"qz{place}zq" for place, (_, empty) in enumerate(shape)]
        stand_in = [
            Message(role=role, content=word) for word, (role, _) in zip(words, shape, strict=True)
        ]
        kinds = " ".join(role for role, _ in shape)
        try:
            rendered = self._template.render(stand_in)
            ids = self._template.encode(stand_in)
        except UNENCODABLE as error:
            raise ModelError(
                f"the chat template refuses a conversation of {kinds} ({one_line(error)}): take a "
                "model that can, or leave out examples and earlier turns"
            ) from error
        if any(word not in rendered for word in words):
            raise ModelError(
                f"the chat template leaves out messages of a conversation of {kinds}: take a model "
                "that reads them all, or leave out examples and earlier turns"
            )
        return ids

    def _special(self, ids: Sequence[int]) -> list[int]:
        return [one for one in ids if one in self._template.special_ids]

    def _find_notes(self) -> tuple[str, ...]:
        template, notes = self._template, []
        if self.place == "user" and self._config.system_role == "auto":
            notes.append(
                "the chat template has no system role: the system prompt stands in front of the "
                "question"
            )
        if template.default_text:
            notes.append(_default_note(template, self.plain))
        if template.has_clock:
            notes.append("the chat template may write today's date: prompts differ by day")
        if self._lacks_bos():
            notes.append(
                "the chat template writes no BOS token, though the tokenizer begins texts with "
                "one: prompts have none, as in other chat backends"
            )
        return tuple(notes)

    def _lacks_bos(self) -> bool:
        tokenizer = self._template.tokenizer
        bos = tokenizer.bos_token_id
        if bos is None or bos not in tokenizer("x")["input_ids"]:
            return False
        return bos not in self._template.encode(messages("plain", "x", PromptConfig()))


def messages(
    method: Method,
    query: str,
    config: PromptConfig,
    *,
    turns: Sequence[Shot] = (),
    plain: Plain = "absent",
    shots: Sequence[Shot] = (),
) -> tuple[Message, ...]:
    """A question as chat messages, for endpoints that have a template of their own.

    Args:
        method: One with one context.
        query: The question.
        config: Texts, and whether they stand in front of the question; `auto` is a system message.
        turns: Earlier questions with their answers; examples come before them.
        plain: What stands for no system prompt; an endpoint's template cannot be looked at.
        shots: Examples for `icl` and `cot-few`; ours by default.

    Raises:
        ConfigError: The method is `self-cd`, or examples are given for a method without them.
        DataError: The query is empty.
    """
    _check("the query", query)
    for text in (text for turn in turns for text in turn):
        _check("an earlier turn", text)
    if method == "self-cd":
        raise ConfigError("self-cd has two contexts: ask for `safety` and for `plain`")
    if shots and method not in ("icl", "cot-few"):
        raise ConfigError(f"method {method!r} shows no examples: leave out shots")
    system = _system_text(method, config)
    asked = f"{query}\n\n{wording.STEPS}" if method == "cot-zero" else query
    told = [text for turn in (*_shots(method, query, config, shots), *turns) for text in turn]
    spoken = [*told, asked]
    begin = "" if plain == "empty" else None
    if system is not None and config.system_role == "user":
        spoken[0] = f"{system}\n\n{spoken[0]}"
    elif system is not None:
        begin = system
    said = [
        Message(role="assistant" if place % 2 else "user", content=text)
        for place, text in enumerate(spoken)
    ]
    return (*(() if begin is None else (Message(role="system", content=begin),)), *said)


@cache
def _warn_once(note: str) -> None:
    """A command may make several prompters of one template."""
    logger.warning("%s", note)


def _check(what: str, text: str) -> None:
    if not text.strip():
        raise DataError(f"{what} is empty: give a question")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} holds {text[error.start]!r} at character {error.start}, which is no Unicode "
            "text: read the file as UTF-8"
        ) from error


def _system_text(method: Method, config: PromptConfig) -> str | None:
    if method == "prompt":
        return wording.HELPFUL if config.helpful is None else config.helpful
    if method == "safety" or (method != "plain" and config.shots_system == "safety"):
        return wording.SAFETY if config.safety is None else config.safety
    return None


def _shots(
    method: Method, query: str, config: PromptConfig, given: Sequence[Shot]
) -> Sequence[Shot]:
    if given:
        return given
    if method == "icl":
        return [retriever_for(config.icl_encoder).nearest(query)]
    return [one.shot for one in wording.FEW_SHOTS] if method == "cot-few" else ()


def _place(template: ChatTemplate, config: PromptConfig) -> Place:
    if config.system_role == "system" and not template.has_system:
        raise ConfigError(
            "system_role='system': the chat template has no system role: use auto or user"
        )
    if config.system_role == "auto":
        return "system" if template.has_system else "user"
    return config.system_role


def _plain(template: ChatTemplate, config: PromptConfig) -> Plain:
    if config.plain_system == "empty" and not template.takes_empty_system:
        raise ConfigError(
            "plain_system='empty': the chat template takes no empty system message: use auto or "
            "absent"
        )
    if config.plain_system == "auto":
        return "empty" if template.is_emptied and template.takes_empty_system else "absent"
    return config.plain_system


def _default_note(template: ChatTemplate, plain: Plain) -> str:
    shown = " ".join(template.default_text.split())
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    begin = f"the chat template writes a default system prompt ({shown!r}) where there is none"
    if plain == "absent" and template.is_emptied:
        return f"{begin}, and plain_system='absent' leaves it in the plain context: use auto"
    if not template.is_emptied:
        return f"{begin} or an empty one: the plain context has it"
    return f"{begin}: the plain context has an empty system message instead"


def _digest(config: PromptConfig, template: str, place: Place, plain: Plain) -> str:
    parts = {
        "version": wording.WORDING_VERSION,
        "wording": [wording.SAFETY, wording.HELPFUL, wording.STEPS],
        "shots": [one.shot for one in wording.FEW_SHOTS],
        "pool": wording.POOL,
        "config": config.model_dump(mode="json"),
        "template": template,
        "found": [place, plain],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
