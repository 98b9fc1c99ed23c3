"""What a transformers model reads of a request: token ids, and tensors of images beside them.

    prompt = encode(request, tokenizer)

A prompt is encoded with the tokenizer's special tokens, a chat through its template, and token ids
are taken as they are. Marks of the template that turn up in the messages themselves, such as
`<|im_end|>`, are read as plain text: only the template opens and closes a turn.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from papercore.errors import GenerationError
from papercore.generate.tools import calls_of, functions
from papercore.generate.types import ImagePart, Message, Part, Request, TextPart, ToolSpec

logger = logging.getLogger(__name__)

Processor = PreTrainedTokenizerBase | ProcessorMixin


@dataclass(frozen=True)
class Prompt:
    """Token ids, and tensors that belong to them, such as pixels, by the model's argument name."""

    token_ids: tuple[int, ...]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def encode(request: Request, processor: Processor) -> Prompt:
    """Encodes a request.

    Raises:
        GenerationError: A chat without a chat template, or an image without an image processor.
        ValueError: The template refuses this chat.
        OSError: An image cannot be read.
    """
    if request.token_ids is not None:
        return Prompt(request.token_ids)
    if request.messages is not None:
        return _encode_chat(request.messages, request.tools, processor)
    return Prompt(tuple(tokenizer_of(processor)(request.prompt)["input_ids"]))


def tokenizer_of(processor: Processor) -> PreTrainedTokenizerBase:
    """The tokenizer within a processor, or the tokenizer itself."""
    if isinstance(processor, ProcessorMixin):
        return cast("PreTrainedTokenizerBase", processor.tokenizer)
    return processor


def _encode_chat(
    messages: Sequence[Message], tools: Sequence[ToolSpec] | None, processor: Processor
) -> Prompt:
    if not getattr(processor, "chat_template", None):
        raise GenerationError(
            "the model has no chat template: send prompts instead of messages, or take a chat model"
        )
    if isinstance(processor, ProcessorMixin):
        return _encode_parts(messages, tools, processor)
    conversation = [_turn(one, _text(one)) for one in messages]
    encoded = processor.apply_chat_template(
        conversation,  # type: ignore[arg-type]
        tools=functions(tools) if tools else None,  # type: ignore[arg-type]
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        sanitize_control_tokens=_sanitises(processor),
    )
    return Prompt(tuple(cast("Mapping[str, list[int]]", encoded)["input_ids"]))


def _encode_parts(
    messages: Sequence[Message], tools: Sequence[ToolSpec] | None, processor: ProcessorMixin
) -> Prompt:
    """Chat for a model that takes images; text alone needs no tensors beside the ids."""
    conversation = [_turn(one, [_part(part) for part in _parts(one)]) for one in messages]
    encoded = processor.apply_chat_template(
        conversation,  # type: ignore[arg-type]
        tools=functions(tools) if tools else None,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        sanitize_control_tokens=_sanitises(processor),
    )
    tensors = dict(cast("Mapping[str, Tensor]", encoded))
    token_ids = tuple(tensors.pop("input_ids")[0].tolist())
    tensors.pop("attention_mask", None)
    has_image = any(isinstance(part, ImagePart) for one in messages for part in _parts(one))
    return Prompt(token_ids, tensors if has_image else {})


def _turn(message: Message, content: object) -> dict[str, object]:
    """A message as templates read it."""
    turn: dict[str, object] = {"role": message.role, "content": content}
    if message.tool_calls:
        turn["tool_calls"] = calls_of(message, parsed=True)
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _sanitises(processor: Processor) -> bool:
    """Whether transformers can read the template's marks within messages as text."""
    if "sanitize_control_tokens" in signature(processor.apply_chat_template).parameters:
        return True
    _warn_of_marks(type(processor).__name__)
    return False


@cache
def _warn_of_marks(name: str) -> None:
    logger.warning(
        "%s cannot tell the marks of its chat template from equal text in a message: "
        "transformers 5.23 can",
        name,
    )


def _parts(message: Message) -> tuple[Part, ...]:
    content = message.content
    return (TextPart(text=content),) if isinstance(content, str) else content


def _part(part: Part) -> dict[str, str]:
    if isinstance(part, ImagePart):
        return {"type": "image", "path": str(part.path)}
    return {"type": "text", "text": part.text}


def _text(message: Message) -> str:
    texts = []
    for part in _parts(message):
        if isinstance(part, ImagePart):
            raise GenerationError(f"the model reads no images, it was sent {part.path}")
        texts.append(part.text)
    return "".join(texts)
