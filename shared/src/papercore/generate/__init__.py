"""Text generation behind one protocol; see `papercore.generate.types`."""

from papercore.generate.types import (
    Completion,
    ErrorKind,
    FinishReason,
    Generator,
    ImagePart,
    Message,
    Part,
    Request,
    SamplingParams,
    TextPart,
    ToolCall,
    ToolSpec,
    Usage,
)

__all__ = [
    "Completion",
    "ErrorKind",
    "FinishReason",
    "Generator",
    "ImagePart",
    "Message",
    "Part",
    "Request",
    "SamplingParams",
    "TextPart",
    "ToolCall",
    "ToolSpec",
    "Usage",
]
