"""Named settings, each value with its source. No torch here."""

from collections.abc import Mapping
from types import MappingProxyType

from rotbench.config import (
    AugmentConfig,
    EvalConfig,
    ExpandConfig,
    LoraConfig,
    NoiseRules,
    Quota,
    TrainConfig,
)

PAPER_MODEL = "meta-llama/Llama-2-7b-hf"
"""Source: 2401.08326, LLaMA-2-7B base; trained at 4096 tokens."""
MODERN_MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
"""Our choice: small, open without a gate, its chat template knows tools."""

TRAJECTORIES = "trajectories.jsonl"
"""The paper's own are not public: this is where yours are expected."""

EVAL: Mapping[str, EvalConfig] = MappingProxyType(
    {
        # seconds, without a model
        "tiny": EvalConfig(),
        # source: official inference code: plain lines, 0.3, 0.5, 1,024 tokens; no seed there
        "paper": EvalConfig(
            model="ToolBench/ToolLLaMA-2-7b-v2",
            data="released",
            prompt_style="plain",
            scoring="official",
            max_new_tokens=1024,
            temperature=0.3,
            top_p=0.5,
        ),
        # ours: an open 7B chat model on one GPU, greedy
        "modern": EvalConfig(model="vllm:Qwen/Qwen2.5-7B-Instruct", data="released"),
    }
)
"""Presets of `rotbench eval`; `rotbench info --recipe paper` has the paper's other models."""

AUGMENT: Mapping[str, AugmentConfig] = MappingProxyType(
    {
        # the paper's mixture 12,247 : 3,000 : 3,000 : 3,000 : 1,500, over 500
        "tiny": AugmentConfig(quota=Quota(clean=24, slight=6, medium=6, heavy=6, union=3)),
        # source: 2401.08326, numbers per level (second hand); the official operators
        "paper": AugmentConfig(
            trajectories=TRAJECTORIES, quota=Quota(), rules=NoiseRules(mode="official")
        ),
        # the same mixture, with noise that is free of collisions and can be undone
        "modern": AugmentConfig(trajectories=TRAJECTORIES, quota=Quota()),
    }
)
"""Presets of `rotbench augment`."""

TRAIN: Mapping[str, TrainConfig] = MappingProxyType(
    {
        # every number is the paper's or says in its help that it is ours
        "paper": TrainConfig(base=PAPER_MODEL, data="runs/augment"),
        # all ours: a chat model, its own positions, one GPU with 24 GB
        "modern": TrainConfig(
            base=MODERN_MODEL,
            data="runs/augment",
            prompt_style="chat",
            epochs=2.0,
            learning_rate=1e-4,
            lora=LoraConfig(r=16, alpha=32.0),
            rope_linear=1.0,
            micro_batch=2,
        ),
        # seconds on a CPU: random weights, to see what a run leaves; --base takes a real model
        "tiny": TrainConfig(
            base="random",
            limit=4,
            max_steps=4,
            batch=2,
            micro_batch=2,
            learning_rate=5e-3,
            max_length=4096,
            rope_linear=1.0,
            gradient_checkpointing=False,
            save_steps=2,
        ),
    }
)
"""Presets of `rotbench train`."""

EXPAND: Mapping[str, ExpandConfig] = MappingProxyType(
    {
        # source: 2401.08326: GPT-4, Rouge-L below 0.55, 4,077 queries (second hand)
        "paper": ExpandConfig(tools="released", count=4077),
        # ours: an open model on one GPU
        "modern": ExpandConfig(model="vllm:Qwen/Qwen2.5-7B-Instruct", count=1000, wave=64),
    }
)
"""Presets of `rotbench expand`; none is tiny, because a tiny model writes no queries."""
