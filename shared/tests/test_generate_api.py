"""Endpoints that fail in every way we know of, played by a stub on this machine."""

import asyncio
import json
import os
import random
import signal
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from papercore.errors import ModelError
from papercore.generate import Generator, ImagePart, Message, Request, SamplingParams, ToolSpec
from papercore.generate.api import OpenAIGenerator
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.faults import LONGEST_WAIT_S, Fault, Pace, backoff
from papercore.generate.types import TextPart, ToolCall
from papercore.testing import Answer, chat, stub_endpoint, text

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = "sk-verysecret0123456789"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


class FakeClock:
    """Time that passes only in sleep."""

    def __init__(self):
        self.time, self.slept = 100.0, []

    def now(self):
        return self.time

    def wall(self):
        return NOW + timedelta(seconds=self.time - 100.0)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def generator(stub, clock=None, *, seed=0, **settings):
    endpoint = EndpointConfig(**{"concurrency": 1, **settings})
    return OpenAIGenerator("m", stub.url, endpoint=endpoint, clock=clock or FakeClock(), seed=seed)


def chats(count=1, **params):
    shared = SamplingParams(**{"max_new_tokens": 10, **params})
    return [
        Request(id=f"r{i}", messages=(Message(role="user", content=f"hi {i}"),), params=shared)
        for i in range(count)
    ]


def failing(status, message="no", **more):
    error = {"message": message, **more.pop("error", {})}
    return Answer(status=status, body=json.dumps({"error": error}), **more)


def test_it_is_a_generator():
    assert isinstance(OpenAIGenerator("m", "http://127.0.0.1:1/v1"), Generator)


def test_completions_come_back_in_order():
    with stub_endpoint() as stub:
        completions = generator(stub, concurrency=8).generate(chats(40))
    assert [one.id for one in completions] == [f"r{i}" for i in range(40)]
    assert [one.text for one in completions] == [f"hi {i}" for i in range(40)]
    assert {one.finish_reason for one in completions} == {"stop"}
    assert completions[0].usage.total_tokens == 5


def test_no_more_requests_are_in_flight_than_allowed():
    gate = threading.Barrier(3, timeout=20)

    def answer(call):
        gate.wait()  # passes only three at a time
        return chat("x")

    with stub_endpoint(answer) as stub:
        completions = generator(stub, concurrency=3).generate(chats(9))
    assert stub.most_in_flight == 3
    assert all(one.error is None for one in completions)


def test_what_is_sent_for_a_chat(tmp_path):
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"png")
    call = ToolCall(id="c1", name="look", arguments='{"at": 1')
    request = Request(
        id="r",
        messages=(
            Message(role="system", content="be brief"),
            Message(role="user", content=(TextPart(text="what?"), ImagePart(path=picture))),
            Message(role="assistant", content="", tool_calls=(call,)),
            Message(role="tool", content="a cat", tool_call_id="c1"),
        ),
        tools=(ToolSpec(name="look", description="Looks."),),
        params=SamplingParams(
            max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=4, stop=("x",), logprobs=True
        ),
    )
    with stub_endpoint() as stub:
        generator(stub).generate([request])
    body = stub.calls[0].body
    assert stub.calls[0].route == "/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": 1'},
                }
            ],
        },
        {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]
    assert 0 <= body.pop("seed") < 2**31
    assert {name: body[name] for name in body.keys() - {"messages", "tools"}} == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": ["x"],
        "logprobs": True,
    }


def test_prompts_and_token_ids_go_to_completions():
    params = SamplingParams(max_new_tokens=3, seed=7, logprobs=True)
    asked = [
        Request(id="p", prompt="once", params=params),
        Request(id="t", token_ids=(1, 2), params=params),
    ]
    told = text("upon a time", choice={"logprobs": {"token_logprobs": [-0.5, -1.0]}})
    with stub_endpoint([told]) as stub:
        completions = generator(stub).generate(asked)
    assert [one.route for one in stub.calls] == ["/completions"] * 2
    assert [one.body["prompt"] for one in stub.calls] == ["once", [1, 2]]
    assert stub.calls[0].body["seed"] == 7
    assert completions[0].text == "upon a time"
    assert completions[0].logprobs == (-0.5, -1.0)


