r"""How a question becomes a prompt, in tuning, in RL and in evaluation alike.

    ids = prompt_ids(tokenizer, "Two and two?", PromptConfig())
    target, spans = target_ids(tokenizer, "Two and two is four.\n#### 4")

This is the one place where prompts are made. A model always reads `prompt_ids + target_ids`: both
are encoded apart, so neither changes the other's first or last token, and a blank at the end of a
template is the same token everywhere. Tokens that a tokenizer puts in front of a text (BOS) come
once, in front of the prompt; those that it puts behind (EOS) only behind a target.

Marks such as `</s>` in a question or a demonstration are read as plain text. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from papercore.errors import ConfigError, GenerationError, ModelError
from papercore.generate.types import Message, Request
from r3.config import PromptConfig
from r3.demos import Demo

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SEPARATOR", "Target", "pad_id", "prompt_ids", "render", "target_ids"]

SEPARATOR = "\n\n"
"""Between a demonstration in a prompt and what follows it."""

Span: TypeAlias = tuple[int, int]


class Target(NamedTuple):
    """A demonstration as token ids.

    Attributes:
        ids: Its tokens and the end-of-sequence token.
        spans: For each token the characters of the text that it stands for, begin and end, never
            falling. Tokens that are parts of one character share its span. A blank before a word
            may or may not belong to the word's token. The end-of-sequence token stands behind all.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...]


def render(
    question: str, prompt: PromptConfig, *, shots: Sequence[Demo] = ()
) -> str | tuple[Message, ...]:
    """A question as what a model is asked: a text, or the turns of a chat for `style=chat`.

    Args:
        prompt: What stands around it.
        shots: Demonstrations that come first, each with its answer, in this order.
    """
    before, _, after = prompt.template.partition("{question}")
    asked = [before + text + after for text in (*(one.question for one in shots), question)]
    shown = [one.target for one in shots]
    if prompt.style == "plain":
        earlier = (ask + answer + SEPARATOR for ask, answer in zip(asked, shown, strict=False))
        return "".join(earlier) + asked[-1]
    turns = [Message(role="system", content=prompt.system)] if prompt.system else []
    for ask, answer in zip(asked, shown, strict=False):
        turns.append(Message(role="user", content=ask))
        turns.append(Message(role="assistant", content=answer))
    return (*turns, Message(role="user", content=asked[-1]))


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    prompt: PromptConfig,
    *,
    shots: Sequence[Demo] = (),
) -> tuple[int, ...]:
    """A question as the token ids that a model reads before it answers.

    A plain text begins with what the tokenizer puts in front of texts; a chat is what the template
    makes of it, with the opening of the answer.

    Raises:
        ConfigError: The prompt does not fit the model: no chat template, no system role, or control
            tokens in the template of a plain text.
    """
    rendered = render(question, prompt, shots=shots)
    if not isinstance(rendered, str):
        return _chat_ids(tokenizer, rendered)
    for mark in cast("Sequence[str]", tokenizer.all_special_tokens):
        if mark in prompt.template:
            raise ConfigError(
                f"the prompt's template holds {mark!r}, a control token of this model: leave it "
                "out (the tokenizer's own come by themselves), or prepare with --prompt.style chat"
            )
    ids = (*_lead(tokenizer), *_encode(tokenizer, rendered)["input_ids"])
    assert ids, "a template is never empty"
    return ids


def target_ids(tokenizer: PreTrainedTokenizerBase, target: str) -> Target:
    """A demonstration as token ids that end in the end-of-sequence token, and their characters.

    Raises:
        ModelError: The tokenizer has no such token, or cannot say which characters a token stands
            for.
    """
    end = cast("int | None", tokenizer.eos_token_id)
    if end is None:
        raise ModelError(
            "the tokenizer has no end-of-sequence token, so an answer could not end: set eos_token "
            "in its tokenizer_config.json"
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} cannot say which characters a token stands for: take a "
            "model that comes with a tokenizer.json"
        )
    encoded = _encode(tokenizer, target, return_offsets_mapping=True)
    spans = tuple((begin, stop) for begin, stop in cast("list[Span]", encoded["offset_mapping"]))
    return Target((*encoded["input_ids"], end), (*spans, (len(target), len(target))))


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token that fills rows up; masks come from lengths, so any will do."""
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return cast("int", found)
    return 0


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, **more: bool) -> Mapping[str, list[int]]:
    """The text alone: no tokens around it, and no control tokens in it."""
    return cast(
        "Mapping[str, list[int]]",
        tokenizer(text, add_special_tokens=False, split_special_tokens=True, **more),
    )


def _lead(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts in front of a text by itself."""
    encoded = cast("Mapping[str, list[int]]", tokenizer("x", return_special_tokens_mask=True))
    found = []
    for token, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        if not special:
            break
        found.append(token)
    return found


def _chat_ids(tokenizer: PreTrainedTokenizerBase, turns: tuple[Message, ...]) -> tuple[int, ...]:
    from jinja2 import TemplateError

    from papercore.generate.prompts import encode

    system = turns[0].content if turns[0].role == "system" else None
    try:
        if system is not None:
            _check_system(tokenizer, turns, cast("str", system))
        return encode(Request(id="prompt", messages=turns), tokenizer).token_ids
    except GenerationError as error:
        raise ConfigError(f"{error}; or prepare with --prompt.style plain") from None
    except (TemplateError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the model's chat template refuses this prompt: {reason}") from None


def _check_system(
    tokenizer: PreTrainedTokenizerBase, turns: tuple[Message, ...], system: str
) -> None:
    """Refuses a template that has no place for a system prompt, or leaves it out in silence."""
    from jinja2 import TemplateError

    remedy = "put that text into --prompt.template instead"
    if not getattr(tokenizer, "chat_template", None):
        return  # refused with a better reason
    chat = [{"role": one.role, "content": one.content} for one in turns]
    try:
        shown = tokenizer.apply_chat_template(chat, tokenize=False)  # type: ignore[arg-type]
    except TemplateError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the chat template takes no system prompt ({reason}): {remedy}"
        ) from None
    if system.strip() not in str(shown):
        raise ConfigError(f"the chat template leaves the system prompt out: {remedy}")
