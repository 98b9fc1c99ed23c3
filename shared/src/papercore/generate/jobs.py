"""What every local backend does before and after its model: prompts are checked, texts are read.

job = prepare(place, request, processor, max_context=4096, vocab_size=32_000)
completion = complete(
    job, token_ids, tokenizer=tokenizer, eos_ids=eos_ids, reason="stop", logprobs=None
)
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from papercore.errors import PaperError
from papercore.generate.prompts import Processor, Prompt, encode
from papercore.generate.texts import cut_at_stop
from papercore.generate.tools import read_calls
from papercore.generate.types import (
    Completion,
    ErrorKind,
    FinishReason,
    Request,
    SamplingParams,
    ToolCall,
    Usage,
)


@dataclass(frozen=True)
class Job:
    """A request that can run: where its completion belongs, its prompt and its room."""

    place: int
    request: Request
    prompt: Prompt
    max_new_tokens: int

    @property
    def params(self) -> SamplingParams:
        """How to choose its tokens."""
        return self.request.params

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt.token_ids)


def prepare(
    place: int, request: Request, processor: Processor, *, max_context: int | None, vocab_size: int
) -> Job | Completion:
    """Encodes a request and refuses alone what would fail in the middle of a batch."""
    try:
        prompt = encode(request, processor)
    except PaperError:
        raise
    except (OSError, TypeError, ValueError, TemplateError, NotImplementedError) as error:
        return failed(request, f"the prompt cannot be encoded: {error}", "input")
    length = len(prompt.token_ids)
    room = request.params.max_new_tokens
    if max_context is not None:
        room = min(room, max_context - length)
    if length == 0:
        return failed(request, "the prompt has no tokens", "input")
    if room < 1:
        limit = f"{length} tokens leave no room in a context of {max_context}"
        return failed(request, f"the prompt is too long: {limit}", "input", length)
    if outside := [token for token in prompt.token_ids if not 0 <= token < vocab_size]:
        limit = f"outside the vocabulary of {vocab_size}"
        return failed(request, f"token id {outside[0]} is {limit}", "input", length)
    return Job(place, request, prompt, room)


def failed(request: Request, problem: str, kind: ErrorKind, prompt_tokens: int = 0) -> Completion:
    """The completion of a request that failed."""
    usage = Usage(prompt_tokens=prompt_tokens)
    return Completion(
        id=request.id, finish_reason="error", error=problem, error_kind=kind, usage=usage
    )


def complete(
    job: Job,
    token_ids: Sequence[int],
    *,
    tokenizer: PreTrainedTokenizerBase,
    eos_ids: Collection[int],
    reason: FinishReason,
    logprobs: tuple[float, ...] | None,
) -> Completion:
    """The completion of a job whose tokens are there.

    Args:
        eos_ids: All that end a sequence; some models end a tool call with one of its own.
    """
    text, calls = _written(job, token_ids, tokenizer, eos_ids)
    return Completion(
        id=job.request.id,
        text=text,
        token_ids=tuple(token_ids),
        logprobs=logprobs,
        tool_calls=calls,
        finish_reason=reason,
        usage=Usage(prompt_tokens=job.length, completion_tokens=len(token_ids)),
    )


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Text of token ids, without special tokens."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))


def _written(
    job: Job,
    token_ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    eos_ids: Collection[int],
) -> tuple[str, tuple[ToolCall, ...]]:
    if job.request.tools is None:
        return cut_at_stop(decode(tokenizer, token_ids), job.params.stop), ()
    # The marks of a call may be special tokens, so these stay in the text that is read for calls.
    kept = token_ids[:-1] if token_ids and token_ids[-1] in eos_ids else token_ids
    text = cut_at_stop(str(tokenizer.decode(list(kept))), job.params.stop)
    prompt = str(tokenizer.decode(list(job.prompt.token_ids)))
    return read_calls(tokenizer, text, prompt=prompt, tools=job.request.tools)
