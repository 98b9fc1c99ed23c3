"""Text generation behind one protocol; see `papercore.generate.types`."""

from papercore.generate.types import (
    Completion,
    FinishReason,
    Generator,
    ImagePart,
    Message,
    Part,
    Request,
    SamplingParams,
    TextPart,
    Usage,
)

__all__ = [
    "Completion",
    "FinishReason",
    "Generator",
    "ImagePart",
    "Message",
    "Part",
    "Request",
    "SamplingParams",
    "TextPart",
    "Usage",
]
