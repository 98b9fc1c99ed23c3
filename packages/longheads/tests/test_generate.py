"""`longheads generate` on a small saved model, as a user would call it."""

import hashlib
import io
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import longheads
from longheads import continuation
from longheads.cli import APP
from longheads.continuation import MOST_AHEAD, Settings, continue_prompt, read
from longheads.plugin import enabled
from longheads.testing import make, small, tokens
from longheads.world import WORDS, write_example
from papercore.errors import ModelError
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer, tiny_llama, word_tokenizer

SETTINGS = ("--longheads.chunk-len", "8", "--longheads.window", "40", "--prefill-tok", "64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of the miniature's shape, untrained, with its words."""
    place = tmp_path_factory.mktemp("model")
    tiny_llama(51, seed=3).save_pretrained(place)
    word_tokenizer(WORDS).save_pretrained(place)
    return place


def generate(capsys, folder, *words):
    capsys.readouterr()
    code = APP.main(["generate", "--model", str(folder), *SETTINGS, *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def greedy(model, ids, count):
    """The slow way: the whole text again for every token."""
    ids = torch.tensor([ids])
    for _ in range(count):
        with torch.no_grad():
            best = model(ids, use_cache=False).logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, best], dim=1)
    return tuple(ids[0, -count:].tolist())


@pytest.mark.parametrize("kind", ["llama-gqa", "qwen3"])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 39, 40, 41, 150])
def test_pieces_of_any_size_give_what_one_pass_gives(kind, count):
    model, ids = make(kind), tokens(1, count)[0].tolist()
    with longheads.enable(model, small()) as handle:
        expected = greedy(model, ids, 4)
        for prefill_tok in (16, 33, 4096):
            settings = Settings(4, prefill_tok=prefill_tok)
            written = continue_prompt(model, ids, handle=handle, settings=settings)
            assert written.token_ids == expected
            assert written.finish_reason == "length"


def test_the_cache_has_room_for_everything_from_the_start():
    model, ids = make("llama-gqa"), tokens(1, 100)[0].tolist()
    with longheads.enable(model, small()) as handle:
        cache = handle.make_cache(capacity_tok=len(ids) + 30)
        made = []
        handle.make_cache = lambda *, capacity_tok: made.append(capacity_tok) or cache
        continue_prompt(model, ids, handle=handle, settings=Settings(30, prefill_tok=16))
        assert made == [130]
        assert cache.layers[0].keys.shape[2] * 8 < 130 + 4 * 8


def test_an_end_token_ends_the_text():
    model, ids = make("llama-gqa"), tokens(1, 50)[0].tolist()
    first, second = greedy(model, ids, 2)
    settings = Settings(9, eos_ids=frozenset({second}))
    written = continue_prompt(model, ids, handle=None, settings=settings)
    assert written.token_ids == (first, second)
    assert written.finish_reason == "stop"


def test_a_text_does_not_end_before_its_least_length():
    model, ids = make("llama-gqa"), tokens(1, 50)[0].tolist()
    first = greedy(model, ids, 1)[0]
    ends = Settings(4, eos_ids=frozenset({first}))
    assert continue_prompt(model, ids, handle=None, settings=ends).token_ids == (first,)
    at_least = replace(ends, min_new_tokens=1)
    written = continue_prompt(model, ids, handle=None, settings=at_least).token_ids
    assert written[0] != first


def test_generation_settings_of_the_checkpoint_do_not_interfere():
    model, ids = make("llama-gqa"), tokens(1, 50)[0].tolist()
    model.generation_config.repetition_penalty = 50.0
    written = continue_prompt(model, ids, handle=None, settings=Settings(5))
    assert written.token_ids == greedy(model, ids, 5)
    assert model.generation_config.repetition_penalty == 50.0


@pytest.mark.parametrize("method", ["longheads", "full"])
def test_activations_that_are_not_finite_are_an_error(method):
    model, ids = make("llama-gqa"), tokens(1, 100)[0].tolist()
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, 0] = float("nan")
    handle = longheads.enable(model, small()) if method == "longheads" else None
    for call in (
        lambda: continue_prompt(model, ids, handle=handle, settings=Settings(3)),
        lambda: read(model, ids, handle=handle, prefill_tok=64),
    ):
        with pytest.raises(ModelError, match="not finite"):
            call()


