"""Named settings, each value with its source. No torch here."""

from collections.abc import Mapping
from types import MappingProxyType

from self_cd.config import (
    AttributeConfig,
    CalibrateConfig,
    GenerateConfig,
    OpeningsConfig,
    PromptConfig,
    RunAnswersConfig,
    SelfCDConfig,
    SweepConfig,
    TraceConfig,
)

TINY_MODEL = "tiny:self-cd"
"""The miniature's model."""
PAPER_MODEL = "meta-llama/Llama-2-7b-chat-hf"
"""Source: 2401.17633, the model of most of its tables."""
MODERN_MODEL = "Qwen/Qwen3-4B-Instruct-2507"
"""Our choice: open without a gate, answers without thinking first, fits a 16 GB GPU."""

TINY_CONTRAST = SelfCDConfig(
    prompts=PromptConfig(safety="SAFE SAFE SAFE SAFE"),
    openings=OpeningsConfig(refusal=("sorry",), answer=("sure",)),
)
"""The method in the miniature's world, whose safety prompt is a word."""
PAPER_CONTRAST = SelfCDConfig()
"""Source: the official script; everything that the paper has not is off."""

PAPER_SETS = ("xstest", "oktest", "i-cona")
"""Source: 2401.17633 (second hand): XSTest-Safe and OKTest; XSTest-Unsafe and I-CoNa for safety."""
MODERN_SETS = ("xstest", "or-bench-hard", "or-bench-toxic")
"""Our choice, for the trade-off between both sides."""
TINY_TOK = 8
"""Answers of the miniature's world have at most seven words."""

GENERATE: Mapping[str, GenerateConfig] = MappingProxyType(
    {
        "default": GenerateConfig(model=MODERN_MODEL),
        "tiny": GenerateConfig(model=TINY_MODEL, contrast=TINY_CONTRAST, max_new_tokens=TINY_TOK),
        "paper": GenerateConfig(model=PAPER_MODEL, contrast=PAPER_CONTRAST),
        "modern": GenerateConfig(model=MODERN_MODEL, max_new_tokens=512),
    }
)
"""Presets of `self-cd generate`."""

RUN: Mapping[str, RunAnswersConfig] = MappingProxyType(
    {
        "default": RunAnswersConfig(model=MODERN_MODEL),
        "tiny": RunAnswersConfig(
            model=TINY_MODEL, contrast=TINY_CONTRAST, data=("world",), max_new_tokens=TINY_TOK
        ),
        "paper": RunAnswersConfig(model=PAPER_MODEL, contrast=PAPER_CONTRAST, data=PAPER_SETS),
        "modern": RunAnswersConfig(model=MODERN_MODEL, data=MODERN_SETS, max_new_tokens=512),
    }
)
"""Presets of `self-cd run`."""

SWEEP: Mapping[str, SweepConfig] = MappingProxyType(
    {
        "default": SweepConfig(model=MODERN_MODEL),
        "tiny": SweepConfig(
            model=TINY_MODEL, contrast=TINY_CONTRAST, data=("world",), max_new_tokens=TINY_TOK
        ),
        "paper": SweepConfig(model=PAPER_MODEL, contrast=PAPER_CONTRAST, data=PAPER_SETS),
        "modern": SweepConfig(model=MODERN_MODEL, data=MODERN_SETS, max_new_tokens=512),
    }
)
"""Presets of `self-cd sweep`."""

CALIBRATE: Mapping[str, CalibrateConfig] = MappingProxyType(
    {
        "default": CalibrateConfig(model=MODERN_MODEL),
        "tiny": CalibrateConfig(model=TINY_MODEL, contrast=TINY_CONTRAST, data=("world",)),
        # the paper calibrates nothing: its sets, our share of 99 %
        "paper": CalibrateConfig(model=PAPER_MODEL, contrast=PAPER_CONTRAST, data=PAPER_SETS),
        "modern": CalibrateConfig(model=MODERN_MODEL, data=MODERN_SETS),
    }
)
"""Presets of `self-cd calibrate`."""

ATTRIBUTE: Mapping[str, AttributeConfig] = MappingProxyType(
    {
        "default": AttributeConfig(model=MODERN_MODEL),
        "tiny": AttributeConfig(
            model=TINY_MODEL, contrast=TINY_CONTRAST, data=("world",), refusal="sorry cannot help"
        ),
        # source: 2401.17633, section 3: LLaMA2-7B-Chat on XSTest, which has focus words
        "paper": AttributeConfig(model=PAPER_MODEL, contrast=PAPER_CONTRAST, data=("xstest",)),
        "modern": AttributeConfig(model=MODERN_MODEL, data=("xstest",)),
    }
)
"""Presets of `self-cd attribute`."""

TRACE: Mapping[str, TraceConfig] = MappingProxyType(
    {
        "default": TraceConfig(model=MODERN_MODEL),
        "tiny": TraceConfig(model=TINY_MODEL, contrast=TINY_CONTRAST, max_new_tokens=TINY_TOK),
        # the number of traced tokens is ours
        "paper": TraceConfig(model=PAPER_MODEL, contrast=PAPER_CONTRAST, max_new_tokens=32),
        "modern": TraceConfig(model=MODERN_MODEL, max_new_tokens=32),
    }
)
"""Presets of `self-cd trace`."""
