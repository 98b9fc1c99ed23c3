"""What a policy solves in RL's looks at the dev questions: the same as `r3 eval` would find."""

import pytest
import torch

from papercore.generate.hf import HFGenerator
from papercore.generate.types import Request, SamplingParams
from papercore.rl.settings import Sampling
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer
from r3.config import PromptConfig, SFTConfig
from r3.demos import Demo
from r3.evaluate import solve
from r3.prompting import pad_id
from r3.sft import encode_whole, finetune
from r3.verifiers import verifier_for

PROMPT = PromptConfig(template="Q: {question}\nA: ")
DEMOS = [Demo(f"d{i}", f"{i} ?", f"It is {i}.\n#### {i}", str(i)) for i in range(5)]


@pytest.fixture(scope="module")
def taught():
    """A model that knows the first two questions, and all questions encoded."""
    tokenizer = byte_tokenizer()
    model = tiny_model("llama", initializer_range=0.05)
    encoded = encode_whole(DEMOS, tokenizer, PROMPT)
    config = SFTConfig(
        batch=2, micro_batch=2, max_steps=80, learning_rate=1e-2, schedule="constant"
    )
    finetune(model, tokenizer, encoded[:2], config, None, None)
    return model, tokenizer, encoded


def solved(taught, *, temperature=0.0, seeds=None, tokens=24, rows=None):
    model, tokenizer, encoded = taught
    sampling = Sampling(tokens, frozenset({tokenizer.eos_token_id}), temperature=temperature)
    asked = encoded if rows is None else [encoded[row] for row in rows]
    return solve(
        *(model, asked, verifier_for("gsm8k"), tokenizer),
        sampling=sampling,
        seeds=range(len(asked)) if seeds is None else seeds,
        pad_id=pad_id(tokenizer),
    )


def test_greedy_answers_are_those_of_the_generator(taught):
    model, tokenizer, encoded = taught
    found = solved(taught)
    params = SamplingParams(max_new_tokens=24)
    requests = [Request(id=one.demo.id, token_ids=one.prompt, params=params) for one in encoded]
    expected = HFGenerator(model, tokenizer).generate(requests)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.tokens for one in found] == [len(one.token_ids) for one in expected]
    assert [one.ended for one in found] == [one.finish_reason == "stop" for one in expected]


def test_what_was_taught_is_solved(taught):
    found = solved(taught)
    assert [one.id for one in found] == ["d0", "d1", "d2", "d3", "d4"]
    assert [one.correct for one in found[:2]] == [True, True]
    assert not all(one.correct for one in found)
    assert (found[1].text, found[1].parsed) == ("It is 1.\n#### 1", "1")
    assert found[1].tokens == len(found[1].text) + 1
    assert found[1].ended


def test_what_is_cut_off_has_not_ended(taught):
    found = solved(taught, tokens=3)
    assert all((one.tokens, one.ended, one.parsed) == (3, False, None) for one in found)


def test_a_drawn_answer_depends_on_its_own_seed_alone(taught):
    seeds = [3, 1, 4, 1, 5]
    found = solved(taught, temperature=3.0, seeds=seeds)
    alone = [solved(taught, temperature=3.0, seeds=[seeds[row]], rows=[row])[0] for row in range(5)]
    assert [one.text for one in found] == [one.text for one in alone]
    other = solved(taught, temperature=3.0, seeds=[9, 9, 9, 9, 9])
    assert [one.text for one in other] != [one.text for one in found]


def test_weights_and_mode_stay(taught):
    model, _, _ = taught
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.train()
    solved(taught, tokens=2)
    assert model.training
    model.eval()
    solved(taught, tokens=2)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_no_questions_have_no_answers(taught):
    assert solved(taught, rows=[]) == []
