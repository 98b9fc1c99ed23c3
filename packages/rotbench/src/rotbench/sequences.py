"""Trajectories as sequences of tokens, of which only the assistant's bear loss.

    encoder = Encoder(tokenizer, "plain")
    for sequence in encoder.sequences(trajectory):
        sequence.labels            # the token ids of the assistant's turns, -100 elsewhere

The styles are those of `rotbench eval` (`prompts`), so that a model is asked as it was trained.

`plain`: the official code's lines in one sequence, with the end token behind every turn of the
assistant, so that a model stops there. A first prompt is token for token the one of `eval`; in the
history of later ones `eval`, like the official code, writes no end tokens.
`chat` and `native`: each turn of the assistant is what the chat template puts behind its own
generation prompt. Turns share a sequence where the template continues what it wrote before, and get
one each where it rewrites it, as templates do that drop earlier reasoning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from jinja2 import TemplateError

from papercore.errors import DataError, ModelError
from papercore.generate.tools import calls_of, functions
from papercore.generate.types import Message, ToolCall, ToolSpec
from rotbench.native import Toolbox
from rotbench.openai_layout import as_openai
from rotbench.prompts import NATIVE_SYSTEM
from rotbench.rotbench_layout import as_rotbench, spoken, system_text
from rotbench.trajectories import Move, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["IGNORE", "Encoder", "PromptStyle", "TokenSequence", "messages_of"]

PromptStyle: TypeAlias = Literal["plain", "chat", "native"]

IGNORE: Final = -100
"""Label of a token that bears no loss."""

_LABELS = {"user": "User", "assistant": "Assistant", "function": "Function"}


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One training example."""

    input_ids: list[int]
    labels: list[int]
    """The token's own id where it bears loss, else `IGNORE`."""

    @property
    def num_loss(self) -> int:
        """Tokens that bear loss."""
        return sum(label != IGNORE for label in self.labels)

    def cut(self, length: int) -> TokenSequence:
        """The first so many tokens."""
        return TokenSequence(self.input_ids[:length], self.labels[:length])


class Encoder:
    """Turns trajectories into sequences for one tokenizer and style."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: PromptStyle) -> None:
        """Checks that the tokenizer can do it.

        Raises:
            ModelError: It has no end token, no offsets or no chat template.
        """
        self.tokenizer = tokenizer
        self.style = style
        if style == "plain":
            if tokenizer.eos_token_id is None:
                raise ModelError("the tokenizer has no end token, which has to close each turn")
            if not tokenizer.is_fast:
                raise ModelError("the tokenizer gives no offsets: take one with a tokenizer.json")
        elif not tokenizer.chat_template:
            raise ModelError(
                f"the model has no chat template for prompt_style {style}: take a chat model, or "
                "--prompt-style plain"
            )

    def sequences(self, trajectory: Trajectory) -> list[TokenSequence]:
        """The training examples that a trajectory makes, most often one.

        Raises:
            DataError: It cannot be shown in this style.
        """
        if self.style == "plain":
            return [self._plain(as_rotbench(trajectory))]
        messages, tools = messages_of(trajectory, self.style)
        return list(self._chat(messages, tools))

    def _plain(self, trajectory: Trajectory) -> TokenSequence:
        """Everything up to an answer is tokenized together with it, as `eval` will."""
        ids: list[int] = []
        labels: list[int] = []
        pending = f"System: {system_text(trajectory)}"
        for move in trajectory.moves:
            if move.role != "assistant":
                pending += f"\n{_LABELS[move.role]}: {spoken(move)}"
                continue
            pending += f"\n{_LABELS['assistant']}:"
            piece, own = self._piece(pending, f" {spoken(move)}", first=not ids)
            ids += piece
            labels += own
            pending = ""
        return TokenSequence(ids, labels)

    def _piece(self, prompt: str, answer: str, *, first: bool) -> tuple[list[int], list[int]]:
        encoded = self.tokenizer(
            prompt + answer, add_special_tokens=first, return_offsets_mapping=True
        )
        ids = cast("list[int]", encoded["input_ids"])
        offsets = cast("list[tuple[int, int]]", encoded["offset_mapping"])
        start = len(prompt)
        labels = [
            token if begin >= start and end > begin else IGNORE
            for token, (begin, end) in zip(ids, offsets, strict=True)
        ]
        end_token = cast("int", self.tokenizer.eos_token_id)
        return [*ids, end_token], [*labels, end_token]

    def _chat(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None
    ) -> Iterator[TokenSequence]:
        ids: list[int] = []
        labels: list[int] = []
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt = self._template(messages[:place], tools, opened=True)
            full = self._template(messages[: place + 1], tools, opened=False)
            if full[: len(prompt)] != prompt:
                raise DataError(
                    "the row: the chat template does not write an answer behind its own "
                    "generation prompt"
                )
            if ids and prompt[: len(ids)] != ids:
                yield TokenSequence(ids, labels)
                ids, labels = [], []
            labels = (
                labels + [IGNORE] * (len(prompt) - len(ids)) + self._answer(full[len(prompt) :])
            )
            ids = full
        if ids:
            yield TokenSequence(ids, labels)

    def _answer(self, ids: list[int]) -> list[int]:
        """Labels of an answer: up to its end token; a line break behind that is the template's."""
        end_token = self.tokenizer.eos_token_id
        if end_token not in ids:
            return ids
        end = len(ids) - ids[::-1].index(cast("int", end_token))
        return ids[:end] + [IGNORE] * (len(ids) - end)

    def _template(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None, *, opened: bool
    ) -> list[int]:
        """Token ids of a chat; `opened` ends it with the template's generation prompt."""
        apply = self.tokenizer.apply_chat_template
        # Older versions of transformers cannot; papercore warns of it where it generates.
        sanitize: dict[str, Any] = {}
        if "sanitize_control_tokens" in signature(apply).parameters:
            sanitize["sanitize_control_tokens"] = True
        try:
            encoded = apply(
                [_turn(message) for message in messages],  # type: ignore[arg-type]
                tools=functions(tools) if tools else None,  # type: ignore[arg-type]
                add_generation_prompt=opened,
                tokenize=True,
                return_dict=True,
                **sanitize,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"the row: the chat template refuses it: {error}") from None
        return list(cast("dict[str, list[int]]", encoded)["input_ids"])