def test_the_limit_of_tokens_has_the_name_that_the_endpoint_knows():
    with stub_endpoint() as stub:
        generator(stub, max_tokens_field="max_completion_tokens").generate(chats())
    assert stub.calls[0].body["max_completion_tokens"] == 10
    assert "max_tokens" not in stub.calls[0].body


def test_seeds_of_samples_follow_the_generator_and_the_request():
    def seeds(seed):
        with stub_endpoint() as stub:
            generator(stub, seed=seed).generate(chats(2, temperature=1.0))
        return [one.body["seed"] for one in stub.calls]

    assert seeds(0) == seeds(0)
    assert len({*seeds(0), *seeds(1)}) == 4


def test_what_is_read_from_a_reply():
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{bad"}}]
    told = chat(
        None,
        finish_reason="tool_calls",
        message={"tool_calls": calls},
        choice={"logprobs": {"content": [{"logprob": -0.25}]}},
        system_fingerprint="fp1",
    )
    with stub_endpoint([told]) as stub:
        made = generator(stub)
        completion = made.generate(chats(logprobs=True))[0]
    assert (completion.text, completion.finish_reason) == ("", "stop")
    assert completion.tool_calls == (ToolCall(id="a", name="f", arguments="{bad"),)
    assert completion.logprobs == (-0.25,)
    assert made.fingerprints == {"fp1"}


@pytest.mark.parametrize(
    ("function", "name", "arguments"),
    [
        ({"name": "f", "arguments": None}, "f", ""),
        ({"name": "f", "arguments": [1]}, "f", "[1]"),
        ({"name": "f", "arguments": {"a": "é"}}, "f", '{"a": "é"}'),
        ({"name": None, "arguments": "{}"}, "", "{}"),
    ],
)
def test_an_odd_call_is_the_models_and_no_fault_of_the_endpoint(function, name, arguments):
    with stub_endpoint([chat(None, message={"tool_calls": [{"function": function}]})]) as stub:
        completion = generator(stub).generate(chats())[0]
    assert completion.error is None
    assert completion.tool_calls == (ToolCall(id="call_0", name=name, arguments=arguments),)


@pytest.mark.parametrize(
    "usage", [{}, {"prompt_tokens": 3}, {"prompt_tokens": -1, "completion_tokens": 1}]
)
def test_half_a_count_of_tokens_is_none(usage):
    body = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    with stub_endpoint([Answer(body=json.dumps(body))]) as stub:
        made = generator(stub)
        completion = made.generate(chats())[0]
    assert (completion.text, completion.error, completion.usage.known) == ("x", None, False)
    assert made.spend.unknown == 1


def test_half_a_character_is_the_models_and_no_fault_of_the_endpoint():
    body = '{"choices": [{"message": {"content": "a\\ud83d \\ud83d\\ude00 \\\\ud83d"}}]}'
    with stub_endpoint([Answer(body=body)]) as stub:
        completion = generator(stub).generate(chats())[0]
    assert (completion.text, completion.error) == ("a\ufffd \U0001f600 \\ud83d", None)


def test_a_reply_that_is_cut_off_or_filtered_says_so():
    with stub_endpoint(
        [chat("abc", finish_reason="length"), chat("abc", finish_reason="content_filter")]
    ) as stub:
        cut, filtered = generator(stub).generate(chats(2))
    assert (cut.finish_reason, cut.error_kind) == ("length", None)
    assert (filtered.finish_reason, filtered.error_kind) == ("error", "filtered")


def test_a_stop_string_that_the_endpoint_left_is_cut():
    with stub_endpoint([chat("one STOP two")]) as stub:
        assert generator(stub).generate(chats(stop=("STOP",)))[0].text == "one "


def test_missing_logprobs_and_usage_give_one_warning_each(caplog):
    with stub_endpoint([chat("x", usage=None)]) as stub:
        made = generator(stub)
        completions = made.generate(chats(3, logprobs=True))
    assert completions[0].logprobs is None
    assert not completions[0].usage.known
    said = [record.message for record in caplog.records]
    assert [sum("no usage" in one for one in said), sum("no log-prob" in one for one in said)] == [
        1,
        1,
    ]
    assert (made.spend.unknown, made.spend.prompt_tok) == (3, 0)
    assert made.spend.unknown_tok > 0


@pytest.mark.parametrize(
    "fault",
    [
        failing(500),
        failing(503),
        failing(408),
        failing(429),
        chat("hello", choices=[]),
        chat("hello", choices=[{"message": {"content": "a"}}] * 2),
        chat("hello", choice={"message": None}),
        Answer(body='{"choices": ['),
        Answer(body="<html>busy</html>", headers={"Content-Type": "text/html"}),
        Answer(body=chat("hello").body, cut_at=20),
        Answer(body=chat("hello").body, cut_at=0),
    ],
)
def test_what_may_pass_is_tried_again(fault):
    clock = FakeClock()
    with stub_endpoint([fault, fault, chat("at last")]) as stub:
        made = generator(stub, clock)
        completion = made.generate(chats())[0]
    assert completion.text == "at last"
    assert len(stub.calls) == 3
    assert (made.spend.sent, made.spend.retried) == (3, 2)
    assert len(clock.slept) >= 2


def test_a_reply_that_never_comes_is_tried_again():
    with stub_endpoint([Answer(hang=True), chat("at last")]) as stub:
        made = generator(stub, timeout_s=2.0)
        assert made.generate(chats())[0].text == "at last"
    assert made.spend.unknown == 1


def test_attempts_come_to_an_end():
    with stub_endpoint([failing(500, "broken")]) as stub:
        completion = generator(stub, max_retries=2).generate(chats())[0]
    assert len(stub.calls) == 3
    assert completion.error_kind == "transport"
    assert completion.error == "the endpoint answered 500: broken (attempt 3)"


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7.0, 8.0),
        ("0.5", 0.5, 1.5),
        (format_datetime(NOW + timedelta(seconds=20), usegmt=True), 20.0, 21.0),
        (format_datetime(NOW - timedelta(seconds=20), usegmt=True), 0.0, 1.0),
        ("86400", LONGEST_WAIT_S, LONGEST_WAIT_S),
        ("soon", 0.0, 1.0),
        ("-3", 0.0, 1.0),
        ("nan", 0.0, 1.0),
        ("-inf", 0.0, 1.0),
    ],
)
def test_the_endpoint_is_given_the_time_that_it_asks_for(header, least, most):
    clock = FakeClock()
    with stub_endpoint([failing(429, headers={"Retry-After": header}), chat("x")]) as stub:
        assert generator(stub, clock).generate(chats())[0].text == "x"
    assert least <= clock.time - 100.0 <= most


