"""What a tokenizer's chat template does with a conversation, found out by trying it.

    template = ChatTemplate(tokenizer)
    template.default_text      # the system prompt that it writes when it is given none
    template.marks_in(query)   # text that would open or close a turn

Nothing is known of any model by name: conversations whose contents are unmistakable words are
rendered, and what stands between these words is the template's own.

A user's text can imitate the template in two ways. Control tokens in it, such as `<|im_end|>`, are
encoded as the plain text that they are. But some templates write plain text themselves, such as
LLaMA-2's `[/INST]`, and a user's `[/INST]` gives the very same tokens. Such marks are found here,
so that a question with one is refused. They are looked for where nothing else protects the end of
a turn: on a template whose turns end in control tokens, no plain text can forge a turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

from jinja2 import TemplateError

from papercore.errors import ModelError
from papercore.generate.types import Message, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["UNENCODABLE", "ChatTemplate", "Mark", "one_line"]

UNENCODABLE = (
    *(TemplateError, ValueError, TypeError, LookupError, AttributeError),
    NotImplementedError,
)
"""What templates and tokenizers raise over a conversation that they cannot take."""

_SYSTEM, _USER, _ASSISTANT, _AGAIN = "qzsystemzq", "qzuserzq", "qzassistantzq", "qzagainzq"
"""Contents of the conversations that are tried."""
_BRACKETED = re.compile(r"<<?/?[^\s<>]+>>?|\[/?[^\s\[\]]+\]")


@dataclass(frozen=True)
class Mark:
    """Plain text by which a template divides turns.

    Attributes:
        starts_line: The template has it at the start of a line; elsewhere it divides nothing.
    """

    text: str
    starts_line: bool = False

    def is_in(self, text: str) -> bool:
        """Whether a text has this mark where it could pass for the template's."""
        before = r"(?:^|[\r\n])[ \t]*" if self.starts_line else ""
        word = r"(?<!\w)" if self.text[0].isalnum() else ""
        # A mark without punctuation, such as `assistant`, is one only if it is the whole line.
        after = r"[ \t]*(?:$|[\r\n])" if _is_wording(self.text) else ""
        return re.search(before + word + re.escape(self.text) + after, text) is not None