def test_a_token_id_outside_of_the_vocabulary_is_an_error():
    with pytest.raises(ModelError, match="token id 259 is outside"):
        continue_prompt(make("llama-gqa"), [1, 259], handle=None, settings=Settings(1))


def test_only_the_answer_is_on_stdout(capsys, folder, tmp_path):
    file = tmp_path / "prompt.txt"
    example = write_example(seed=0, length=200)
    file.write_text(example.text + "\n")
    code, out, err = generate(capsys, folder, "--prompt-file", file, "--max-new-tokens", 3)
    assert code == 0
    assert len(out.split()) == 3
    assert set(out.split()) <= {*WORDS, "<unk>", "<pad>", "<eos>"}
    assert "read 200 tokens" in err
    assert "window 40" in err
    assert generate(capsys, folder, "--prompt", example.text, "--max-new-tokens", 3)[1] == out


def test_a_prompt_can_be_piped_in(capsys, folder, monkeypatch):
    example = write_example(seed=0, length=200)
    expected = generate(capsys, folder, "--prompt", example.text)[1]
    piped = SimpleNamespace(buffer=io.BytesIO(f"{example.text}\n".encode()))
    monkeypatch.setattr(sys, "stdin", piped)
    assert generate(capsys, folder, "--prompt-file", "-")[:2] == (0, expected)
    code, _, err = generate(capsys, folder, "--prompt-file", "-")
    assert (code, "the standard input is empty" in err) == (2, True)


@pytest.mark.parametrize("method", ["full", "streaming", "random", "infllm", "pi", "ntk", "yarn"])
def test_every_method_answers(capsys, folder, method):
    prompt = write_example(seed=1, length=120).text
    code, out, err = generate(capsys, folder, "--prompt", prompt, "--method", method)
    assert (code, len(out.split())) == (0, 1)
    assert f"method {method}" in err


def test_a_prompt_of_one_token(capsys, folder):
    code, out, _ = generate(capsys, folder, "--prompt", "fen", "--max-new-tokens", 2)
    assert (code, len(out.split())) == (0, 2)


def test_words_that_the_model_does_not_know_are_counted(capsys, folder, caplog):
    code, _, _ = generate(capsys, folder, "--prompt", "fen zebra fen")
    assert code == 0
    assert "1 of 3 tokens are words that this model does not know" in caplog.text


