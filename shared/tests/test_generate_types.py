from pathlib import Path

import pytest

from papercore.config import validate
from papercore.errors import ConfigError
from papercore.generate import (
    Completion,
    Generator,
    ImagePart,
    Message,
    Request,
    SamplingParams,
    TextPart,
    Usage,
)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prompt": "a", "token_ids": [1]},
        {"prompt": "", "messages": []},
        {"prompt": "a", "token_ids": [1], "messages": []},
    ],
)
def test_a_request_has_exactly_one_input(given):
    with pytest.raises(ConfigError, match="request 'r' needs exactly one of"):
        validate(Request, {"id": "r", **given})


@pytest.mark.parametrize(
    "given", [{"prompt": ""}, {"token_ids": [1]}, {"messages": [{"role": "user", "content": "x"}]}]
)
def test_each_input_alone_will_do(given):
    assert validate(Request, {"id": "r", **given}).params.greedy


def test_a_message_holds_text_and_images():
    parts = (TextPart(text="What is this?"), ImagePart(path=Path("cat.png")))
    message = Message(role="user", content=parts)
    assert Message.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize(
    "given",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": 0}, {"max_new_tokens": 0}],
)
def test_impossible_sampling_is_refused(given):
    with pytest.raises(ConfigError, match="is not allowed"):
        validate(SamplingParams, given)


def test_a_backend_is_whatever_generates():
    class Echo:
        def generate(self, requests):
            return [
                Completion(
                    id=request.id,
                    text=request.prompt,
                    finish_reason="stop",
                    usage=Usage(prompt_tokens=2, completion_tokens=3),
                )
                for request in requests
            ]

    assert isinstance(Echo(), Generator)
    assert not isinstance(object(), Generator)
    (completion,) = Echo().generate([Request(id="r", prompt="hello")])
    assert (completion.text, completion.usage.total_tokens) == ("hello", 5)
