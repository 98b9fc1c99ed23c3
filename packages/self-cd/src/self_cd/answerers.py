"""Who answers questions: the contrast, or a baseline with one context on any backend.

    answerer = answerer_for(config, flags)
    completions = answerer.answer(items)

The contrast needs the logits of both contexts, so it runs here, in transformers. Baselines run
wherever papercore has a backend: local models, vLLM and endpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from papercore.config import RunFlags
from papercore.device import release_memory
from papercore.errors import DataError, ModelError
from papercore.generate.backends import generator_for
from papercore.generate.hf import HFGenerator
from papercore.generate.jobs import decode, failed
from papercore.generate.texts import cut_at_stop
from papercore.generate.types import Completion, Generator, Request, Usage
from papercore.models import read_tokenizer
from papercore.refs import parse_ref
from self_cd.config import Method, PromptConfig, RunAnswersConfig
from self_cd.generation import ContrastGenerator
from self_cd.head import Float32Head
from self_cd.intake import request_of
from self_cd.items import Item
from self_cd.prompts import Prompter, messages
from self_cd.session import Session, open_session
from self_cd.wording import WORDING_VERSION

__all__ = ["Answerer", "OneContext", "answerer_for"]

Facts = dict[str, str | float | bool | None]


class Answerer(Protocol):
    """Answers questions; a question that fails gives a completion with an error."""

    digest: str
    """Hash of the prompts and of the chat template."""
    facts: Facts
    """Where it runs, for the run folder."""

    def answer(self, items: Sequence[Item]) -> list[Completion]:
        """One completion per question, in their order."""
        ...


def answerer_for(config: RunAnswersConfig, flags: RunFlags) -> Answerer:
    """Loads who answers.

    Raises:
        ModelError: The model cannot be loaded or used.
    """
    if config.method != "self-cd":
        return _baseline(config, flags)
    session = open_session(config, flags)
    if config.handoff is None:
        return _Contrast(session, config)
    return _HandedOff(session, config, partial(_backend, config.handoff, config, flags))


class OneContext:
    """A baseline: one prompt per question, on any backend."""

    def __init__(
        self,
        method: Method,
        backend: Generator,
        config: RunAnswersConfig,
        prompter: Prompter | None,
    ) -> None:
        """Wraps a backend.

        Args:
            prompter: Writes the token ids; None sends messages to an endpoint, which has a
                template of its own.
        """
        self._method = method
        self._backend = backend
        self._config = config
        self._prompter = prompter
        self.digest = prompter.digest if prompter else _digest(config.contrast.prompts)
        self.facts: Facts = {"backend": type(backend).__name__}

    def answer(self, items: Sequence[Item]) -> list[Completion]:
        """One completion per question, in their order."""
        return _complete(items, self._request, self._backend)

    def _request(self, item: Item) -> Request:
        params = self._config.sampling
        if self._prompter is None:
            prompts = self._config.contrast.prompts
            sent = messages(self._method, item.query, prompts, turns=item.turns)
            return Request(id=item.id, messages=sent, params=params)
        ids = self._prompter.context(item.query, self._method, turns=item.turns)
        return Request(id=item.id, token_ids=ids, params=params)


class _Contrast:
    """Self-Contrastive Decoding with a model in this process."""

    def __init__(self, session: Session, config: RunAnswersConfig) -> None:
        self.session = session
        self._config = config
        self._generator = ContrastGenerator(
            session.model,
            session.tokenizer,
            config.contrast,
            batch_size=config.batch_size or "auto",
            seed=config.seed,
            max_context=config.max_context,
        )
        self.digest = session.prompter.digest
        self.facts: Facts = {"backend": "self_cd", **session.facts}

    def answer(self, items: Sequence[Item], max_new_tokens: int | None = None) -> list[Completion]:
        """One completion per question, in their order; at most so many tokens."""
        config = self._config
        params = config.sampling
        if max_new_tokens is not None:
            params = params.model_copy(update={"max_new_tokens": max_new_tokens})
        requests = [request_of(place, item, params) for place, item in enumerate(items)]
        return self._generator.generate(requests)


class _HandedOff:
    """The first tokens contrasted here, the others by a backend in the plain context.

    The model leaves the memory before the backend starts, so this answers once, all questions.
    """

    def __init__(
        self, session: Session, config: RunAnswersConfig, start: Callable[[], Generator]
    ) -> None:
        assert config.contrast.first_steps is not None
        self._steps = min(config.contrast.first_steps, config.max_new_tokens)
        self._tokenizer, self._prompter = session.tokenizer, session.prompter
        self._first: _Contrast | None = _Contrast(session, config)
        self._config = config
        self._start = start
        self.digest = session.prompter.digest
        self.facts: Facts = {**self._first.facts, "handoff": f"{config.handoff}, approximate"}

    def answer(self, items: Sequence[Item]) -> list[Completion]:
        """One completion per question, in their order; can be called once."""
        assert self._first is not None, "the model has left"
        begun = self._first.answer(items, self._steps)
        self._first = None
        release_memory()
        left = {place: one for place, one in enumerate(begun) if self._goes_on(one)}
        starts = {items[place].id: one.token_ids for place, one in left.items()}

        def request(item: Item) -> Request:
            plain = self._prompter.contexts(item.query, turns=item.turns).plain
            room = self._config.max_new_tokens - len(starts[item.id])
            params = self._config.sampling.model_copy(update={"max_new_tokens": room})
            return Request(id=item.id, token_ids=(*plain, *starts[item.id]), params=params)

        ends = _complete([items[place] for place in left], request, self._start()) if left else []
        for place, end in zip(left, ends, strict=True):
            begun[place] = self._joined(begun[place], end)
        return begun

    def _goes_on(self, begun: Completion) -> bool:
        room = self._config.max_new_tokens - len(begun.token_ids)
        return begun.finish_reason == "length" and room > 0

    def _joined(self, begun: Completion, end: Completion) -> Completion:
        if end.error is not None:
            return end
        ids = (*begun.token_ids, *end.token_ids)
        whole = decode(self._tokenizer, ids)
        text = cut_at_stop(whole, self._config.stop)
        usage = Usage(prompt_tokens=begun.usage.prompt_tokens, completion_tokens=len(ids))
        return end.model_copy(
            update={
                "text": text,
                "token_ids": ids,
                "finish_reason": "stop" if text != whole else end.finish_reason,
                "usage": usage,
            }
        )


class _Float32:
    """A local backend whose logits are as exact as those of the contrast."""

    def __init__(self, backend: Generator, session: Session) -> None:
        self._backend = backend
        self._head = Float32Head(session.model)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completes every request."""
        with self._head.attached():
            return self._backend.generate(requests)