def test_the_record_of_a_run(capsys, folder, tmp_path):
    out = tmp_path / "run"
    text = write_example(seed=2, length=100).text
    code, answer, _ = generate(capsys, folder, "--prompt", text, "--out", out)
    assert code == 0
    (record,) = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    data = record["data"]
    assert record["id"] == "generate/0"
    assert data["prompt_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (data["prompt_tok"], data["window_tok"], data["trained_tok"]) == (100, 40, 256)
    assert data["text"] == answer.strip()
    assert (data["prefill_s"] > 0, data["method"]) == (True, "longheads")
    assert (out / "report.html").is_file()
    assert APP.main(["report", str(out), "--recheck"]) == 0
    (out / "report.html").unlink()  # as if it had been killed just after its record
    again, out_again, err = generate(capsys, folder, "--prompt", text, "--out", out, "--resume")
    assert (again, out_again.strip()) == (0, answer.strip())
    assert "holds this answer already" in err
    assert (out / "report.html").is_file()
    other, _, err = generate(capsys, folder, "--prompt", f"fen {text}", "--out", out, "--resume")
    assert other == 2
    assert "another run" in err


def test_sampling_repeats_with_its_seed(capsys, folder):
    words = ("--prompt", "fen moss fox", "--max-new-tokens", 8, "--temperature", 1.5)
    one, same, other = (generate(capsys, folder, *words, "--seed", s)[1] for s in (1, 1, 2))
    assert one == same != other


def test_chat_needs_a_template_and_uses_it(capsys, tmp_path):
    model = tiny_model("llama-gqa", max_position_embeddings=256)
    model.save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    code, out, err = generate(capsys, tmp_path, "--prompt", "hi", "--chat")
    assert (code, out) == (2, "")
    assert "no chat template" in err.splitlines()[-1]
    tokenizer.chat_template = "{% for m in messages %}[{{ m.content }}]{% endfor %}>"
    tokenizer.save_pretrained(tmp_path)
    code, _, err = generate(capsys, tmp_path, "--prompt", "hi", "--chat")
    assert code == 0
    assert "read 5 tokens" in err  # [hi]>


def test_a_model_that_is_not_proved_is_one_line(capsys, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=51,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    word_tokenizer(WORDS).save_pretrained(tmp_path)
    code, out, err = generate(capsys, tmp_path, "--prompt", "fen", "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert "'gpt2' is refused" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("window", "chunk_len", "warning"),
    [
        (512, 8, "window 512 is longer than the 256 tokens"),
        (32, 8, "the window of 32 tokens is small for a model trained at 256"),
    ],
)
def test_a_window_that_hardly_fits_the_model_warns_with_the_numbers(
    capsys, folder, caplog, window, chunk_len, warning
):
    size = ("--longheads.window", window, "--longheads.chunk-len", chunk_len)
    code, _, _ = generate(capsys, folder, "--prompt", "fen", *size)
    assert code == 0
    assert warning in caplog.text


def test_a_failure_leaves_no_run_folder(capsys, tmp_path):
    model = tiny_llama(51, seed=3)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    word_tokenizer(WORDS).save_pretrained(tmp_path / "model")
    words = ("--prompt", "fen moss", "--out", tmp_path / "run")
    code, out, err = generate(capsys, tmp_path / "model", *words)
    assert (code, out) == (2, "")
    assert "logits are not finite" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_nothing_stays_enabled_after_a_command():
    model = make("llama-gqa")
    with longheads.enable(model, small()) as handle:
        continue_prompt(model, [1, 2], handle=handle, settings=Settings(1))
    assert enabled(model) is None


def test_a_limit_on_one_text_is_refused(capsys):
    code, answer, err = generate(capsys, "anything", "--prompt", "fen", "--limit", "3")
    assert (code, answer) == (2, "")
    assert "limit counts examples" in err


def test_an_assistant_writes_ahead_and_changes_nothing(capsys, folder, tmp_path):
    small = tmp_path / "small"
    tiny_llama(51, seed=4).save_pretrained(small)
    word_tokenizer(WORDS).save_pretrained(small)
    words = ("--prompt", write_example(seed=2, length=150).text, "--max-new-tokens", 8)
    alone = generate(capsys, folder, *words)[1]
    code, out, _ = generate(capsys, folder, *words, "--assistant", small)
    assert (code, out) == (0, alone)
    word_tokenizer(WORDS[:-1]).save_pretrained(small)
    code, _, err = generate(capsys, folder, *words, "--assistant", small)
    assert code == 2
    assert "has another vocabulary" in err


def test_a_cache_on_the_host_answers_the_same_and_says_how_it_did(capsys, folder, tmp_path):
    words = ("--prompt", write_example(seed=2, length=150).text, "--max-new-tokens", 8)
    plain = generate(capsys, folder, *words)[1]
    out = tmp_path / "run"
    code, answer, err = generate(capsys, folder, *words, "--longheads.offload", "--out", out)
    assert (code, answer) == (0, plain)
    assert "cache on the host" in err
    assert "hit rate" in err
    (record,) = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert record["data"]["cache"]["hits"] > 0


@pytest.mark.parametrize("length", [1, 2, 60, 61])
@pytest.mark.parametrize("enabled", [True, False])
def test_with_an_assistant_too_the_prompt_is_read_in_pieces(length, enabled):
    model, assistant = make("llama-gqa"), make("llama-gqa")
    ids, widths = tokens(1, length)[0].tolist(), []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    settings = Settings(4, prefill_tok=16)
    with ExitStack() as stack:
        handle = stack.enter_context(longheads.enable(model, small())) if enabled else None
        if enabled:
            stack.enter_context(longheads.enable(assistant, small()))
        alone = continue_prompt(model, ids, handle=handle, settings=settings).token_ids
        widths.clear()
        ahead = continue_prompt(model, ids, handle=handle, settings=settings, assistant=assistant)
    assert ahead.token_ids == alone
    assert max(widths) <= max(16, MOST_AHEAD + 2)
    assert sum(widths) >= length


@pytest.mark.parametrize("count", [1, 4])
def test_a_cache_that_was_asked_for_no_page_has_no_hit_rate(capsys, folder, tmp_path, count):
    out = tmp_path / "run"
    prompt = write_example(seed=2, length=150).text
    words = ("--prompt", prompt, "--max-new-tokens", count, "--longheads.offload", "--out", out)
    code, _, err = generate(capsys, folder, *words)
    assert code == 0, err
    assert "cache on the host" in err
    assert "nan" not in err
    (record,) = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    asked = count > 1  # the first new token comes from the prompt's own pass
    assert ("hit rate" in err) == ("hit_rate" in record["data"]["cache"]) == asked


def sure_and_wrong(seed):
    """A model and an assistant that is certain of other tokens."""
    model, assistant = make("llama-gqa").double(), make("llama-gqa").double()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in assistant.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=noise, dtype=weight.dtype))
        assistant.lm_head.weight *= 30
    return model, assistant


