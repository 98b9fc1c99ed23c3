"""Draws rollouts from vLLM's offline engine, with the same result as `sample`.

    llm = LLM(model=folder, logprobs_mode="processed_logprobs", generation_config="vllm")
    rollouts = sample_vllm(llm, prompts, seeds, sampling=sampling)

The engine's log-probabilities are of its own kernels: what an update learns from should be weighed
by `importance_weights` against those of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from papercore.errors import ConfigError, ModelError
from papercore.rl.jobs import Job, jobs_of
from papercore.rl.rollouts import Rollout
from papercore.rl.settings import Sampling

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams

__all__ = ["sample_vllm"]


def sample_vllm(
    llm: LLM, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, sampling: Sampling
) -> list[Rollout]:
    """Continues every prompt, in their order; tokens differ from those of `sample`.

    Args:
        llm: Started with `logprobs_mode="processed_logprobs"`, so that log-probabilities are those
            at the temperature of sampling.
        seeds: A number from 0 on for each prompt.

    Raises:
        ConfigError: The engine reports other log-probabilities.
        DataError: As in `sample`.
        ModelError: The engine gave a rollout up.
    """
    config = llm.llm_engine.model_config
    if config.logprobs_mode != "processed_logprobs":
        raise ConfigError(
            f"the engine has logprobs_mode={config.logprobs_mode}: start it with processed_logprobs"
        )
    vocabulary, positions = int(config.get_vocab_size()), int(config.max_model_len)
    jobs = jobs_of(prompts, seeds, sampling, vocabulary=vocabulary, positions=positions)
    outputs = llm.generate(
        [{"prompt_token_ids": list(job.prompt)} for job in jobs],
        [_params(job, sampling) for job in jobs],
        use_tqdm=False,
    )
    return [
        _rollout(job, output, sampling.eos_ids) for job, output in zip(jobs, outputs, strict=True)
    ]


def _params(job: Job, sampling: Sampling) -> SamplingParams:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        seed=job.seed,
        max_tokens=job.limit,
        stop_token_ids=sorted(sampling.eos_ids),
        ignore_eos=True,  # `stop_token_ids` are all that end a rollout
        logprobs=0,  # of the token that was drawn
        detokenize=False,
    )


def _rollout(job: Job, output: RequestOutput, eos_ids: frozenset[int]) -> Rollout:
    made = output.outputs[0]
    if made.finish_reason not in ("stop", "length"):
        raise ModelError(f"the engine gave prompt {job.row} up: {made.finish_reason}")
    response = tuple(made.token_ids)
    steps = cast("Sequence[Mapping[int, object]]", made.logprobs)
    logps = tuple(
        float(step[token].logprob)  # type: ignore[attr-defined]
        for step, token in zip(steps, response, strict=True)
    )
    return Rollout(job.prompt, response, logps, response[-1] in eos_ids)
