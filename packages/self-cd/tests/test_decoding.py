"""Decoding against a brute force, transformers' guidance path, and itself.

Tokens are compared exactly. The tiny models have logits with a standard deviation of about 1 over
259 tokens, and batches differ from single rows by about 1e-6, so ties do not happen by chance; with
dtypes of less precision they would.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn
from transformers import PreTrainedModel

from papercore.generate.types import SamplingParams
from papercore.testing.models import assert_close, tiny_model
from self_cd.config import SelfCDConfig
from self_cd.contexts import Contexts
from self_cd.contrast import combine
from self_cd.decoding import Decoded, PairJob, StepView, decode

KINDS = ("llama", "llama-gqa", "mistral", "qwen3", "gpt2", "gemma2")
TOK = 12


def spell(token_ids: Sequence[int]) -> str:
    return "".join(f"<{one}>" for one in token_ids)


def jobs_of(pairs: Sequence[Contexts], **params) -> list[PairJob]:
    settings = {"max_new_tokens": TOK} | params
    return [PairJob(one, SamplingParams(**settings), seed=place) for place, one in enumerate(pairs)]


def run(model: PreTrainedModel, jobs: Sequence[PairJob], *, eos=(), **kwargs) -> list[Decoded]:
    config = kwargs.pop("config", SelfCDConfig())
    return decode(model, jobs, config, eos_ids=eos, detokenize=spell, **kwargs)


def tokens(results: Sequence[Decoded]) -> list[list[int]]:
    return [list(one.token_ids) for one in results]


@torch.no_grad()
def brute_force(
    model: PreTrainedModel, pair: Contexts, alpha: float, *, count: int = TOK
) -> list[int]:
    """The formula: two whole forward passes per token, without batch, padding or cache."""
    answer: list[int] = []
    for _ in range(count):
        y, plain = (
            model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, -1]
            for prompt in (pair.emphasis, pair.plain)
        )
        answer.append(int((y.double() - alpha * (y.double() - plain.double())).argmax()))
    return answer


def generated(model: PreTrainedModel, prompt: Sequence[int], count: int = TOK, **kwargs):
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        **kwargs,
    )
    return out[0, len(prompt) :].tolist()


def guided(model: PreTrainedModel, pair: Contexts, alpha: float, count: int = TOK) -> list[int]:
    """Classifier-free guidance of transformers, of which the contrast is a case."""
    other = torch.tensor([pair.emphasis])
    return generated(
        model,
        pair.plain,
        count,
        negative_prompt_ids=other,
        negative_prompt_attention_mask=torch.ones_like(other),
        guidance_scale=alpha,
    )


# exactness


@pytest.mark.parametrize("alpha", [0.5, 2.5])
@pytest.mark.parametrize("kind", [*KINDS, "lfm2"])
def test_the_formula_by_brute_force(kind: str, alpha: float, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(4)
    found = run(model, jobs_of(pairs), config=SelfCDConfig(alpha=alpha))
    assert tokens(found) == [brute_force(model, pair, alpha) for pair in pairs]
    assert [one.reason for one in found] == ["length"] * 4
    assert [one.alpha for one in found] == [alpha] * 4


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5, 2.5, 4.0, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_guidance_path_of_transformers(kind: str, alpha: float, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(3, seed=1)
    found = run(model, jobs_of(pairs, max_new_tokens=20), config=SelfCDConfig(alpha=alpha))
    assert tokens(found) == [guided(model, pair, alpha, 20) for pair in pairs]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_the_two_prompts_alone(kind: str, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(3, seed=2)
    safety = run(model, jobs_of(pairs), config=SelfCDConfig(alpha=0.0))
    plain = run(model, jobs_of(pairs), config=SelfCDConfig(alpha=1.0))
    assert tokens(safety) == [generated(model, pair.emphasis) for pair in pairs]
    assert tokens(plain) == [generated(model, pair.plain) for pair in pairs]
    assert tokens(safety) != tokens(plain)


ROW = st.lists(st.integers(0, 258), min_size=1, max_size=12).map(tuple)
MODEL = tiny_model("mistral")


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,  # a tie by rounding would be a rare failure
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.lists(st.builds(Contexts, ROW, ROW), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.7, 1.0, 2.5]),
    st.booleans(),
)
def test_any_contexts_at_all(pairs: list[Contexts], alpha: float, share: bool) -> None:
    config = SelfCDConfig(alpha=alpha, share_prefix=share)
    found = run(MODEL, jobs_of(pairs, max_new_tokens=6), config=config)
    assert tokens(found) == [brute_force(MODEL, pair, alpha, count=6) for pair in pairs]


@pytest.mark.parametrize("kind", [*KINDS, "lfm2"])
def test_neighbours_and_order_do_not_matter(kind: str, make_pairs) -> None:
    model, pairs = tiny_model(kind), make_pairs(6, seed=3)
    together = tokens(run(model, jobs_of(pairs)))
    assert together == [tokens(run(model, jobs_of([pair])))[0] for pair in pairs]
    order = random.Random(0).sample(range(6), 6)
    permuted = tokens(run(model, jobs_of([pairs[place] for place in order])))
    assert permuted == [together[place] for place in order]
    unshared = run(model, jobs_of(pairs), config=SelfCDConfig(share_prefix=False))
    assert tokens(unshared) == together


def test_a_job_may_have_its_own_strength(make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    params = SamplingParams(max_new_tokens=TOK)
    alphas = (0.0, 1.0, None)
    found = run(model, [PairJob(pair, params, alpha=alpha) for alpha in alphas])
    assert tokens(found) == [brute_force(model, pair, alpha) for alpha in (0.0, 1.0, 2.5)]


# ends


def ends_and_limits(model: PreTrainedModel, pairs: Sequence[Contexts]) -> tuple[set[int], list]:
    """Tokens that end some of the answers in their middle, and what is left of each."""
    whole = [brute_force(model, pair, 2.5, count=24) for pair in pairs]
    eos = {whole[0][4], whole[1][9], whole[2][15]}
    left = []
    for answer in whole:
        end = next((place for place, token in enumerate(answer) if token in eos), 23)
        left.append(answer[: end + 1])
    return eos, left


@pytest.mark.parametrize("share", [0.0, 0.25, 2.0])
@pytest.mark.parametrize("kind", ["mistral", "gpt2", "lfm2"])
def test_rows_that_end_leave_the_others_as_they_are(kind, share, make_pairs, monkeypatch) -> None:
    monkeypatch.setattr("self_cd.decoding.DROP_SHARE", share)  # 2 never drops a row
    model, pairs = tiny_model(kind), make_pairs(5, seed=4)
    eos, expected = ends_and_limits(model, pairs)
    found = run(model, jobs_of(pairs, max_new_tokens=24), eos=eos)
    assert tokens(found) == expected
    assert len({len(one) for one in expected}) >= 3, "rows end at different steps"
    for one in found:
        assert one.reason == ("stop" if one.token_ids[-1] in eos else "length")


def test_work_shrinks_with_the_rows(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(5, seed=4)
    eos, expected = ends_and_limits(model, pairs)
    rows: list[int] = []
    model.register_forward_hook(
        lambda _, __, given, ___: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    run(model, jobs_of(pairs, max_new_tokens=24), eos=eos)
    steps = [count for count in rows if count > 1]  # prefixes are read by one row each
    assert len(steps) == max(map(len, expected)), "one pass per token, the first with the prompt"
    assert steps[0] == 10
    assert steps[-1] < 10
    assert steps == sorted(steps, reverse=True)


def test_every_row_has_its_own_limit(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(3)
    jobs = [
        PairJob(pairs[0], SamplingParams(max_new_tokens=3)),
        PairJob(pairs[1], SamplingParams(max_new_tokens=9), max_new_tokens=5),
        PairJob(pairs[2], SamplingParams(max_new_tokens=9), max_new_tokens=50),
    ]
    found = run(model, jobs)
    assert [len(one.token_ids) for one in found] == [3, 5, 9]
    assert tokens(found)[2] == brute_force(model, pairs[2], 2.5, count=9)


def test_a_row_that_ended_is_not_read_beyond_the_last_position(make_pairs) -> None:
    model = tiny_model("gpt2", max_position_embeddings=48)
    pairs = make_pairs(8)
    long = Contexts(tuple(range(45)), (1, 2))
    jobs = [*jobs_of(pairs, max_new_tokens=12)]
    jobs.insert(3, PairJob(long, SamplingParams(max_new_tokens=12), max_new_tokens=3))
    found = tokens(run(model, jobs))
    assert found.pop(3) == brute_force(model, long, 2.5, count=3)
    assert found == [brute_force(model, pair, 2.5) for pair in pairs]


def test_a_text_ends_at_its_own_stop_string(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(2)
    whole = [brute_force(model, pair, 2.5) for pair in pairs]
    stop = spell(whole[0][3:5])
    jobs = [
        PairJob(pairs[0], SamplingParams(max_new_tokens=TOK, stop=("never", stop))),
        PairJob(pairs[1], SamplingParams(max_new_tokens=TOK)),
    ]
    found = run(model, jobs)
    assert tokens(found) == [whole[0][:5], whole[1]]
    assert [one.reason for one in found] == ["stop", "length"]


# several strengths at once


def test_a_sweep_is_separate_runs_with_one_prefill(make_pairs) -> None:
    model, pairs, alphas = tiny_model("qwen3"), make_pairs(3), (0.0, 1.0, 2.5, 2.0)
    calls: list[int] = []
    model.register_forward_hook(
        lambda _, __, given, ___: calls.append(given["input_ids"].numel()), with_kwargs=True
    )
    together = run(model, jobs_of(pairs), alphas=alphas)
    swept = sum(calls)
    calls.clear()
    apart = [run(model, jobs_of(pairs), config=SelfCDConfig(alpha=alpha)) for alpha in alphas]
    by_pair = [[tokens(row)[place] for row in apart] for place in range(3)]
    assert tokens(together) == [answer for answers in by_pair for answer in answers]
    assert [one.alpha for one in together] == [*alphas] * 3
    assert swept < sum(calls)
    assert sum(calls) - swept > 2 * len(pairs) * 20, "the prompts are read once for all strengths"


def test_sampled_answers_of_a_sweep_are_those_of_separate_runs(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(2)
    jobs = jobs_of(pairs, temperature=1.0)
    together = tokens(run(model, jobs, alphas=(0.5, 2.5)))
    apart = [tokens(run(model, jobs, config=SelfCDConfig(alpha=a))) for a in (0.5, 2.5)]
    assert together == [apart[0][0], apart[1][0], apart[0][1], apart[1][1]]


# sampling


def test_sampled_answers_follow_their_seed_alone(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(4)
    jobs = jobs_of(pairs, temperature=0.9, top_p=0.95, top_k=30)
    together = tokens(run(model, jobs))
    assert together == tokens(run(model, jobs))
    assert together == [tokens(run(model, [job]))[0] for job in jobs]
    assert together[::-1] == tokens(run(model, jobs[::-1]))
    others = [PairJob(job.contexts, job.params, seed=100 + job.seed) for job in jobs]
    assert all(a != b for a, b in zip(together, tokens(run(model, others)), strict=True))


def test_draws_stay_with_their_row_when_others_leave(make_pairs, monkeypatch) -> None:
    model, pairs = tiny_model(), make_pairs(4)
    jobs = [
        PairJob(
            pair,
            SamplingParams(max_new_tokens=limit, temperature=temperature, top_k=top_k, top_p=top_p),
            seed=place,
        )
        for place, (pair, limit, temperature, top_k, top_p) in enumerate(
            zip(
                pairs,
                (2, 30, 4, 30),
                (1.0, 0.7, 0.0, 1.5),
                (None, 9, 3, None),
                (1, 1, 0.5, 0.9),
                strict=True,
            )
        )
    ]
    assert tokens(run(model, jobs)) == [tokens(run(model, [job]))[0] for job in jobs]


def test_one_draw_per_pair_from_the_contrasted_distribution() -> None:
    model = tiny_model(vocab_size=6, initializer_range=0.5)
    pair, alpha = Contexts((1, 2, 3, 4), (3, 4)), 1.5
    params = SamplingParams(max_new_tokens=1, temperature=4.0)
    jobs = [PairJob(pair, params, seed=seed) for seed in range(4000)]
    counts = Counter(one.token_ids[0] for one in run(model, jobs, config=SelfCDConfig(alpha=alpha)))
    with torch.no_grad():
        y, plain = (model(torch.tensor([ids])).logits[:, -1] for ids in (pair.emphasis, pair.plain))
    probs = (combine(y, plain, torch.tensor([alpha])) / 4.0).softmax(-1)[0].double()
    expected = (probs / probs.sum() * 4000).tolist()
    assert min(expected) > 5, "every cell has enough for the test"
    assert chisquare([counts[token] for token in range(6)], expected).pvalue > 1e-3


def test_log_probabilities_are_those_of_the_contrast(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(3)
    jobs = jobs_of(pairs, temperature=0.7, logprobs=True)
    jobs[1] = PairJob(pairs[1], SamplingParams(max_new_tokens=2))
    found = run(model, jobs)
    assert found[1].logprobs is None
    for one in (found[0], found[2]):
        pair = pairs[found.index(one)]
        assert one.logprobs is not None
        assert len(one.logprobs) == len(one.token_ids) == TOK
        for step, (token, logprob) in enumerate(zip(one.token_ids, one.logprobs, strict=True)):
            with torch.no_grad():
                y, plain = (
                    model(torch.tensor([[*ids, *one.token_ids[:step]]])).logits[:, -1]
                    for ids in (pair.emphasis, pair.plain)
                )
            scores = combine(y, plain, torch.tensor([2.5]))
            assert logprob == pytest.approx(float(scores.log_softmax(-1)[0, token]), abs=1e-4)


# beyond the paper


def test_the_first_tokens_alone_are_contrasted(make_pairs) -> None:
    model, pairs = tiny_model("mistral"), make_pairs(3)
    rows: list[int] = []
    model.register_forward_hook(
        lambda _, __, given, ___: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    found = tokens(run(model, jobs_of(pairs), config=SelfCDConfig(first_steps=4)))
    assert rows[-7:] == [3] * 7, "the contexts with the safety prompt are gone"
    for pair, answer in zip(pairs, found, strict=True):
        begun = brute_force(model, pair, 2.5, count=4)
        assert answer == begun + generated(model, (*pair.plain, *begun), TOK - 4)


def test_a_schedule_comes_before_alpha(make_pairs) -> None:
    model, (pair,) = tiny_model(), make_pairs(1)
    used: list[float] = []
    config = SelfCDConfig(alpha=1.0, schedule=(0.0, 4.0))
    found = run(
        model,
        jobs_of([pair]),
        config=config,
        observe=lambda view: used.append(float(view.alpha_B[0])),
    )
    assert used == [0.0, 4.0] + [1.0] * (TOK - 2)
    first = brute_force(model, pair, 0.0, count=1)
    later = Contexts((*pair.emphasis, *first), (*pair.plain, *first))
    second = brute_force(model, later, 4.0, count=1)
    begun = [*first, *second]
    assert tokens(found)[0] == begun + generated(model, (*pair.plain, *begun), TOK - 2)


def test_plausibility_keeps_to_tokens_that_the_plain_context_holds_likely(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(4)
    found = run(model, jobs_of(pairs), config=SelfCDConfig(alpha=6.0, beta=1.0))
    assert tokens(found) == [generated(model, pair.plain) for pair in pairs]
    seen: list[StepView] = []
    run(model, jobs_of(pairs), config=SelfCDConfig(alpha=6.0, beta=0.3), observe=seen.append)
    differ = 0
    for view in seen:
        probs = view.plain_BV.softmax(-1)
        share = probs.gather(-1, torch.tensor(view.tokens)[:, None])[:, 0] / probs.amax(-1)
        assert (share >= 0.3).all()
        differ += int((share < 1).sum())
    assert differ, "the contrast still decides among them"


def test_adaptive_moves_towards_the_safety_prompt_where_both_agree() -> None:
    model = tiny_model()
    same = Contexts((1, 2, 3), (1, 2, 3))
    used: list[Tensor] = []
    config = SelfCDConfig(alpha=2.5, adaptive=0.9)
    run(
        model,
        jobs_of([same], max_new_tokens=3),
        config=config,
        observe=lambda view: used.append(view.alpha_B),
    )
    assert [float(one) for one in used] == [-2.5] * 3


def test_a_guarded_question_is_answered_in_the_plain_context(make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(2)
    params = SamplingParams(max_new_tokens=TOK)
    jobs = [PairJob(pairs[0], params, guarded=True), PairJob(pairs[1], params)]
    config = SelfCDConfig(schedule=(4.0,), adaptive=1e-6)  # neither touches a guarded one
    found = run(model, jobs, config=config)
    assert tokens(found)[0] == generated(model, pairs[0].plain)
    assert tokens(found)[1] != generated(model, pairs[1].plain)


# watching, and what goes wrong


def test_an_observer_sees_live_rows_alone(make_pairs, monkeypatch) -> None:
    monkeypatch.setattr("self_cd.decoding.DROP_SHARE", 2.0)
    model, pairs = tiny_model(), make_pairs(3)
    jobs = [
        PairJob(pair, SamplingParams(max_new_tokens=limit))
        for pair, limit in zip(pairs, (2, 6, 4), strict=True)
    ]
    seen: list[StepView] = []
    found = run(model, jobs, config=SelfCDConfig(first_steps=5), observe=seen.append)
    assert [view.step for view in seen] == list(range(6))
    assert [view.rows for view in seen] == [(0, 1, 2)] * 2 + [(1, 2)] * 2 + [(1,)] * 2
    for row, one in enumerate(found):
        told = [view.tokens[view.rows.index(row)] for view in seen if row in view.rows]
        assert told == list(one.token_ids)
    for view in seen[:5]:
        assert view.emphasis_BV is not None
        assert view.alpha_B is not None
        assert view.combined_BV.argmax(-1).tolist() == list(view.tokens)
        expected = combine(view.emphasis_BV, view.plain_BV, view.alpha_B)
        assert torch.equal(view.combined_BV, expected)
    assert seen[5].emphasis_BV is None
    assert seen[5].alpha_B is None
    assert_close(seen[5].combined_BV, seen[5].plain_BV)


class _Poison(nn.Module):
    """Breaks the logits of rows that have read a token, from some column on."""

    def __init__(self, model: PreTrainedModel, value: float) -> None:
        super().__init__()
        self.value = value
        model.model.embed_tokens.register_forward_hook(self.embed)

    def embed(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output.masked_fill((inputs[0] == 258)[..., None], self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_end_a_row_and_no_other(value: float, make_pairs) -> None:
    model, pairs = tiny_model(), make_pairs(3)
    expected = tokens(run(model, jobs_of(pairs)))
    _Poison(model, value)
    bad = Contexts((*pairs[1].emphasis[:-1], 258, 7), (*pairs[1].plain[:-1], 258, 7))
    found = run(model, jobs_of([pairs[0], bad, pairs[2]]))
    assert [one.error for one in found] == [None, "the model's logits are not finite", None]
    assert found[1].reason == "error"
    assert found[1].token_ids == ()
    assert [tokens(found)[0], tokens(found)[2]] == [expected[0], expected[2]]


def test_a_row_that_ended_keeps_its_answer_whatever_is_read_after_it():
    model = tiny_model("llama-gqa", seed=3)
    jobs = [
        PairJob(Contexts((1, 2, 3 + place), (2, 3 + place)), SamplingParams(max_new_tokens=6))
        for place in range(5)
    ]
    free = decode(model, jobs, SelfCDConfig(), eos_ids=(), detokenize=str)
    end = free[0].token_ids[1]  # not used before its end, so the others go on
    with torch.no_grad():
        model.get_input_embeddings().weight[end] = torch.nan  # read after the end alone
    found = decode(model, jobs[:1], SelfCDConfig(), eos_ids=(end,), detokenize=str)
    together = decode(model, jobs, SelfCDConfig(), eos_ids=(end,), detokenize=str)
    assert found[0].reason == together[0].reason == "stop"
    assert together[0].token_ids == found[0].token_ids


def test_a_guarded_row_is_the_plain_context_even_under_a_mask():
    model = tiny_model("llama-gqa", seed=1)
    params = SamplingParams(max_new_tokens=6, temperature=2.0)
    job = PairJob(Contexts((1, 2, 3), (2, 3)), params, seed=5)
    masked = SelfCDConfig(beta=1.0)
    guarded = decode(model, [replace(job, guarded=True)], masked, eos_ids=(), detokenize=str)
    plain = decode(model, [job], SelfCDConfig(alpha=1.0), eos_ids=(), detokenize=str)
    greedy = decode(model, [job], masked, eos_ids=(), detokenize=str)
    assert guarded[0].token_ids == plain[0].token_ids
    assert guarded[0].guarded
    assert greedy[0].token_ids != plain[0].token_ids
