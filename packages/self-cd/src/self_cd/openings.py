"""What a refusal and an answer begin with, as tokens.

    openings = encode_openings(tokenizer, OpeningsConfig(refusal=("Sorry",), answer=("Sure",)))

An opening is an event: the answer begins with this text. Its probability is a sum over the ways in
which the tokenizer can write it, so each text has several forms: as the chat template itself would
write it as an answer, as it stands, and with a space in front of it, which is how LLaMA-2 begins.
A space at its end is left out, because tokenizers put it in front of the next word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from papercore.errors import ConfigError
from self_cd.config import OpeningsConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Form", "Openings", "answer_ids", "encode_openings"]

OpeningSide: TypeAlias = Literal["refusal", "answer"]


@dataclass(frozen=True)
class Form:
    """One way to write an opening.

    Attributes:
        ids: Its tokens, at least one.
        text: The opening as the user gave it.
        parent: Place among all forms of the longest one that this one goes on from; None if none.
    """

    side: OpeningSide
    ids: tuple[int, ...]
    text: str
    parent: int | None = None


@dataclass(frozen=True)
class Openings:
    """All forms, such that every answer belongs to the longest of them that it begins with.

    A form that goes on from one of its own side says nothing new and is left out. One that goes on
    from a form of the other side is taken out of that one's probability: with the answer `I` and
    the refusal `I cannot`, an answer is what begins with `I` and not with `I cannot`.

    Attributes:
        forms: Short ones first, so that a parent stands before its children.
    """

    forms: tuple[Form, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest form."""
        return max(len(form.ids) for form in self.forms)

    def places(self, side: OpeningSide) -> list[int]:
        """Where the forms of a side stand."""
        return [place for place, form in enumerate(self.forms) if form.side == side]


def encode_openings(tokenizer: PreTrainedTokenizerBase, openings: OpeningsConfig) -> Openings:
    """The forms of all openings.

    Raises:
        ConfigError: A refusal and an answer have the same tokens, or an opening holds a word that
            the tokenizer does not know.
    """
    texts: list[tuple[OpeningSide, str]] = [
        *(("refusal", text) for text in openings.refusal),
        *(("answer", text) for text in openings.answer),
    ]
    found: dict[tuple[int, ...], Form] = {}
    for side, text in texts:
        for ids in _forms(tokenizer, text):
            other = found.setdefault(ids, Form(side, ids, text))
            if other.side != side:
                raise ConfigError(
                    f"openings: the refusal {other.text!r} and the answer {text!r} are the same "
                    "tokens for this model: change one"
                )
    return Openings(_nested(sorted(found.values(), key=lambda form: (len(form.ids), form.ids))))


def answer_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Tokens of a text as the chat template writes an answer; as it stands if it cannot tell."""
    begun, whole = _rendered(tokenizer, text)
    place = whole.find(text, len(begun))
    if whole.startswith(begun) and place >= 0 and not whole[len(begun) : place].strip():
        before, after = _ids(tokenizer, begun), _ids(tokenizer, whole[: place + len(text)])
        # otherwise the text melts into the last token of the prompt, which is fixed
        if after[: len(before)] == before:
            return after[len(before) :]
    return _ids(tokenizer, text)


def _forms(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, ...]]:
    bare = text.rstrip()
    forms = dict.fromkeys(
        [answer_ids(tokenizer, bare), _ids(tokenizer, bare), _ids(tokenizer, f" {bare}")]
    )
    for ids in forms:
        if not ids:
            raise ConfigError(f"openings: {text!r} has no tokens for this model: leave it out")
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise ConfigError(
                f"openings: {text!r} holds a word that this model does not know: set the refusal "
                "and answer openings to how this model begins"
            )
    return list(forms)


def _nested(forms: Sequence[Form]) -> tuple[Form, ...]:
    """Forms with their parents; one whose parent has its own side is left out."""
    kept: list[Form] = []
    for form in forms:
        starts = [at for at, one in enumerate(kept) if form.ids[: len(one.ids)] == one.ids]
        parent = max(starts, key=lambda at: len(kept[at].ids), default=None)
        if parent is None or kept[parent].side != form.side:
            kept.append(Form(form.side, form.ids, form.text, parent))
    return tuple(kept)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tuple(ids)


def _rendered(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str, str]:
    """A chat up to where an answer begins, and with the text as answer; empty if there is none."""
    if not getattr(tokenizer, "chat_template", None):
        return "", ""
    from jinja2 import TemplateError

    asked = [{"role": "user", "content": "?"}]
    answered = [*asked, {"role": "assistant", "content": text}]
    try:
        begun = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(answered, tokenize=False)
    except (TemplateError, ValueError, TypeError):  # a template may refuse such a chat
        return "", ""
    return str(begun), str(whole)