def width(output):
    """Places whose logits a pass gave."""
    return output.logits.shape[1]


@pytest.mark.parametrize("schedule", [None, "heuristic"])
@pytest.mark.parametrize(("chunk_len", "window"), [(8, 64), (16, 256)])
def test_an_assistant_that_is_sure_and_wrong_changes_nothing(chunk_len, window, schedule):
    config = longheads.LongHeadsConfig(chunk_len=chunk_len, window=window)
    rejected = 0
    for seed in range(3):
        model, assistant = sure_and_wrong(seed)
        assistant.generation_config.num_assistant_tokens_schedule = schedule
        before = assistant.generation_config.to_dict()
        ids, sizes = tokens(rows=1, count=300 + seed, seed=seed)[0].tolist(), []
        with longheads.enable(model, config) as handle, longheads.enable(assistant, config):
            alone = continue_prompt(model, ids, handle=handle, settings=Settings(48))
            model.register_forward_hook(lambda *call, seen=sizes: seen.append(width(call[2])))
            ahead = continue_prompt(
                model, ids, handle=handle, settings=Settings(48), assistant=assistant
            )
        assert ahead.token_ids == alone.token_ids
        assert max(sizes) <= chunk_len + 1, "candidates of a round, and the token before them"
        assert assistant.generation_config.to_dict() == before
        rejected += sum(sizes) - 48
    assert rejected > 3 * 48


def test_the_time_of_the_prompt_ends_with_the_model_not_with_its_assistant(monkeypatch):
    model, assistant, order = make("llama-gqa"), make("llama-gqa"), []
    model.register_forward_hook(lambda *_: order.append("model"))
    assistant.register_forward_hook(lambda *_: order.append("assistant"))
    monkeypatch.setattr(
        continuation, "time", SimpleNamespace(perf_counter=lambda: float(len(order) + 1))
    )
    ids = tokens(1, 90)[0].tolist()
    for helper in (None, assistant):
        order.clear()
        with longheads.enable(model, small()) as handle, longheads.enable(assistant, small()):
            settings = Settings(6, prefill_tok=32)
            written = continue_prompt(
                model, ids, handle=handle, settings=settings, assistant=helper
            )
        # the clock counts passes; the prompt takes three of the model, the third has its logits;
        # with an assistant, its last token comes with the candidates, in a fourth
        mine = [number for number, who in enumerate(order) if who == "model"]
        last = mine[3 if helper else 2]
        assert written.prefill_s == last + 1
        assert written.prefill_s + written.decode_s == len(order)
    assert order[0] == "assistant"
    assert len(model._forward_hooks) == 1, "only the test's own is left"


def test_an_assistant_of_nan_is_an_error_that_names_it():
    model, assistant = make("llama-gqa"), make("llama-gqa")
    with torch.no_grad():
        assistant.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="the assistant's logits are not finite"):
        continue_prompt(model, [1, 2, 3], handle=None, settings=Settings(4), assistant=assistant)
