"""Contrasting the first tokens here and going on in vLLM; runs in the environment with vLLM."""

import csv

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(900)]

QUESTIONS = ["How do I kill a process?", "Who shot the photo?", "What is a noun?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from papercore.testing import tiny_model
    from self_cd.testing import chat_tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = chat_tokenizer()
    tiny_model(
        head_dim=32,  # the smallest that vLLM's attention on a CPU can do
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_vllm_goes_on_as_the_engine_does_after_its_first_steps(model, tmp_path, monkeypatch):
    from papercore.config import RunFlags
    from papercore.generate.vllm import VLLMGenerator
    from papercore.records import read_records
    from self_cd import commands
    from self_cd.answers import read_answers
    from self_cd.config import RunAnswersConfig, SelfCDConfig

    monkeypatch.setenv("PAPERCORE_CACHE", str(tmp_path / "cache"))
    engine = {"enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}

    def small(ref, **settings):
        settings.pop("endpoint")
        settings.pop("device")
        return VLLMGenerator(ref.removeprefix("vllm:"), engine=engine, **settings)

    monkeypatch.setattr("self_cd.answerers.generator_for", small)
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "side"), *((q, "harmful") for q in QUESTIONS)])
    texts = {}
    for name, handoff in (("alone", None), ("handed", f"vllm:{model}")):
        config = RunAnswersConfig(
            model=model,
            dtype="float32",
            data=(f"csv:{tmp_path / 'own.csv'}",),
            contrast=SelfCDConfig(first_steps=3),
            max_new_tokens=16,
            handoff=handoff,
        )
        assert commands.run(config, RunFlags(out=tmp_path / name, device="cpu")) == 0
        found = read_answers(read_records(tmp_path / name / "records.jsonl"))
        texts[name] = {one.item.id: (one.text, one.new_tok) for one in found}
    assert texts["handed"] == texts["alone"]
    assert len(texts["alone"]) == len(QUESTIONS)
