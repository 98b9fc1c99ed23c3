"""What a transformers model reads of a request: token ids, and tensors of images beside them.

    prompt = encode(request, tokenizer)

A prompt is encoded with the tokenizer's special tokens, a chat through its template, and token ids
are taken as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from papercore.errors import GenerationError
from papercore.generate.types import ImagePart, Message, Part, Request, TextPart

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
        return _encode_chat(request.messages, processor)
    return Prompt(tuple(tokenizer_of(processor)(request.prompt)["input_ids"]))


def tokenizer_of(processor: Processor) -> PreTrainedTokenizerBase:
    """The tokenizer within a processor, or the tokenizer itself."""
    if isinstance(processor, ProcessorMixin):
        return cast("PreTrainedTokenizerBase", processor.tokenizer)
    return processor


def _encode_chat(messages: Sequence[Message], processor: Processor) -> Prompt:
    if not getattr(processor, "chat_template", None):
        raise GenerationError(
            "the model has no chat template: send prompts instead of messages, or take a chat model"
        )
    if isinstance(processor, ProcessorMixin):
        return _encode_parts(messages, processor)
    conversation = [{"role": one.role, "content": _text(one)} for one in messages]
    encoded = processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return Prompt(tuple(cast("Mapping[str, list[int]]", encoded)["input_ids"]))


def _encode_parts(messages: Sequence[Message], processor: ProcessorMixin) -> Prompt:
    """Chat for a model that takes images; text alone needs no tensors beside the ids."""
    conversation = [
        {"role": one.role, "content": [_part(part) for part in _parts(one)]} for one in messages
    ]
    encoded = processor.apply_chat_template(
        conversation,  # type: ignore[arg-type]
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    tensors = dict(cast("Mapping[str, Tensor]", encoded))
    token_ids = tuple(tensors.pop("input_ids")[0].tolist())
    tensors.pop("attention_mask", None)
    has_image = any(isinstance(part, ImagePart) for one in messages for part in _parts(one))
    return Prompt(token_ids, tensors if has_image else {})


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