def test_waits_double_with_full_jitter():
    dice, fault = random.Random(0), Fault("transport", "x", again=True)
    for attempt, limit in [(1, 1), (2, 2), (4, 8), (20, LONGEST_WAIT_S)]:
        waits = [backoff(attempt, fault, dice) for _ in range(400)]
        assert 0 <= min(waits) < 0.1 * limit
        assert 0.9 * limit < max(waits) <= limit


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_stops_the_whole_batch(status):
    with stub_endpoint([failing(status, "no such thing")]) as stub:
        completions = generator(stub).generate(chats(50))
    assert len(stub.calls) == 1
    assert completions[0].error_kind == "refused"
    assert "no such thing" in completions[0].error
    assert {one.error_kind for one in completions[1:]} == {"skipped"}


@pytest.mark.parametrize(
    "answer",
    [
        failing(400, "there is none", error={"param": "model"}),
        failing(422, "unknown model `m`"),
        Answer(status=400, body=json.dumps({"detail": "pinned to 'x'; requested 'm'."})),
    ],
)
def test_a_complaint_about_the_model_stops_the_whole_batch(answer):
    with stub_endpoint([answer]) as stub:
        completions = generator(stub).generate(chats(9))
    assert len(stub.calls) == 1
    assert completions[0].error_kind == "refused"


