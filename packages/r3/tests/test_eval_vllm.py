"""`r3 eval` on vLLM and on transformers: the same answers; runs in the environment with vLLM."""

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from papercore.testing import tiny_model
    from papercore.tiny import byte_tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = byte_tokenizer()
    tiny_model(
        head_dim=32,  # the smallest that vLLM's attention on a CPU can do
        eos_token_id=tokenizer.eos_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("shots", [0, 2])
def test_vllm_and_transformers_give_the_same_answers(model, tmp_path, monkeypatch, shots):
    from papercore.config import RunFlags
    from papercore.generate.vllm import VLLMGenerator
    from papercore.records import read_records
    from r3.config import EvalConfig, PromptConfig
    from r3.data import write_prepared
    from r3.demos import Demo
    from r3.eval_answers import read_answers
    from r3.eval_command import run

    engine = {"enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}

    def small(ref, **settings):
        settings.pop("endpoint")
        settings.pop("device")
        return VLLMGenerator(ref.removeprefix("vllm:"), engine=engine, **settings)

    monkeypatch.setattr("r3.asking.generator_for", small)
    demos = [Demo(f"d{i}", f"What is {i}?", f"It is {i}.\n#### {i}", str(i)) for i in range(8)]
    splits = {"train": demos[:4], "dev": demos[4:]}
    data = tmp_path / "data"
    write_prepared(data, task="gsm8k", prompt=PromptConfig(), splits=splits, meta={})
    answers = {}
    for name, ref in (("hf", model), ("vllm", f"vllm:{model}")):
        config = EvalConfig(model=ref, data=data, dtype="float32", shots=shots, max_new_tokens=16)
        assert run(config, RunFlags(out=tmp_path / name, device="cpu")) == 0
        answers[name] = read_answers(read_records(tmp_path / name / "records.jsonl"))
    assert len(answers["hf"]) == 4
    assert answers["vllm"] == answers["hf"]
