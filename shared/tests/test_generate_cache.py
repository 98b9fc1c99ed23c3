"""The cache of replies: what is equal, what is not, and files that went bad."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.generate import Completion, Message, Request, SamplingParams, ToolSpec
from papercore.generate.api import OpenAIGenerator
from papercore.generate.cache import CachedReply, ReplyCache, cache_key
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.wire import body_of
from papercore.testing import Answer, chat, stub_endpoint

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(st.characters(codec="utf-8")), JSON, max_size=4)


def chats(count=3, prefix="", **params):
    return [
        Request(
            id=f"{prefix}{i}",
            messages=(Message(role="user", content=f"hi {i}"),),
            params=SamplingParams(**params),
        )
        for i in range(count)
    ]


def generator(url, folder, **settings):
    endpoint = EndpointConfig(cache=folder, max_retries=0, **settings)
    return OpenAIGenerator("m", url, endpoint=endpoint)


@given(BODIES)
def test_the_key_does_not_depend_on_the_order_of_fields(body):
    turned = dict(reversed(list(copy.deepcopy(body).items())))
    assert cache_key("u", "/r", body, 0) == cache_key("u", "/r", turned, 0)


@given(BODIES, BODIES)
def test_different_bodies_have_different_keys(one, other):
    same = repr(sorted(one.items())) == repr(sorted(other.items())) or one == other
    if not same:
        assert cache_key("u", "/r", one, 0) != cache_key("u", "/r", other, 0)


def test_tools_with_parameters_in_another_order_are_another_request():
    schemas = [{"a": {"type": "string"}, "b": {"type": "string"}}]
    schemas.append(dict(reversed(schemas[0].items())))
    keys = set()
    for properties in schemas:
        tool = ToolSpec(name="f", parameters={"type": "object", "properties": properties})
        request = chats(1)[0].model_copy(update={"tools": (tool,)})
        route, body = body_of(request, model="m", config=EndpointConfig(), seed=0)
        keys.add(cache_key("u", route, body, 0))
    assert len(keys) == 2


def test_everything_that_is_asked_is_in_the_key():
    base = ("http://a/v1", "/completions", {"model": "m"}, 0)
    others = [
        ("http://b/v1", *base[1:]),
        (base[0], "/chat/completions", *base[2:]),
        (*base[:2], {"model": "n"}, 0),
        (*base[:3], 1),
    ]
    assert len({cache_key(*one) for one in [base, *others]}) == 5


def test_an_equal_request_is_answered_from_the_cache(tmp_path):
    with stub_endpoint() as stub:
        first = generator(stub.url, tmp_path).generate(chats())
        made = generator(stub.url, tmp_path)
        again = made.generate(chats(prefix="other"))
    assert len(stub.calls) == 3
    assert [one.text for one in again] == [one.text for one in first]
    assert [one.id for one in again] == ["other0", "other1", "other2"]
    assert (made.spend.cached, made.spend.sent, made.spend.prompt_tok) == (3, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"params": SamplingParams(max_new_tokens=5)},
        {"params": SamplingParams(stop=("x",))},
        {"params": SamplingParams(seed=1)},
        {"tools": (ToolSpec(name="f"),)},
        {"messages": (Message(role="user", content="hi 1"),)},
    ],
)
def test_another_request_is_sent(tmp_path, change):
    request = chats(1)[0]
    with stub_endpoint() as stub:
        generator(stub.url, tmp_path).generate([request])
        generator(stub.url, tmp_path).generate([request.model_copy(update=change)])
    assert len(stub.calls) == 2


def test_equal_requests_of_one_call_are_different_samples(tmp_path):
    asked = [chats(1)[0].model_copy(update={"id": str(i)}) for i in range(4)]
    with stub_endpoint(lambda call: chat(f"answer {call.number}")) as stub:
        first = generator(stub.url, tmp_path).generate(asked)
        again = generator(stub.url, tmp_path).generate(asked)
    assert len({one.text for one in first}) == 4
    assert again == first


def test_a_replay_sends_nothing_and_fails_on_a_miss(tmp_path, monkeypatch):
    with stub_endpoint() as stub:
        first = generator(stub.url, tmp_path).generate(chats(2))
    replayed = generator(stub.url, tmp_path, replay=True).generate(chats(3))  # nobody listens now
    assert replayed[:2] == first
    assert replayed[2].error_kind == "replay"
    assert "is not in the cache" in replayed[2].error
    assert len(stub.calls) == 2


def test_errors_are_not_kept(tmp_path):
    answers = [Answer(status=400), chat("x", finish_reason="content_filter"), chat("x")]
    with stub_endpoint(answers) as stub:
        for _ in range(3):
            completion = generator(stub.url, tmp_path).generate(chats(1))[0]
    assert completion.text == "x"
    assert len(list(tmp_path.rglob("*.json"))) == 1
    with pytest.raises(ValueError, match="no reply to keep"):
        ReplyCache(tmp_path).put(
            CachedReply(key="k", completion=Completion(id="r", finish_reason="error"))
        )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": "1", "key": 3}'])
def test_a_broken_file_is_ignored_with_a_warning(tmp_path, content, caplog):
    with stub_endpoint() as stub:
        generator(stub.url, tmp_path).generate(chats(1))
        (file,) = tmp_path.rglob("*.json")
        sound = file.read_text()
        file.write_text(content)
        completion = generator(stub.url, tmp_path).generate(chats(1))[0]
    assert completion.text == "hi 0"
    assert len(stub.calls) == 2
    assert "broken reply" in caplog.text
    assert file.read_text() == sound


def test_a_reply_under_a_foreign_name_or_version_is_ignored(tmp_path, caplog):
    cache = ReplyCache(tmp_path)
    kept = CachedReply(key="aa", completion=Completion(id="r", finish_reason="stop"))
    cache.put(kept)
    (tmp_path / "aa" / "aa.json").rename(tmp_path / "aa" / "aab.json")
    assert cache.get("aab") is None
    cache.put(kept.model_copy(update={"version": 0}))
    assert cache.get("aa") is None
    assert caplog.text.count("not what it should be") == 2


def test_a_folder_that_cannot_be_written_costs_no_reply(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with stub_endpoint() as stub:
        completion = generator(stub.url, tmp_path / "file").generate(chats(1))[0]
    assert completion.text == "hi 0"
    assert "could not be kept" in caplog.text


def test_the_key_of_the_endpoint_is_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret0123456789")
    with stub_endpoint() as stub:
        generator(stub.url, tmp_path).generate(chats(2))
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 2
    assert not any("verysecret" in one.read_text() for one in files)


@given(st.text(max_size=40), st.lists(st.floats(-50, 0), max_size=4))
def test_a_reply_comes_back_as_it_was(tmp_path_factory, text, logprobs):
    cache = ReplyCache(tmp_path_factory.mktemp("cache"))
    text = text.encode("utf-8", "ignore").decode()
    completion = Completion(id="r", text=text, logprobs=tuple(logprobs), finish_reason="stop")
    cache.put(CachedReply(key="abcd", completion=completion))
    assert cache.get("abcd").completion == completion
