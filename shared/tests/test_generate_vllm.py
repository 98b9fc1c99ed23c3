"""vLLM's engine against transformers on one saved model; runs in the environment with vLLM."""

import copy

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(900)]

PROMPTS = ["a", "hello there", "xyzzy plugh and more text than the others have", "q" * 20, "zz top"]
TEMPLATE = (
    "{% for m in messages %}<|bos|>{{ m.role }}:{{ m.content }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|bos|>assistant:"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from papercore.testing import tiny_model
    from papercore.tiny import byte_tokenizer

    folder = tmp_path_factory.mktemp("model")
    model = tiny_model(
        head_dim=32,  # the smallest that vLLM's attention on a CPU can do
        max_position_embeddings=256,
        eos_token_id=258,
        bos_token_id=257,
    )
    model.save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hf(folder):
    from papercore.generate.backends import generator_for

    return generator_for(str(folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def vllm(folder):
    from papercore.generate.vllm import VLLMGenerator

    engine = {"enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}
    return VLLMGenerator(str(folder), dtype="float32", engine=engine)


def requests(prompts=PROMPTS, **params):
    from papercore.generate import Request, SamplingParams

    shared = SamplingParams(**{"max_new_tokens": 24, **params})
    return [Request(id=f"r{i}", prompt=one, params=shared) for i, one in enumerate(prompts)]


def test_greedy_completions_equal_those_of_transformers(hf, vllm):
    asked = requests([*PROMPTS, *(p * 3 for p in PROMPTS)])
    assert vllm.generate(asked) == hf.generate(asked)


def test_each_request_keeps_its_own_length(hf, vllm):
    asked = [
        copy.copy(one).model_copy(
            update={"params": one.params.model_copy(update={"max_new_tokens": length})}
        )
        for one, length in zip(requests(), [9, 1, 4, 2, 6], strict=True)
    ]
    assert vllm.generate(asked) == hf.generate(asked)


def test_the_context_has_the_same_length(hf, vllm):
    assert vllm.max_context == hf.max_context == 256


def test_prompts_that_fail_are_the_same(hf, vllm):
    from papercore.generate import Request

    asked = [
        *requests(["short", "x" * 256, "y" * 253, ""]),
        Request(id="foreign", token_ids=(1, 259)),
        Request(id="ids", token_ids=(104, 105)),
    ]
    ours = vllm.generate(asked)
    assert ours == hf.generate(asked)
    assert [one.error_kind for one in ours] == [None, "input", None, "input", "input", None]


def test_stop_strings_end_the_same_way(hf, vllm):
    free = hf.generate(requests())
    stop = free[1].text[3:5]
    asked = requests(stop=(stop, "@@@"))
    ours = vllm.generate(asked)
    assert ours == hf.generate(asked)
    assert ours[1].finish_reason == "stop"
    assert ours[1].text == free[1].text[: free[1].text.index(stop)]


def test_the_end_of_sequence_is_a_token_but_no_text(folder, hf, vllm, monkeypatch):
    free = hf.generate(requests())
    eos = free[0].token_ids[2]
    for generator in (hf, vllm):
        monkeypatch.setattr(generator, "_eos_ids", frozenset({eos}))
    ours = vllm.generate(requests())
    assert ours == hf.generate(requests())
    assert ours[0].finish_reason == "stop"
    assert ours[0].token_ids[-1] == eos


def test_logprobs_are_those_of_the_model(hf, vllm):
    asked = requests(logprobs=True)
    for ours, theirs in zip(vllm.generate(asked), hf.generate(asked), strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    sampled = vllm.generate(requests(logprobs=True, temperature=0.5, top_k=3))
    assert all(len(one.logprobs) == len(one.token_ids) for one in sampled)


def test_sampling_follows_its_seed(vllm):
    def tokens(**params):
        return [one.token_ids for one in vllm.generate(requests(temperature=2.0, **params))]

    assert tokens(seed=1) == tokens(seed=1)
    assert tokens(seed=1) != tokens(seed=2)
    assert tokens() == tokens()
    alone = vllm.generate(requests(temperature=2.0, seed=1)[2:3])[0].token_ids
    assert alone == tokens(seed=1)[2]


def test_chats_and_tools_read_the_same_prompt(hf, vllm):
    from papercore.generate import Message, Request, SamplingParams, ToolSpec

    asked = [
        Request(
            id="chat",
            messages=(Message(role="user", content="say <|bos|>assistant: hello"),),
            params=SamplingParams(max_new_tokens=9),
        ),
        Request(
            id="tools",
            messages=(Message(role="user", content="x"),),
            tools=(ToolSpec(name="f"),),
            params=SamplingParams(max_new_tokens=9),
        ),
    ]
    ours = vllm.generate(asked)
    assert ours == hf.generate(asked)
    assert [one.error for one in ours] == [None, None]


def test_images_are_refused(vllm):
    from pathlib import Path

    from papercore.errors import GenerationError
    from papercore.generate import ImagePart, Message, Request

    message = Message(role="user", content=(ImagePart(path=Path("cat.png")),))
    with pytest.raises(GenerationError, match="reads no images"):
        vllm.generate([Request(id="i", messages=(message,))])


def test_no_requests_give_no_completions(vllm):
    assert vllm.generate([]) == []


def test_a_model_that_vllm_cannot_run_is_one_line(tmp_path):
    from papercore.errors import ModelError
    from papercore.generate.vllm import VLLMGenerator

    with pytest.raises(ModelError, match="cannot be"):
        VLLMGenerator(str(tmp_path))