def _baseline(config: RunAnswersConfig, flags: RunFlags) -> OneContext:
    kind = parse_ref(config.model).kind
    if kind in ("hf", "tiny"):
        session = open_session(config, flags)
        backend: Generator = HFGenerator(
            session.model,
            session.tokenizer,
            batch_size=config.batch_size or "auto",
            seed=config.seed,
            max_context=config.max_context,
        )
        if config.contrast.float32_head:
            backend = _Float32(backend, session)
        found = OneContext(config.method, backend, config, session.prompter)
        found.facts |= session.facts
        return found
    if config.quantization or config.adapter:
        raise ModelError(f"{config.model}: --quantization and --adapter are for local models")
    prompter = None
    if kind == "vllm":
        tokenizer = read_tokenizer(parse_ref(config.model).name)
        prompter = Prompter(tokenizer, config.contrast.prompts)
    return OneContext(config.method, _backend(config.model, config, flags), config, prompter)


def _backend(ref: str, config: RunAnswersConfig, flags: RunFlags) -> Generator:
    is_endpoint = parse_ref(ref).kind == "openai"
    return generator_for(
        ref,
        endpoint=config.endpoint if is_endpoint else None,
        device=flags.device,
        dtype=config.dtype,
        batch_size=config.batch_size or "auto",
        seed=config.seed,
        max_context=config.max_context,
    )


def _digest(config: PromptConfig) -> str:
    """Hash of what an endpoint is sent; its chat template is not known here."""
    return hashlib.sha256(f"{WORDING_VERSION} {config.model_dump_json()}".encode()).hexdigest()


def _complete(
    items: Sequence[Item], request: Callable[[Item], Request], backend: Generator
) -> list[Completion]:
    """Completions of all items; one without a prompt fails alone."""
    results: dict[int, Completion] = {}
    requests: dict[int, Request] = {}
    for place, item in enumerate(items):
        try:
            requests[place] = request(item)
        except DataError as error:
            empty = Request(id=item.id, prompt="")
            results[place] = failed(empty, str(error), "input")
    completions = backend.generate(list(requests.values()))
    results |= dict(zip(requests, completions, strict=True))
    return [results[place] for place in range(len(items))]
