"""One reference names a backend; a real endpoint gives the texts that transformers gives."""

import importlib.util
import subprocess
import sys

import pytest

from papercore.errors import ConfigError, ModelError
from papercore.generate import Message, Request, SamplingParams
from papercore.generate.api import OpenAIGenerator
from papercore.generate.backends import generator_for
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.hf import HFGenerator
from papercore.testing import served, stub_endpoint, tiny_model
from papercore.testing.fixtures import one_thread  # noqa: F401
from papercore.tiny import byte_tokenizer

TEMPLATE = (
    "{% for m in messages %}<|bos|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|bos|>assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    tiny_model(bos_token_id=257, eos_token_id=258, pad_token_id=256).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def chats(**params):
    shared = SamplingParams(**{"max_new_tokens": 10, **params})
    texts = ["hi", "what is this?", "x" * 40, "zz"]
    return [
        Request(id=one, messages=(Message(role="user", content=one),), params=shared)
        for one in texts
    ]


def test_a_directory_is_for_transformers(folder):
    made = generator_for(
        str(folder), device="cpu", dtype="bfloat16", batch_size=3, seed=5, max_context=99
    )
    assert isinstance(made, HFGenerator)
    assert (str(made.model.dtype), made.seed, made.max_context) == ("torch.bfloat16", 5, 99)
    assert made._batch_size == 3


def test_an_address_is_for_an_endpoint():
    with stub_endpoint() as stub:
        endpoint = EndpointConfig(concurrency=2)
        made = generator_for(f"openai:a/b@{stub.url}", endpoint=endpoint, seed=3)
        assert isinstance(made, OpenAIGenerator)
        assert made.generate(chats())[0].text == "hi"
    assert stub.calls[0].body["model"] == "a/b"
    assert made.config is endpoint


@pytest.mark.parametrize(
    "option", [{"device": "cpu"}, {"dtype": "float32"}, {"batch_size": 2}, {"max_context": 9}]
)
def test_options_that_an_endpoint_would_ignore_are_refused(option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))}=.* does not apply"):
        generator_for("openai:m@http://127.0.0.1:1/v1", **option)


@pytest.mark.parametrize(
    ("ref", "missing", "remedy"),
    [
        ("vllm:a/b", "vllm", r"papercore\[vllm\]"),
        ("a/b", "torch", r"papercore\[hf\]"),
        ("openai:m@http://127.0.0.1:1/v1", "openai", r"papercore\[api\]"),
    ],
)
def test_a_missing_extra_is_named(ref, missing, remedy, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    with pytest.raises(ModelError, match=f"need.* {missing}.*{remedy}"):
        generator_for(ref)


def test_loading_draws_nothing_and_leaves_progress_bars_as_they_were(folder):
    code = (
        "import sys\n"
        "from papercore.generate.backends import generator_for\n"
        "from transformers.utils import logging\n"
        "for shown in (True, False):\n"
        "    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()\n"
        "    generator_for(sys.argv[1], device='cpu')\n"
        "    assert logging.is_progress_bar_enabled() == shown\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_stub_and_the_server_for_tests_need_no_torch():
    code = (
        "import sys, papercore.testing as t\n"
        "t.stub_endpoint, t.served\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_real_endpoint_gives_the_texts_that_transformers_gives(folder):
    local = generator_for(str(folder), device="cpu", dtype="float32")
    free = local.generate(chats())
    stop = free[1].text[2:4]
    with served(folder) as url:
        remote = generator_for(f"openai:{folder}@{url}")
        ours = remote.generate(chats())
        stopped = remote.generate(chats(stop=(stop,)))
        wrong = generator_for(
            f"openai:other@{url}", endpoint=EndpointConfig(concurrency=1)
        ).generate(chats())
    assert [one.text for one in ours] == [one.text for one in free]
    assert [one.finish_reason for one in ours] == [one.finish_reason for one in free]
    assert [one.usage for one in ours] == [one.usage for one in free]
    assert [one.text for one in stopped] == [
        one.text for one in local.generate(chats(stop=(stop,)))
    ]
    assert remote.spend.new_tok == sum(one.usage.completion_tokens for one in [*ours, *stopped])
    assert [one.error_kind for one in wrong] == ["refused"] + ["skipped"] * 3, wrong