def test_a_rate_limit_that_names_the_model_is_waited_for():
    with stub_endpoint([failing(429, "too many requests for `m`"), chat("x")]) as stub:
        assert generator(stub).generate(chats())[0].text == "x"


def test_an_empty_purse_stops_the_whole_batch():
    with stub_endpoint([failing(429, error={"code": "insufficient_quota"})]) as stub:
        completions = generator(stub).generate(chats(9))
    assert len(stub.calls) == 1
    assert completions[0].error_kind == "refused"


def test_a_403_may_be_about_one_text():
    def answer(call):
        return failing(403, "moderated") if "3" in str(call.body) else chat("x")

    with stub_endpoint(answer) as stub:
        completions = generator(stub).generate(chats(9))
    assert [i for i, one in enumerate(completions) if one.error_kind == "refused"] == [3]


def test_a_bad_request_fails_alone_and_at_once():
    def answer(call):
        return failing(400, "too long") if "3" in str(call.body["messages"]) else chat("x")

    with stub_endpoint(answer) as stub:
        completions = generator(stub).generate(chats(9))
    assert len(stub.calls) == 9
    assert [i for i, one in enumerate(completions) if one.error_kind == "input"] == [3]


def test_bad_requests_do_not_stop_the_others():
    with stub_endpoint([failing(400)] * 20 + [chat("x")]) as stub:
        completions = generator(stub, give_up_after=2).generate(chats(25))
    assert [one.error_kind for one in completions] == ["input"] * 20 + [None] * 5


def test_an_endpoint_that_keeps_failing_is_given_up():
    with stub_endpoint([chat("x")] + [failing(500)] * 100) as stub:
        completions = generator(stub, give_up_after=3, max_retries=1).generate(chats(30))
    assert len(stub.calls) == 1 + 3 * 2
    kinds = [one.error_kind for one in completions]
    assert kinds == [None] + ["transport"] * 3 + ["skipped"] * 26


def test_an_endpoint_that_is_not_there_is_given_up():
    with stub_endpoint() as stub:
        pass
    completions = generator(stub, give_up_after=2, max_retries=1).generate(chats(5))
    kinds = [one.error_kind for one in completions]
    assert kinds == ["transport"] * 2 + ["skipped"] * 3
    assert "connection failed" in completions[0].error


def test_redirects_are_not_followed():
    with stub_endpoint() as other:
        with stub_endpoint([Answer(status=307, headers={"Location": other.url})]) as stub:
            completions = generator(stub).generate(chats(3))
        assert other.calls == []
    assert completions[0].error_kind == "refused"


def test_the_deadline_ends_all():
    clock = FakeClock()
    with stub_endpoint([chat("x"), failing(500)]) as stub:
        completions = generator(stub, clock, deadline_s=10, max_retries=100).generate(chats(4))
    assert [one.error_kind for one in completions][:2] == [None, "transport"]
    assert clock.time <= 110.0
    clock.time = 200.0

    def slow(call):
        clock.time += 6
        return chat("x")

    with stub_endpoint(slow) as stub:
        completions = generator(stub, clock, deadline_s=10).generate(chats(4))
    assert [one.error_kind for one in completions] == [None, None, "skipped", "skipped"]


def test_a_limit_per_minute_spreads_the_attempts():
    clock = FakeClock()
    with stub_endpoint() as stub:
        generator(stub, clock, requests_per_minute=30).generate(chats(4))
    assert clock.slept == pytest.approx([2.0, 2.0, 2.0])


