"""A stub of an endpoint on this machine, for everything that a real one does wrong; no torch.

    with stub_endpoint([Answer(status=429, headers={"Retry-After": "2"}), chat("hello")]) as stub:
        OpenAIGenerator("any", stub.url).generate(requests)
    assert len(stub.calls) == 2

It speaks just enough of the API to answer, and keeps what it was asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Answer", "Call", "StubEndpoint", "chat", "stub_endpoint", "text"]


@dataclass(frozen=True)
class Answer:
    """What the stub does with a request.

    Attributes:
        cut_at: Sends so many bytes of the body, then breaks the connection.
        hang: Sends nothing until the stub is closed.
    """

    status: int = 200
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    hang: bool = False


@dataclass(frozen=True)
class Call:
    """A request that reached the stub.

    Attributes:
        number: How many came before it.
    """

    number: int
    route: str
    body: Mapping[str, object]
    headers: Mapping[str, str]


Answers = Callable[[Call], Answer] | Sequence[Answer]


def chat(content: str | None, *, finish_reason: str = "stop", **parts: object) -> Answer:
    """A chat reply; `parts` are further parts of the document, None removes one.

    `message` and `choice` among them are laid over the message and the choice.
    """
    message = {"role": "assistant", "content": content, **_table(parts.pop("message", {}))}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return _document({"object": "chat.completion"}, choice, parts)


def text(content: str, *, finish_reason: str = "stop", **parts: object) -> Answer:
    """A reply to a prompt; `parts` as for `chat`."""
    choice = {"index": 0, "text": content, "finish_reason": finish_reason}
    return _document({"object": "text_completion"}, choice, parts)


class StubEndpoint:
    """A running stub.

    Attributes:
        url: Its address, with `/v1`.
        calls: What it was asked, in the order of arrival.
        most_in_flight: Most requests that it had at a time.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._in_flight = 0
        self.calls: list[Call] = []
        self.most_in_flight = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, route: str, body: Mapping[str, object], headers: Mapping[str, str]) -> Answer:
        """Notes a request and chooses the answer; the last of a sequence is repeated."""
        with self._lock:
            call = Call(len(self.calls), route, body, headers)
            self.calls.append(call)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        if callable(self._answers):
            return self._answers(call)
        return self._answers[min(call.number, len(self._answers) - 1)]

    def answered(self) -> None:
        """A request has been dealt with."""
        with self._lock:
            self._in_flight -= 1

    def hang(self) -> None:
        """Waits until the stub is closed."""
        self._closing.wait()

    def close(self) -> None:
        """Stops answering."""
        self._closing.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def stub_endpoint(answers: Answers | None = None) -> Iterator[StubEndpoint]:
    """A stub that runs in a thread; without answers it repeats what it is told."""
    stub = StubEndpoint(_echo if answers is None else answers)
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.close()
        thread.join()


def _echo(call: Call) -> Answer:
    messages = call.body.get("messages")
    if isinstance(messages, list):
        return chat(str(messages[-1]["content"]))
    return text(str(call.body.get("prompt")))


def _document(start: Mapping[str, object], choice: object, parts: Mapping[str, object]) -> Answer:
    more = dict(parts)
    choice = {**_table(choice), **_table(more.pop("choice", {}))}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    document = {"id": "1", "model": "stub", **start, "choices": [choice], "usage": usage, **more}
    return Answer(body=json.dumps({key: one for key, one in document.items() if one is not None}))


def _table(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}


def _handler(stub: StubEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Answers; the name is the base class's."""
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            route = self.path.removeprefix("/v1")
            answer = stub.answer(route, json.loads(content), dict(self.headers))
            try:
                if answer.hang:
                    stub.hang()
                    self.close_connection = True
                else:
                    self._send(answer)
            except ConnectionError:  # the client has gone
                self.close_connection = True
            finally:
                stub.answered()

        def _send(self, answer: Answer) -> None:
            body = answer.body.encode()
            self.send_response(answer.status)
            headers = {"Content-Type": "application/json", **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if answer.cut_at is None else body[: answer.cut_at])
            if answer.cut_at is not None:
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Stays quiet."""

    return Handler
