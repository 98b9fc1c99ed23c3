"""Generation by an endpoint that speaks OpenAI's API: vLLM, `transformers serve`, commercial ones.

    generator = OpenAIGenerator("Qwen/Qwen3-8B", "http://127.0.0.1:8000/v1")
    completions = generator.generate(requests)

Messages go to `/chat/completions`, prompts and token ids to `/completions`. Retries, budget, cache
and their order are ours; the `openai` client only speaks HTTP. Importing this module imports no
client and no torch.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from papercore.errors import GenerationError
from papercore.generate.access import Access
from papercore.generate.cache import CachedReply, ReplyCache, cache_key
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.faults import (
    Breaker,
    Clock,
    Fault,
    Pace,
    SystemClock,
    backoff,
    fault_of,
)
from papercore.generate.spend import CountTokens, Ledger, OverBudget, Spend, Tokens, worst_case
from papercore.generate.types import Completion, ErrorKind, Request
from papercore.generate.waiting import run
from papercore.generate.wire import Reply, Route, body_of, read_reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openai import AsyncOpenAI

__all__ = ["OpenAIGenerator"]

logger = logging.getLogger(__name__)

_BUDGET_POLL_S = 0.01
"""How often a request that waits for room in the budget looks again."""


@dataclass
class _Call:
    """One call of `generate`: what its workers share."""

    client: AsyncOpenAI
    deadline: float | None
    samples: Counter[str] = field(default_factory=Counter)
    """How often each body has come up, so that equal requests are different samples."""


@dataclass(frozen=True)
class _Ask:
    """A request as it is sent.

    Attributes:
        key: In the cache.
        cost: The most that it can cost.
    """

    request: Request
    route: Route
    body: dict[str, object]
    key: str
    cost: Tokens


class OpenAIGenerator:
    """The backend of the `Generator` protocol for endpoints."""

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        endpoint: EndpointConfig | None = None,
        seed: int = 0,
        ledger: Ledger | None = None,
        count_tokens: CountTokens | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepares to talk to an endpoint; nothing is sent yet.

        Args:
            model: Its name at the endpoint.
            base_url: Up to and with `/v1`.
            endpoint: Limits, prices, budget, cache; the defaults if `None`.
            seed: From which a sampled request without a seed gets its own, by its id.
            ledger: To share one budget among several generators; else one of its own.
            count_tokens: Tokens of a text, for a tighter worst case; else a byte is a token.
            clock: Time, for tests.

        Raises:
            ModelError: The client is not installed, the key is missing, or it would travel in the
                clear.
        """
        self.model = model
        self.config = endpoint or EndpointConfig()
        self.access = Access.of(base_url, self.config)
        self.ledger = ledger or Ledger(self.config)
        self.fingerprints: set[str] = set()
        """What the endpoint said about its configuration; more than one: it changed under us."""
        self._seed = seed
        self._count_tokens = count_tokens
        self._clock: Clock = clock or SystemClock()
        self._cache = None if self.config.cache is None else ReplyCache(self.config.cache)
        # Callers may send a few requests per call: limits do not begin anew with each.
        self._pace = Pace(self._clock, self.config.requests_per_minute)
        self._breaker = Breaker(self.config.give_up_after)
        self._dice = random.Random(seed)
        self._warned: set[str] = set()

    @property
    def spend(self) -> Spend:
        """What was sent and what it cost so far."""
        return self.ledger.spend

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completes every request, in their order; one that fails gives an error.

        An interrupt stops what is in flight; replies that had arrived are in the cache.
        """
        if not requests:
            return []
        return run(lambda: self._generate(requests))

    async def _generate(self, requests: Sequence[Request]) -> list[Completion]:
        results: list[Completion | None] = [None] * len(requests)
        async with self._call() as call:
            queue = iter(enumerate(requests))
            workers = min(self.config.concurrency, len(requests))
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(call, queue, results))
        done = [one for one in results if one is not None]
        assert len(done) == len(requests)
        return done

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[_Call]:
        now = self._clock.now()
        limit = self.config.deadline_s
        self._breaker.close()
        async with self.access.client(self.config) as client:
            yield _Call(
                client=client,
                deadline=None if limit is None else now + limit,
            )

    async def _work(
        self,
        call: _Call,
        queue: Iterator[tuple[int, Request]],
        results: list[Completion | None],
    ) -> None:
        """Takes requests from the queue until it is empty."""
        for place, request in queue:
            try:
                ask = self._ask(call, request)
            except (OSError, ValueError) as error:
                results[place] = _failed(request, f"cannot be sent: {error}", "input")
                continue
            results[place] = await self._answer(call, ask)

    def _ask(self, call: _Call, request: Request) -> _Ask:
        """What is sent for a request; called in the order of the requests.

        Raises:
            OSError: An image cannot be read.
            ValueError: A file is no image, or a text cannot be encoded.
        """
        route, body = body_of(request, model=self.model, config=self.config, seed=self._seed)
        key = cache_key(self.access.base_url, route, body, 0)
        sample = call.samples[key]
        call.samples[key] += 1
        if sample:
            key = cache_key(self.access.base_url, route, body, sample)
        return _Ask(request, route, body, key, worst_case(request, self._count_tokens))

    async def _answer(self, call: _Call, ask: _Ask) -> Completion:
        """From the cache, or else from the endpoint."""
        request = ask.request
        if self._cache is not None and (found := self._cache.get(ask.key)) is not None:
            self.ledger.count(cached=1)
            return found.completion.model_copy(update={"id": request.id})
        if self.config.replay:
            return _failed(request, f"is not in the cache {self.config.cache}", "replay")
        try:
            reply = await self._attempts(call, ask)
        except _FaultError as error:
            self._breaker.failure(error.fault)
            return _failed(request, error.fault.problem, error.fault.kind)
        except OverBudget as error:
            return _failed(request, str(error), "budget")
        self._breaker.success()
        self._note(request, reply)
        if self._cache is not None and reply.completion.finish_reason != "error":
            kept = CachedReply(
                key=ask.key,
                model=reply.model,
                fingerprint=reply.fingerprint,
                completion=reply.completion,
            )
            await asyncio.to_thread(self._cache.put, kept)
        return reply.completion

    async def _attempts(self, call: _Call, ask: _Ask) -> Reply:
        """Sends a request until it is answered or not worth another attempt.

        Raises:
            _FaultError: The last fault.
            OverBudget: The budget has no room for it.
        """
        attempt = 0
        while True:
            await self._hold(ask.cost)
            try:
                await self._pace.turn()
                timeout_s = self._time_left(call)
            except BaseException:
                self.ledger.release(ask.cost)
                raise
            attempt += 1
            outcome = await self._send(call, ask, timeout_s)
            if isinstance(outcome, Reply):
                return outcome
            wait_s = backoff(attempt, outcome, self._dice)
            last = not outcome.again or attempt > self.config.max_retries
            if last or self._breaker.problem is not None or self._too_late(call, wait_s):
                tries = f" (attempt {attempt})" if attempt > 1 else ""
                raise _FaultError(replace(outcome, problem=outcome.problem + tries))
            if outcome.wait_s is not None:
                self._pace.pause(min(outcome.wait_s, wait_s))
            logger.info("trying again in %.1f s: %s", wait_s, outcome.problem)
            self.ledger.count(retried=1)
            await self._clock.sleep(wait_s)

    async def _hold(self, cost: Tokens) -> None:
        """Holds the worst case back; waits while only what is in flight leaves no room."""
        while not self.ledger.hold(cost):
            await asyncio.sleep(_BUDGET_POLL_S)

    def _time_left(self, call: _Call) -> float:
        """Seconds that an attempt may take.

        Raises:
            _FaultError: Nothing more is to be sent.
        """
        if self._breaker.problem is not None:
            problem = f"not sent, the endpoint failed before: {self._breaker.problem}"
            raise _FaultError(Fault("skipped", problem))
        if call.deadline is None:
            return self.config.timeout_s
        left = call.deadline - self._clock.now()
        if left <= 0:
            limit = self.config.deadline_s
            raise _FaultError(Fault("skipped", f"not sent, the deadline of {limit:g} s has passed"))
        return min(left, self.config.timeout_s)

    def _too_late(self, call: _Call, wait_s: float) -> bool:
        """Whether the deadline comes before the end of a wait."""
        return call.deadline is not None and self._clock.now() + wait_s >= call.deadline

    async def _send(self, call: _Call, ask: _Ask, timeout_s: float) -> Reply | Fault:
        """One attempt, and its account."""
        self.ledger.count(sent=1)
        try:
            async with asyncio.timeout(timeout_s):
                text = await call.client.post(ask.route, cast_to=str, body=ask.body)
            reply = read_reply(ask.request, ask.route, text)
        except Exception as error:
            fault = fault_of(
                error, model=self.model, redact=self.access.redact, now=self._clock.wall()
            )
            if fault is None:
                self.ledger.settle(ask.cost, None)
                raise
            if fault.paid:
                self.ledger.settle(ask.cost, None)
            else:
                self.ledger.release(ask.cost)
            return fault
        except BaseException:  # an interrupt: what was in flight may have been paid for
            self.ledger.settle(ask.cost, None)
            raise
        usage = reply.completion.usage
        self.ledger.settle(ask.cost, usage if usage.known else None)
        return reply

    def _note(self, request: Request, reply: Reply) -> None:
        """Warns once of what a reply lacks, and keeps what the endpoint said about itself."""
        if reply.fingerprint is not None:
            self.fingerprints.add(reply.fingerprint)
        if not reply.completion.usage.known:
            self._warn("tells no usage: its worst case counts against the budget")
        if request.params.logprobs and reply.completion.logprobs is None:
            self._warn("returns no log-probabilities, though they were asked for")

    def _warn(self, problem: str) -> None:
        if problem not in self._warned:
            self._warned.add(problem)
            logger.warning("the endpoint of %s %s", self.model, problem)


class _FaultError(GenerationError):
    """Carries a fault from an attempt to the completion."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.problem)
        self.fault = fault


def _failed(request: Request, problem: str, kind: ErrorKind) -> Completion:
    return Completion(id=request.id, finish_reason="error", error=problem, error_kind=kind)