def messages_of(
    trajectory: Trajectory, style: PromptStyle
) -> tuple[tuple[Message, ...], tuple[ToolSpec, ...] | None]:
    """A trajectory as the messages that `eval` would send, answers included.

    Raises:
        DataError: It cannot be shown in this style.
    """
    if style == "native":
        return _native_messages(as_openai(trajectory))
    trajectory = as_rotbench(trajectory)
    messages = [Message(role="system", content=system_text(trajectory))]
    for move in trajectory.moves:
        if move.role == "function":
            messages.append(Message(role="user", content=f"{_LABELS['function']}: {move.text}"))
        else:
            messages.append(Message(role=move.role, content=spoken(move)))
    return tuple(messages), None


def _native_messages(
    trajectory: Trajectory,
) -> tuple[tuple[Message, ...], tuple[ToolSpec, ...]]:
    """Calls in the API's form; what follows a call answers it, as the reply of its tool."""
    toolbox = Toolbox.of(trajectory.tools)
    messages = [Message(role="system", content=trajectory.preamble or NATIVE_SYSTEM)]
    waiting: list[tuple[str, str]] = []
    for place, move in enumerate(trajectory.moves):
        if move.role == "assistant":
            calls = _native_calls(move, toolbox, place)
            waiting = [(call.id, one.name) for call, one in zip(calls, move.calls, strict=True)]
            messages.append(Message(role="assistant", content=move.text, tool_calls=calls))
        elif waiting:
            answered = next((one for one in waiting if one[1] == move.called), waiting[0])
            waiting.remove(answered)
            messages.append(Message(role="tool", content=move.text, tool_call_id=answered[0]))
        else:
            messages.append(Message(role="user", content=move.text))
    return tuple(messages), toolbox.specs


def _native_calls(move: Move, toolbox: Toolbox, place: int) -> tuple[ToolCall, ...]:
    """Ids of nine letters and digits, which is what Mistral's template asks for."""
    calls = []
    for number, call in enumerate(move.calls):
        name, arguments = toolbox.disguised(call.name, call.arguments)
        calls.append(ToolCall(id=f"call{place:03d}{number:02d}", name=name, arguments=arguments))
    return tuple(calls)


def _turn(message: Message) -> dict[str, object]:
    """A message as templates read it."""
    turn: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = calls_of(message, parsed=True)
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn
