"""A trace: both contexts and their contrast, token by token.

    for record in trace_records(model, tokenizer, item, SelfCDConfig(alpha=2.5), top=5):
        run.append(record)

For every token of the answer: the best tokens with the safety prompt (y), without it (y') and under
the contrast (z), with logits, probabilities and ranks in all three, and what was chosen.

Axes: B rows, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from pydantic import JsonValue
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.errors import DataError, GenerationError
from papercore.generate.defaults import eos_ids
from papercore.generate.jobs import decode as detokenize
from papercore.generate.texts import cut_at_stop
from papercore.generate.types import Completion, SamplingParams
from papercore.records import Record
from self_cd.analysis_ids import trace_id
from self_cd.config import SelfCDConfig
from self_cd.decoding import PairJob, StepView, decode
from self_cd.intake import Intake, request_of
from self_cd.items import Item
from self_cd.margins import context_margins
from self_cd.openings import encode_openings
from self_cd.prompts import Prompter

__all__ = ["step_data", "token_text", "trace_records"]

TOP = 5
"""Candidates of each of the three distributions."""


def trace_records(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    item: Item,
    config: SelfCDConfig | None = None,
    *,
    params: SamplingParams | None = None,
    top: int = TOP,
    seed: int = 0,
    max_context: int | None = None,
) -> Iterator[Record]:
    """One record per token of the answer to a question.

    Args:
        item: The question.
        config: Settings of the method.
        params: How to choose tokens; greedy by default.
        top: Candidates of each of the three distributions.
        seed: From which a sampled answer gets its own, by the item's id, as in `generate`.
        max_context: Prompt and answer in tokens; None takes what the model's config says.

    Raises:
        DataError: The question cannot be asked.
        GenerationError: The model's logits are not finite.
        ModelError: The model cannot read pairs.
    """
    config = config or SelfCDConfig()
    prompter = Prompter(tokenizer, config.prompts)
    intake = Intake(model, prompter, seed=seed, max_context=max_context)
    asked = intake.read(0, request_of(0, item, params or SamplingParams(max_new_tokens=200)))
    if isinstance(asked, Completion):
        raise DataError(asked.error or "the question cannot be asked")
    steps: list[dict[str, JsonValue]] = []

    def observe(view: StepView) -> None:
        steps.append(step_data(view, tokenizer, top))

    (decoded,) = decode(
        model,
        [_guarded(model, tokenizer, asked.job, config)],
        config,
        eos_ids=eos_ids(model, tokenizer),
        detokenize=partial(detokenize, tokenizer),
        observe=observe,
    )
    if decoded.error is not None:
        raise GenerationError(f"{decoded.error}: check the weights, or take another --dtype")
    head: dict[str, JsonValue] = {
        "item": item.id,
        "dataset": item.dataset,
        "side": item.side,
        "query": item.query,
    }
    # the end of a text may change its beginning, so it stands at its last token
    text = detokenize(tokenizer, decoded.token_ids)
    steps[-1]["answer"] = cut_at_stop(text, asked.request.params.stop)
    for step, data in enumerate(steps):
        yield Record(id=trace_id(item.id, step), data={**head, **data})


def step_data(view: StepView, tokenizer: PreTrainedTokenizerBase, top: int) -> dict[str, JsonValue]:
    """What one step of the first row shows; the best candidates of the contrast come first.

    Without a contrast, after the first steps, what concerns the safety prompt is null.
    """
    plain_V, combined_V = view.plain_BV[0].float(), view.combined_BV[0].float()
    emphasis_V = None if view.emphasis_BV is None else view.emphasis_BV[0].float()
    named = {"safety": emphasis_V, "plain": plain_V, "contrast": combined_V}
    given = {name: logits_V for name, logits_V in named.items() if logits_V is not None}
    best = {name: _best(logits_V, top) for name, logits_V in given.items()}
    chosen = view.tokens[0]
    tokens = list(dict.fromkeys([*best["contrast"], *(t for ids in best.values() for t in ids)]))
    if chosen not in tokens:  # a sampled one may be none of the best
        tokens.append(chosen)
    columns = {name: _column(given[name], tokens) if name in given else None for name in named}
    candidates: list[JsonValue] = []
    for place, token in enumerate(tokens):
        shown: dict[str, JsonValue] = {"token": token, "text": token_text(tokenizer, token)}
        for name, column in columns.items():
            for key in ("logit", "prob", "rank"):
                shown[f"{key}_{name}"] = None if column is None else column[key][place]
        y, plain = columns["safety"], columns["plain"]
        assert plain is not None
        shown["push"] = None if y is None else y["logit"][place] - plain["logit"][place]
        candidates.append(shown)
    return {
        "step": view.step,
        "token": chosen,
        "text": token_text(tokenizer, chosen),
        "alpha": None if view.alpha_B is None else float(view.alpha_B[0]),
        "best_safety": best["safety"][0] if "safety" in best else None,
        "best_plain": best["plain"][0],
        "best_contrast": best["contrast"][0],
        "candidates": candidates,
    }


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token as text; its name in the vocabulary where it is a part of a character."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    if isinstance(text, str) and text and "\N{REPLACEMENT CHARACTER}" not in text:
        return text
    return str(tokenizer.convert_ids_to_tokens(token))


def _guarded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    job: PairJob,
    config: SelfCDConfig,
) -> PairJob:
    """The job, marked if the guard keeps it from the contrast."""
    if config.guard is None:
        return job
    openings = encode_openings(tokenizer, config.openings)
    plain = [job.contexts.plain]
    margins_B = context_margins(model, plain, openings, float32_head=config.float32_head)
    return replace(job, guarded=float(margins_B[0]) > config.guard)


def _best(logits_V: Tensor, top: int) -> list[int]:
    ids: list[int] = logits_V.topk(min(top, len(logits_V))).indices.tolist()
    return ids


def _column(logits_V: Tensor, tokens: list[int]) -> dict[str, list[float]]:
    """Logits, probabilities and ranks (0 is the best) of some tokens in one distribution."""
    index_C = torch.tensor(tokens, device=logits_V.device)
    logits_C = logits_V[index_C]
    probs_C = logits_V.softmax(-1)[index_C]
    ranks_C = (logits_V[None] > logits_C[:, None]).sum(-1)
    return {
        "logit": logits_C.tolist(),
        "prob": probs_C.tolist(),
        "rank": ranks_C.tolist(),
    }
