"""Cost of an answer by contrast, against plain decoding and against other ways to contrast.

A random Llama of 106M parameters, a question of 24 tokens with and without a system prompt of 60,
64 greedy tokens; prefill counts. Every way but the plain one must choose the same tokens. The
peers: transformers' `generate` on the plain context alone; its classifier-free guidance, which is
the same formula with two forward passes per token; and the scheme of the official script,
re-stated, which reads both contexts anew at every token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from harness import Options, Ratio, Result, finish, measure, ratio
from onelayer import cpu_options, load_note
from papercore.generate.types import SamplingParams
from papercore.tiny import tiny_llama
from self_cd.config import SelfCDConfig
from self_cd.contexts import Contexts
from self_cd.decoding import PairJob, decode

ALPHA = 2.5
SYSTEM_TOK, QUESTION_TOK = 60, 24
NEW_TOK = 64
PLAIN, OURS = "plain generate", "self-cd"
GUIDANCE, UNCACHED = "guidance of transformers", "two uncached forwards"


def main(options: Options) -> int:
    """Check that all agree, then measure."""
    model, new_tok = (_model(quick=True), 8) if options.quick else (_model(), NEW_TOK)
    ways = _ways(model, new_tok)
    answers = {label: run() for label, run in ways.items()}
    assert answers[OURS] == answers[GUIDANCE] == answers[UNCACHED], "the same greedy tokens"
    assert len(answers[OURS]) == len(answers[PLAIN]) == new_tok
    rows = measure(ways, options, warmups=0)
    ratios: tuple[Ratio, ...] = (
        ratio("self-cd / plain", rows[OURS], rows[PLAIN], at_most=1.9),
        ratio("self-cd / guidance", rows[OURS], rows[GUIDANCE], at_most=0.85),
        ratio("uncached / self-cd", rows[UNCACHED], rows[OURS], at_least=5),
    )
    size = sum(one.numel() for one in model.parameters())
    result = Result(
        "self_cd_decode",
        f"{new_tok} tokens from contexts of {SYSTEM_TOK + QUESTION_TOK} and {QUESTION_TOK} tokens, "
        f"{size / 1e6:.0f}M parameters: a pair costs at most 1.9 times plain decoding and 0.85 "
        "times transformers' guidance, a fifth of reading both contexts anew",
        tuple(rows.values()),
        ratios,
        notes=(
            "all times include the prefill",
            "self-cd, guidance and the uncached scheme chose the same tokens",
            (
                "a pair is two rows, whose products self-cd turns (self_cd.skinny); without that "
                "they read the weights at half the speed"
            ),
            load_note(),
        ),
    )
    return finish(result, options)


def _model(*, quick: bool = False) -> LlamaForCausalLM:
    if quick:
        return tiny_llama(500, hidden=64, layers=2, heads=4)
    return tiny_llama(32_000, hidden=768, layers=8, heads=12, mlp=2048)


def _ways(model: PreTrainedModel, new_tok: int) -> dict[str, Callable[[], list[int]]]:
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(
        model.config.vocab_size, (1, SYSTEM_TOK + QUESTION_TOK), generator=random
    )
    emphasis, plain = tokens, tokens[:, SYSTEM_TOK:]
    pair = Contexts(tuple(emphasis[0].tolist()), tuple(plain[0].tolist()))
    job = PairJob(pair, SamplingParams(max_new_tokens=new_tok))

    def generate(**options: object) -> list[int]:
        out = model.generate(  # type: ignore[operator]
            plain,
            attention_mask=torch.ones_like(plain),
            max_new_tokens=new_tok,
            do_sample=False,
            pad_token_id=0,
            **options,
        )
        new: list[int] = out[0, plain.shape[1] :].tolist()
        return new

    def guide() -> list[int]:
        mask = torch.ones_like(emphasis)
        return generate(
            negative_prompt_ids=emphasis, negative_prompt_attention_mask=mask, guidance_scale=ALPHA
        )

    def contrast() -> list[int]:
        config = SelfCDConfig(alpha=ALPHA)
        return list(decode(model, [job], config, eos_ids=(), detokenize=str)[0].token_ids)

    @torch.no_grad()
    def reread() -> list[int]:
        answer: list[int] = []
        for _ in range(new_tok):
            y, y_plain = (
                model(input_ids=torch.tensor([[*ids, *answer]]), use_cache=False).logits[0, -1]
                for ids in (pair.emphasis, pair.plain)
            )
            answer.append(int((y - ALPHA * (y - y_plain)).argmax()))
        return answer

    return {PLAIN: generate, OURS: contrast, GUIDANCE: guide, UNCACHED: reread}


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