def test_a_limit_per_minute_holds_over_several_calls():
    clock = FakeClock()
    with stub_endpoint() as stub:
        made = generator(stub, clock, requests_per_minute=60)
        for request in chats(4):
            made.generate([request])
    assert clock.time - 100.0 == pytest.approx(3.0)


def test_failures_count_over_several_calls_and_an_answer_ends_them():
    with stub_endpoint([Answer(status=500)] * 3 + [chat("x")] * 9) as stub:
        made = generator(stub, max_retries=0, give_up_after=3)
        kinds = [[one.error_kind for one in made.generate(chats(2))] for _ in range(3)]
    assert kinds == [["transport"] * 2, ["transport", "skipped"], [None, None]]


def test_a_pause_holds_everybody_back():
    clock = FakeClock()
    pace = Pace(clock, None)
    pace.pause(5.0)
    asyncio.run(pace.turn())
    asyncio.run(pace.turn())
    assert clock.slept == [5.0]


def test_what_cannot_be_sent_fails_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    odd = [
        Message(role="user", content=(ImagePart(path=tmp_path / "none.png"),)),
        Message(role="user", content=(ImagePart(path=tmp_path / "notes.txt"),)),
        Message(role="user", content="\ud800"),
        Message(role="user", content="fine"),
    ]
    with stub_endpoint() as stub:
        asked = [Request(id=str(i), messages=(one,)) for i, one in enumerate(odd)]
        completions = generator(stub).generate(asked)
    assert [one.error_kind for one in completions] == ["input", "input", "input", None]


def test_it_works_within_a_running_event_loop():
    async def notebook(made):
        return made.generate(chats(2))

    with stub_endpoint() as stub:
        completions = asyncio.run(notebook(generator(stub)))
    assert [one.text for one in completions] == ["hi 0", "hi 1"]


@pytest.mark.parametrize("in_loop", [False, True])
def test_an_interrupt_stops_what_is_in_flight(in_loop):
    def answer(call):
        if call.number == 1:
            os.kill(os.getpid(), signal.SIGINT)
            return Answer(hang=True)
        return chat("x")

    async def notebook(made):
        return made.generate(chats(5))

    with stub_endpoint(answer) as stub:
        made = generator(stub)
        work = (
            (lambda: asyncio.run(notebook(made))) if in_loop else (lambda: made.generate(chats(5)))
        )
        with pytest.raises(KeyboardInterrupt):
            work()
    assert len(stub.calls) == 2
    assert made.spend.unknown == 1


def test_no_requests_give_no_completions():
    with stub_endpoint() as stub:
        assert generator(stub).generate([]) == []
    assert stub.calls == []


def test_the_key_travels_in_the_header_and_shows_nowhere(monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    answer = failing(401, f"Incorrect API key provided: {KEY}")
    with stub_endpoint([failing(500, KEY), answer]) as stub:
        made = generator(stub, api_key_env="MY_KEY")
        completion = made.generate(chats())[0]
    assert stub.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert "***" in completion.error
    shown = [completion.error, repr(made.access), repr(vars(made)["config"]), caplog.text]
    assert not any(KEY in one or KEY[3:] in one for one in shown)


def test_headers_of_another_service_stay_at_home(monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "secret-of-mine")
    with stub_endpoint() as stub:
        generator(stub).generate(chats())
    assert "secret-of-mine" not in str(stub.calls[0].headers)


@pytest.mark.parametrize(
    ("url", "key", "reason"),
    [
        ("http://example.org/v1", KEY, "in the clear"),
        ("https://example.org/v1", "", "set the environment variable OPENAI_API_KEY"),
        ("https://me:pw@example.org/v1", KEY, "more than a path"),
        ("ftp://example.org/v1", KEY, "no http"),
    ],
)
def test_unsafe_addresses_are_refused(url, key, reason, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ModelError, match=reason) as caught:
        OpenAIGenerator("m", url)
    assert KEY not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_key_may_stay_at_home(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = OpenAIGenerator("m", "http://gpu7:8000/v1", endpoint=EndpointConfig(api_key_env=""))
    assert made.access.key is None
