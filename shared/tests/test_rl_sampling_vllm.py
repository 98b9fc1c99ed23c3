"""vLLM's rollouts against the model itself; runs in the environment with vLLM."""

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(900)]

PROMPTS = [(1, 2, 3), (7,), tuple(range(40, 70)), (9, 9, 4, 200)]
SEEDS = [5, 6, 7, 8]
NEVER = frozenset({258})
ENGINE = {
    "dtype": "float32",
    "seed": 0,
    "generation_config": "vllm",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 64 << 20,
    "disable_log_stats": True,
}


@pytest.fixture(scope="module")
def model():
    import torch

    from papercore.testing import tiny_model

    # the smallest heads that vLLM's attention on a CPU can do
    model = tiny_model(head_dim=32, max_position_embeddings=64)
    with torch.no_grad():
        model.lm_head.weight[258] = 0.0  # so that NEVER hardly comes
    return model


@pytest.fixture(scope="module")
def start(model, tmp_path_factory):
    import os

    from papercore.generate.vllm import DEFAULTS

    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return lambda **changes: LLM(model=str(folder), skip_tokenizer_init=True, **ENGINE, **changes)


@pytest.fixture(scope="module")
def llm(start):
    return start(logprobs_mode="processed_logprobs")


def drawn(llm, *, prompts=PROMPTS, seeds=SEEDS, eos=NEVER, num=12, **changes):
    from papercore.rl.settings import Sampling
    from papercore.rl.vllm_sampling import sample_vllm

    sampling = Sampling(max_new_tokens=num, eos_ids=frozenset(eos), **changes)
    return sample_vllm(llm, prompts, seeds, sampling=sampling)


def logps_of(model, rollout, temperature):
    import torch

    ids = torch.tensor([rollout.prompt + rollout.response])
    with torch.no_grad():
        logps_TV = (model(input_ids=ids).logits[0] / temperature).log_softmax(-1)
    places = range(len(rollout.prompt), ids.shape[1])
    return [logps_TV[place - 1, ids[0, place]].item() for place in places]


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
def test_log_probabilities_are_those_at_the_temperature_of_sampling(llm, model, temperature):
    for one in drawn(llm, temperature=temperature):
        assert one.logps == pytest.approx(logps_of(model, one, temperature), abs=1e-3)
        assert len(one.response) == 12


def test_greedy_rollouts_take_the_most_likely_token(llm, model):
    import torch

    for one in drawn(llm, temperature=0.0):
        ids = torch.tensor([one.prompt + one.response])
        with torch.no_grad():
            best_T = model(input_ids=ids).logits[0].argmax(-1)
        assert one.response == tuple(best_T[len(one.prompt) - 1 : -1].tolist())
        assert one.logps == pytest.approx(logps_of(model, one, 1.0), abs=1e-3)


def test_a_rollout_follows_its_seed_in_any_company(llm):
    together = drawn(llm)
    alone = [
        drawn(llm, prompts=[prompt], seeds=[seed])[0]
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    assert [one.response for one in together] == [one.response for one in alone]
    assert [one.prompt for one in together] == PROMPTS
    other = drawn(llm, seeds=[1, 2, 3, 4])
    assert all(a.response != b.response for a, b in zip(together, other, strict=True))


def test_an_end_of_sequence_token_ends_it_and_is_part_of_it(llm):
    free = drawn(llm)
    stop = free[0].response[4]
    for one, whole in zip(drawn(llm, eos={stop}), free, strict=True):
        ends = [place for place, token in enumerate(whole.response) if token == stop]
        assert one.response == whole.response[: ends[0] + 1 if ends else 12]
        assert one.ended == bool(ends)


def test_lengths_are_limited(llm):
    from papercore.errors import DataError

    assert [len(one.response) for one in drawn(llm, max_length=33)] == [12, 12, 3, 12]
    with pytest.raises(DataError, match="prompt 2 has 30 tokens"):
        drawn(llm, max_length=30)


def test_an_engine_with_other_log_probabilities_is_refused(start):
    from papercore.errors import ConfigError

    with pytest.raises(ConfigError, match="logprobs_mode=raw_logprobs: start it with processed"):
        drawn(start())
