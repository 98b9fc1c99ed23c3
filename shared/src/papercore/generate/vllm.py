"""Generation with vLLM's offline engine: the same requests, prompts and texts as with transformers.

    completions = VLLMGenerator("Qwen/Qwen3-8B").generate(requests)

The tokenizer of transformers encodes and decodes, so both backends read the same token ids. Greedy
tokens agree, up to ties that rounding breaks; sampled ones follow their seed, but vLLM draws others
than transformers. The prefixes of prompts are cached between requests.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

from transformers import GenerationConfig, PreTrainedConfig

from papercore.errors import GenerationError, ModelError
from papercore.generate.jobs import Job, complete, failed, prepare
from papercore.generate.prompts import tokenizer_of
from papercore.generate.types import Completion, FinishReason, Request
from papercore.models import read_config, read_tokenizer
from papercore.refs import id_or_directory

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput
    from vllm import SamplingParams as EngineParams

logger = logging.getLogger(__name__)

DEFAULTS: Mapping[str, str] = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: nothing to leave behind, one order
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for results
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent about what runs here
}
"""Environment variables that vLLM reads when it is imported, for those that are not set."""


class VLLMGenerator:
    """The vLLM backend of the `Generator` protocol."""

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        seed: int = 0,
        max_context: int | None = None,
        engine: Mapping[str, object] | None = None,
    ) -> None:
        """Starts the engine in this process.

        Args:
            model: Hub id or directory.
            dtype: `auto`, `float32`, `bfloat16` or `float16`.
            batch_size: Most requests that the engine runs at a time; its own default if auto.
            seed: From which a sampled request without a seed gets its own, by its id.
            max_context: Prompt and new tokens together; by default what the model's config says.
            engine: Further settings of `vllm.LLM`, such as `tensor_parallel_size`.

        Raises:
            ModelError: The engine cannot start with this model here.
            GenerationError: The batch size is below one.
        """
        if batch_size != "auto" and batch_size < 1:
            raise GenerationError(f"batch_size={batch_size}: must be at least 1, or auto")
        place = id_or_directory(model)
        self.tokenizer = tokenizer_of(read_tokenizer(place))
        self.seed = seed
        config = read_config(place)
        self._eos_ids = _eos_ids(place, config, self.tokenizer.eos_token_id)
        self._vocab_size: int = config.get_text_config().vocab_size
        settings: dict[str, object] = {
            "dtype": dtype,
            "seed": 0,
            "generation_config": "vllm",  # not the checkpoint's defaults: requests say it all
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "trust_remote_code": False,
        }
        if max_context is not None:
            settings["max_model_len"] = max_context
        if batch_size != "auto":
            settings["max_num_seqs"] = batch_size
        self.engine = _start(place, settings | dict(engine or {}))
        self.max_context: int = self.engine.llm_engine.model_config.max_model_len

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completes every request, in their order.

        As with transformers, the end-of-sequence token is among the token ids but not in the text,
        log-probabilities are those of the model before temperature and truncation, and a request
        that fails gives a completion with an error.

        Raises:
            GenerationError: Chat messages without a chat template, or images.
        """
        prepared = [
            prepare(
                place,
                request,
                self.tokenizer,
                max_context=self.max_context,
                vocab_size=self._vocab_size,
            )
            for place, request in enumerate(requests)
        ]
        results = {place: one for place, one in enumerate(prepared) if isinstance(one, Completion)}
        results |= self._run([one for one in prepared if isinstance(one, Job)])
        return [results[place] for place in range(len(requests))]

    def _run(self, jobs: Sequence[Job]) -> dict[int, Completion]:
        """Completes jobs; if the engine refuses them, in halves, down to the one it refuses."""
        if not jobs:
            return {}
        try:
            outputs = self.engine.generate(
                [{"prompt_token_ids": list(job.prompt.token_ids)} for job in jobs],
                [self._params(job) for job in jobs],
                use_tqdm=False,
            )
        except (RuntimeError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
            logger.warning("the engine failed on %d requests: %s", len(jobs), problem)
            if len(jobs) == 1 or not isinstance(error, ValueError):  # a dead engine stays dead
                return {job.place: failed(job.request, problem, "backend") for job in jobs}
            half = len(jobs) // 2
            return self._run(jobs[:half]) | self._run(jobs[half:])
        return {
            job.place: self._completion(job, output)
            for job, output in zip(jobs, outputs, strict=True)
        }

    def _params(self, job: Job) -> "EngineParams":
        from vllm import SamplingParams as EngineParams

        params = job.params
        sampled: dict[str, object] = (
            {}
            if params.greedy
            else {
                "top_p": params.top_p,
                "top_k": params.top_k or 0,  # 0 keeps all
                "seed": job.request.seed_from(self.seed),
            }
        )
        return EngineParams(
            temperature=params.temperature,
            max_tokens=job.max_new_tokens,
            stop=list(params.stop),
            detokenize=bool(params.stop),  # the engine needs texts to find stop strings only
            ignore_eos=True,  # `stop_token_ids` are all that end a text
            stop_token_ids=sorted(self._eos_ids),
            logprobs=0 if params.logprobs else None,  # of the token that was taken
            **sampled,
        )

    def _completion(self, job: Job, output: "RequestOutput") -> Completion:
        made = output.outputs[0]
        token_ids = list(made.token_ids)
        logprobs = None
        if job.params.logprobs:
            steps = cast("Sequence[Mapping[int, object]]", made.logprobs)
            logprobs = tuple(
                float(step[token].logprob)  # type: ignore[attr-defined]
                for step, token in zip(steps, token_ids, strict=True)
            )
        if made.finish_reason not in ("stop", "length"):
            problem = f"the engine ended it: {made.finish_reason}"
            return failed(job.request, problem, "backend", job.length)
        return complete(
            job,
            token_ids,
            tokenizer=self.tokenizer,
            eos_ids=self._eos_ids,
            reason=cast("FinishReason", made.finish_reason),
            logprobs=logprobs,
        )


def _start(place: str, settings: Mapping[str, object]) -> "LLM":
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    try:
        return LLM(model=place, **settings)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"vLLM cannot run {place}: {reason}") from error


def _eos_ids(place: str, config: PreTrainedConfig, tokenizer_eos: int | None) -> frozenset[int]:
    """All ids that end a sequence, as transformers has them for a loaded model."""
    try:
        generation = GenerationConfig.from_pretrained(place)
    except OSError:  # there is none
        generation = GenerationConfig.from_model_config(config)
    own = generation.eos_token_id
    ids = own if isinstance(own, list) else [own]
    return frozenset(id_ for id_ in [*ids, tokenizer_eos] if id_ is not None)
