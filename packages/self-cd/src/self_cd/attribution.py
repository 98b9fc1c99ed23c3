"""Attribution: how strongly the focus word of a question drives its answer, layer by layer.

    for record in attribution_records(model, tokenizer, prompter, items, Explained()):
        run.append(record)

Source: 2401.17633, section 3: the mean flow from the focus word's tokens to the last prompt token,
for harmless and harmful questions, with and without the safety prompt; and table 3, the perplexity
of a refusal. Ours: the mean over the other tokens of the question beside it, and the focus word's
share of the flow from the whole question. Where the model is sure of the target, its loss and all
flow vanish: compare shares there, or explain the refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from pydantic import JsonValue
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.device import is_out_of_memory, release_memory
from papercore.errors import DataError
from papercore.generate.hf import HFGenerator
from papercore.generate.types import Request, SamplingParams
from papercore.records import Record
from self_cd.analysis_ids import CONTEXTS, Context, flow_id, ppl_id
from self_cd.batching import Batches, Failure
from self_cd.flow import Flow, information_flow
from self_cd.focus import Located, locate
from self_cd.items import Item
from self_cd.openings import answer_ids
from self_cd.perplexity import BATCH_SIZE, continuation_nll
from self_cd.prompts import Prompter
from self_cd.reading import room_of

__all__ = ["Explained", "attribution_records", "focus_flow"]


@dataclass(frozen=True)
class Explained:
    """What is measured.

    Attributes:
        target: Whose loss is explained: that of the model's own greedy answer in the same context,
            or of the refusal.
        target_tok: Its first tokens that bear loss.
        refusal: The fixed refusal.
        mapped: Id of the question whose flow is kept token by token; None takes the first harmless
            one with a focus word.
        batch_size: Questions at once, where no gradient is needed; None starts with 64.
        max_context: Most tokens; None takes what the model's config says.
        float32_head: Whether logits are computed in float32.
    """

    target: Literal["answer", "refusal"] = "answer"
    target_tok: int = 4
    refusal: str = "I cannot help with that."
    mapped: str | None = None
    batch_size: int | None = None
    max_context: int | None = None
    float32_head: bool = True


def attribution_records(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompter: Prompter,
    items: Sequence[Item],
    how: Explained | None = None,
) -> Iterator[Record]:
    """Per question and context a record of its flow and one of the refusal's perplexity.

    A question without a focus word has a skipped record of flow, one that fails a record with an
    error.

    Raises:
        ModelError: The attention of this model cannot be recorded.
    """
    how = how or Explained()
    refusal = answer_ids(tokenizer, how.refusal)
    if not refusal:
        raise DataError(f"the refusal {how.refusal!r} has no tokens for this model: give another")
    work = _Work(model, tokenizer, prompter, refusal, how)
    mapped = how.mapped or next((i.id for i in items if i.side == "harmless" and i.focus), None)
    for context in CONTEXTS:
        prompts = {item.id: work.prompt(item, context) for item in items}
        ready = {name: ids for name, ids in prompts.items() if not isinstance(ids, str)}
        targets = work.targets(ready)
        surprises = work.surprises(ready)
        for item in items:
            yield work.flow_record(item, context, targets.get(item.id), item.id == mapped)
            found = prompts[item.id]
            problem = found if isinstance(found, str) else None
            yield _ppl_record(item, context, surprises.get(item.id, problem))


def focus_flow(flow: Flow, located: Located) -> dict[str, list[float]]:
    """Per layer the mean flow from focus tokens and from the question's others, and the share.

    The share is the focus tokens' part of the sum over all tokens of the question.
    """
    from_focus_LF = flow.from_LT[:, list(located.focus)]
    from_others_LO = flow.from_LT[:, list(located.others)]
    sums_L = from_focus_LF.sum(-1)
    whole_L = sums_L + from_others_LO.sum(-1)
    return {
        "focus": _numbers(from_focus_LF.mean(-1)),
        "others": _numbers(from_others_LO.mean(-1)),  # NaN where there is none
        "share": _numbers(torch.where(whole_L > 0, sums_L / whole_L, torch.nan)),
    }


@dataclass(frozen=True)
class _Work:
    """What all questions have in common."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompter: Prompter
    refusal: tuple[int, ...]
    how: Explained

    def prompt(self, item: Item, context: Context) -> tuple[int, ...] | str:
        """Tokens of a question, or why it cannot be asked."""
        try:
            ids = self.prompter.context(item.query, context, item.turns)
        except DataError as error:
            return str(error)
        behind = max(len(self.refusal), self.how.target_tok)
        return room_of(self.model, ids, behind, self.how.max_context) or ids

    def targets(self, prompts: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...] | str]:
        """The tokens whose loss is explained, or why there are none."""
        if self.how.target == "refusal":
            return dict.fromkeys(prompts, self.refusal[: self.how.target_tok])
        params = SamplingParams(max_new_tokens=self.how.target_tok)
        requests = [Request(id=name, token_ids=ids, params=params) for name, ids in prompts.items()]
        backend = HFGenerator(
            self.model,
            self.tokenizer,
            batch_size=self.how.batch_size or "auto",
            max_context=self.how.max_context,
        )
        found = backend.generate(requests)
        return {one.id: one.error if one.error is not None else one.token_ids for one in found}

    def surprises(self, prompts: dict[str, tuple[int, ...]]) -> dict[str, tuple[float, ...] | str]:
        """Negative log-probabilities of the refusal's tokens, or why there are none."""

        def read(some: Sequence[tuple[int, ...]]) -> list[tuple[float, ...]]:
            head = self.how.float32_head
            return continuation_nll(self.model, some, self.refusal, float32_head=head)

        found = Batches(self.how.batch_size or BATCH_SIZE).run(list(prompts.values()), read)
        return {
            name: one.problem if isinstance(one, Failure) else one
            for name, one in zip(prompts, found, strict=True)
        }

    def flow_record(
        self, item: Item, context: Context, target: tuple[int, ...] | str | None, mapped: bool
    ) -> Record:
        """The flow of one question in one context."""
        name, data = flow_id(item.id, context), _head(item, context)
        if not item.focus:
            return Record(id=name, status="skipped", error="no focus word", data=data)
        try:
            located = locate(self.tokenizer, self.prompter, item, context)
            if target is None or isinstance(target, str):
                raise DataError(target or "the question does not fit")
            flow = self._flow(located, target)
        except DataError as error:
            return Record(id=name, status="error", error=str(error), data=data)
        data |= {
            "target": self.how.target,
            "loss": flow.loss,
            "focus_tok": len(located.focus),
            "others_tok": len(located.others),
            **{key: [*numbers] for key, numbers in focus_flow(flow, located).items()},
        }
        if mapped:
            data |= _map(flow, located)
        return Record(id=name, data=data)

    def _flow(self, located: Located, target: tuple[int, ...]) -> Flow:
        try:
            return information_flow(
                self.model, located.ids, target, float32_head=self.how.float32_head
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        raise DataError(f"{len(located.ids)} tokens with their gradients do not fit into memory")


def _map(flow: Flow, located: Located) -> dict[str, JsonValue]:
    """The flow from every token of the question."""
    places = sorted((*located.focus, *located.others))
    return {
        "tokens": [located.texts[place] for place in places],
        "focus_places": [places.index(place) for place in located.focus],
        "map": cast("JsonValue", flow.from_LT[:, places].tolist()),
    }


def _ppl_record(item: Item, context: Context, found: tuple[float, ...] | str | None) -> Record:
    name, data = ppl_id(item.id, context), _head(item, context)
    if found is None or isinstance(found, str):
        problem = found or "the refusal could not be read"
        return Record(id=name, status="error", error=problem, data=data)
    if not all(number < float("inf") for number in found):
        problem = "the model's logits are not finite"
        return Record(id=name, status="error", error=problem, data=data)
    return Record(id=name, data={**data, "nll": [*found]})


def _head(item: Item, context: Context) -> dict[str, JsonValue]:
    return {
        "item": item.id,
        "dataset": item.dataset,
        "side": item.side,
        "kind": item.kind,
        "focus_word": item.focus,
        "context": context,
    }


def _numbers(values_L: Tensor) -> list[float]:
    return [float(value) for value in values_L]
