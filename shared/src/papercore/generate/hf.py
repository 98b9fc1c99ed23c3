"""Generation with a transformers model: length-sorted, left-padded batches.

    completions = HFGenerator(model, tokenizer, batch_size="auto").generate(requests)

A greedy request gives the same tokens alone and in any batch, up to ties that rounding breaks; a
sampled one draws from its own seed, whatever stands next to it.
"""

import logging
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Literal

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from papercore.device import is_out_of_memory, release_memory
from papercore.errors import GenerationError, PaperError
from papercore.generate.decoding import RowSampler, RowStopper
from papercore.generate.defaults import eos_ids, without_defaults
from papercore.generate.jobs import Job, complete, decode, failed, prepare
from papercore.generate.prompts import Processor, tokenizer_of
from papercore.generate.types import Completion, Request

logger = logging.getLogger(__name__)

AUTO_BATCH_SIZE = 64
"""Where `batch_size="auto"` starts; it is halved whenever a batch does not fit into memory."""


class HFGenerator:
    """The transformers backend of the `Generator` protocol."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Processor,
        *,
        batch_size: int | Literal["auto"] = "auto",
        seed: int = 0,
        max_context: int | None = None,
    ) -> None:
        """Wraps a loaded model.

        Args:
            tokenizer: Tokenizer, or the processor of a model that takes images.
            batch_size: Most requests in one batch.
            seed: From which a sampled request without a seed gets its own, by its id.
            max_context: Prompt and new tokens together; by default what the model's config says.
                Methods that read beyond the trained length set it.
        """
        text_config = model.config.get_text_config()
        trained = getattr(text_config, "max_position_embeddings", None)
        self.model = model
        self.processor = tokenizer
        self.tokenizer = tokenizer_of(tokenizer)
        self.seed = seed
        self.max_context: int | None = trained if max_context is None else max_context
        self._vocab_size: int = text_config.vocab_size
        self._eos_ids = eos_ids(model, self.tokenizer)
        self._batch_size = AUTO_BATCH_SIZE if batch_size == "auto" else batch_size
        if self._batch_size < 1:
            raise GenerationError(f"batch_size={batch_size}: must be at least 1, or auto")

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completes every request, in their order.

        The end-of-sequence token is among the token ids but not in the text. Log-probabilities are
        those of the model, before temperature and truncation. Tool calls are read by the
        tokenizer's response template; without one they stay in the text, with their marks. A
        prompt that leaves no room, or a request that fails, gives a completion with an error.

        Raises:
            GenerationError: Chat messages without a chat template, images without a processor.
        """
        prepared = [
            prepare(
                place,
                request,
                self.processor,
                max_context=self.max_context,
                vocab_size=self._vocab_size,
            )
            for place, request in enumerate(requests)
        ]
        results = {place: one for place, one in enumerate(prepared) if isinstance(one, Completion)}
        jobs = [one for one in prepared if isinstance(one, Job)]
        for job in jobs:
            if job.prompt.tensors:  # images of different shapes do not share a batch
                results |= self._run([job])
        queue = [job for job in jobs if not job.prompt.tensors]
        # The longest first: if memory is short, that shows at once.
        queue.sort(key=lambda job: (job.max_new_tokens, job.length), reverse=True)
        while queue:
            batch, queue = queue[: self._batch_size], queue[self._batch_size :]
            results |= self._run(batch)
        return [results[place] for place in range(len(requests))]

    def _run(self, batch: Sequence[Job]) -> dict[int, Completion]:
        """Completes a batch; one that fails is tried in halves, down to the request that fails."""
        try:
            return self._complete(batch)
        except PaperError:
            raise
        except (RuntimeError, ValueError) as error:
            short = is_out_of_memory(error)
            problem = "out of memory" if short else f"{type(error).__name__}: {error}"
            logger.warning("a batch of %d requests failed: %s", len(batch), problem)
        # Below the handler, whose traceback kept the tensors of the failed batch alive.
        half = len(batch) // 2
        if short:
            release_memory()
            self._batch_size = max(1, min(self._batch_size, half))
        if half == 0:
            return {batch[0].place: failed(batch[0].request, problem, "backend", batch[0].length)}
        return self._run(batch[:half]) | self._run(batch[half:])

    def _complete(self, batch: Sequence[Job]) -> dict[int, Completion]:
        """One call of the model's `generate` for a batch of jobs."""
        device = self.model.device
        width = max(job.length for job in batch)
        pad_id = _pad_id(self.tokenizer, batch)
        params = [job.params for job in batch]
        sampler = RowSampler(params, [job.request.seed_from(self.seed) for job in batch], device)
        stopper = RowStopper(
            params,
            [job.max_new_tokens for job in batch],
            prompt_length=width,
            eos_ids=self._eos_ids,
            decode=partial(decode, self.tokenizer),
        )
        ids = [[pad_id] * (width - job.length) + list(job.prompt.token_ids) for job in batch]
        mask = [[0] * (width - job.length) + [1] * job.length for job in batch]
        beside = {name: value.to(device) for name, value in batch[0].prompt.tensors.items()}
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max(job.max_new_tokens for job in batch), pad_token_id=pad_id
        )
        with without_defaults(self.model):
            output_BT = self.model.generate(  # type: ignore[operator]
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=settings,
                logits_processor=LogitsProcessorList([sampler]),
                stopping_criteria=StoppingCriteriaList([stopper]),
                **beside,
            )
        sampler.record(output_BT)
        tokens = [
            row[width : width + stopper.lengths[i]] for i, row in enumerate(output_BT.tolist())
        ]
        broken = sampler.broken_B.tolist()
        return {
            job.place: failed(
                job.request, "the model's logits are not finite", "backend", job.length
            )
            if broken[row]
            else complete(
                job,
                tokens[row],
                tokenizer=self.tokenizer,
                eos_ids=self._eos_ids,
                reason=stopper.reasons[row] or "length",
                logprobs=sampler.logprobs(row, len(tokens[row])) if job.params.logprobs else None,
            )
            for row, job in enumerate(batch)
        }


def _pad_id(tokenizer: PreTrainedTokenizerBase, batch: Sequence[Job]) -> int:
    """A token for the masked places; any will do.

    One that ends no prompt, because transformers takes a last pad token for padding on the right.
    """
    last = {job.prompt.token_ids[-1] for job in batch}
    wanted = tokenizer.pad_token_id
    return (
        wanted
        if wanted is not None and wanted not in last
        else next(i for i in count() if i not in last)
    )