class ChatTemplate:
    """A tokenizer's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Looks for the template.

        Raises:
            ModelError: The tokenizer has none, or one that cannot take a single question.
        """
        self.tokenizer = tokenizer
        self.text = _template_text(tokenizer)
        try:
            written = self.render(_user(_USER))
        except UNENCODABLE as error:
            raise ModelError(
                f"the chat template cannot write a question ({one_line(error)}): set "
                "tokenizer.chat_template to one that can"
            ) from error
        if _USER not in written:
            raise ModelError(
                "the chat template leaves out the question: set tokenizer.chat_template to one "
                "that writes it"
            )

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as text, up to where the answer begins; for looking at, not to encode."""
        return cast(
            "str",
            self.tokenizer.apply_chat_template(
                _conversation(messages), add_generation_prompt=True, tokenize=False
            ),
        )

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A conversation as token ids, the same that papercore's backends read."""
        from papercore.generate.prompts import encode  # needs torch

        return encode(Request(id="prompt", messages=tuple(messages)), self.tokenizer).token_ids

    @cached_property
    def has_system(self) -> bool:
        """Whether it writes system messages; some refuse them, some leave them out."""
        return self._with_system is not None and _SYSTEM in self._with_system

    @cached_property
    def takes_empty_system(self) -> bool:
        """Whether an empty system message can be given."""
        return self.has_system and self._with_empty is not None

    @cached_property
    def default_text(self) -> str:
        """The system prompt that it writes where there is none; empty if it writes none."""
        absent = self.render(_user(_USER))
        others = [one for one in (self._with_system, self._with_empty) if one is not None]
        return max((_only_in(absent, other) for other in others), key=len, default="")

    @cached_property
    def is_emptied(self) -> bool:
        """Whether an empty system message keeps the default system prompt out."""
        absent = self.render(_user(_USER))
        return self._with_empty is not None and bool(_only_in(absent, self._with_empty))

    @property
    def has_clock(self) -> bool:
        """Whether it may write the date of today."""
        return "strftime_now" in self.text

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """Text that would divide turns, and that nothing else keeps out of a message."""
        # transformers keeps apart the tokens whose whole text the template's source has. One that
        # the source builds from pieces, and that is not special, would be read as that token.
        found = [Mark(token) for token in self._written if token not in self._controls]
        own = [part for rendered in self._conversations for part in _between(rendered)]
        ends = [part for rendered in self._conversations for part in _between(rendered)[1:]]
        open_ends = [part for part in ends if part.strip() and not self._controls_in(part)]
        if open_ends:
            found += [mark for part in open_ends for mark in _lines(part)]
            found += [Mark(text) for part in own for text in self._bracketed(part)]
        return tuple(dict.fromkeys(found))

    def marks_in(self, text: str) -> tuple[str, ...]:
        """The marks that a text holds."""
        return tuple(mark.text for mark in self.marks if mark.is_in(text))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that only the template may write; the one of unknown words is no such id."""
        tokenizer = self.tokenizer
        roles: Mapping[str, str] = tokenizer.special_tokens_map
        unknown = roles.get("unk_token")
        others = [token for role, token in roles.items() if role != "unk_token"]
        marked = {one for one, token in tokenizer.added_tokens_decoder.items() if token.special}
        ids = marked | set(tokenizer.all_special_ids)
        if unknown is not None and unknown not in others:
            ids.discard(tokenizer.convert_tokens_to_ids(unknown))
        return frozenset(ids | {self._written[token] for token in self._controls})

    @property
    def special_tokens(self) -> list[str]:
        """What stands for the ids that only the template may write."""
        return [str(self.tokenizer.convert_ids_to_tokens(one)) for one in sorted(self.special_ids)]

    @cached_property
    def _with_system(self) -> str | None:
        return self._try((_system(_SYSTEM), *_user(_USER)))

    @cached_property
    def _with_empty(self) -> str | None:
        return self._try((_system(""), *_user(_USER)))

    @cached_property
    def _conversations(self) -> tuple[str, ...]:
        """Every kind of conversation that it can write."""
        asked = _user(_USER)
        more = (Message(role="assistant", content=_ASSISTANT), *_user(_AGAIN))
        kinds = [asked, (*asked, *more)]
        if self.has_system:
            kinds += [(_system(_SYSTEM), *kind) for kind in kinds]
        return tuple(found for kind in kinds if (found := self._try(kind)) is not None)

    @cached_property
    def _written(self) -> dict[str, int]:
        """The added tokens that it writes; white space is text even where it is one of them."""
        own = "\0".join(part for rendered in self._conversations for part in _between(rendered))
        decoder = self.tokenizer.added_tokens_decoder
        added = {token.content: number for number, token in decoder.items()}
        return {one: number for one, number in added.items() if one.strip() and one in own}

    @cached_property
    def _controls(self) -> frozenset[str]:
        """Those of them that a message cannot write, as encoding shows."""
        written = self._written.items()
        return frozenset(token for token, number in written if not self._can_write(token, number))

    def _can_write(self, token: str, number: int) -> bool:
        """Whether the text of a token in a message gives the token itself."""
        without = self.encode(_user("x x")).count(number)
        try:
            return self.encode(_user(f"x {token} x")).count(number) > without
        except UNENCODABLE:
            return False

    def _controls_in(self, text: str) -> bool:
        return any(token in text for token in self._controls)

    def _bracketed(self, text: str) -> list[str]:
        for token in sorted(self._controls, key=len, reverse=True):
            text = text.replace(token, " ")
        return _BRACKETED.findall(text)

    def _try(self, messages: Sequence[Message]) -> str | None:
        try:
            return self.render(messages)
        except UNENCODABLE:
            return None


def _template_text(tokenizer: PreTrainedTokenizerBase) -> str:
    remedy = "take a chat model, or set tokenizer.chat_template"
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(f"the tokenizer of {_name(tokenizer)} has no chat template: {remedy}")
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        # Several templates, none of which is the default.
        raise ModelError(f"no chat template of {_name(tokenizer)} is the default: {remedy}") from (
            error
        )


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(getattr(tokenizer, "name_or_path", "")) or "this model"


def _conversation(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": one.role, "content": cast("str", one.content)} for one in messages]


def _user(content: str) -> tuple[Message, ...]:
    return (Message(role="user", content=content),)


def _system(content: str) -> Message:
    return Message(role="system", content=content)


def one_line(error: Exception) -> str:
    """What an error of a template says, on one line and not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _only_in(text: str, other: str) -> str:
    """What has to be cut out of a text so that the rest are the two ends of another text."""
    start, end = _shared_start(text, other), _shared_start(text[::-1], other[::-1])
    return text[start : len(text) - end].strip()


def _shared_start(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _between(rendered: str) -> list[str]:
    """The template's own text before, between and after the contents."""
    return re.split(f"{_SYSTEM}|{_USER}|{_ASSISTANT}|{_AGAIN}", rendered)


def _lines(part: str) -> list[Mark]:
    """The lines of plain text between two contents; a word without punctuation needs a line."""
    lines = part.split("\n")
    marks = [Mark(line.strip(), starts_line=place > 0) for place, line in enumerate(lines)]
    kept = (mark for mark in marks if mark.text)
    return [mark for mark in kept if mark.starts_line or not _is_wording(mark.text)]


def _is_wording(text: str) -> bool:
    return all(character.isalnum() or character.isspace() for character in text)
