"""Named settings, each value with its source. No torch here."""

from collections.abc import Mapping
from types import MappingProxyType

from longheads.config import GenerateConfig, LongHeadsConfig, PasskeyConfig, TraceConfig

WINDOWS: Mapping[str, LongHeadsConfig] = MappingProxyType(
    {
        # largest multiple of the chunk length not above half of the trained length
        "auto": LongHeadsConfig(),
        # the setting with which the author says passkey retrieval works: official issue 3
        "author-passkey": LongHeadsConfig(chunk_len=256, window=2048),
        # defaults of the official README and config
        "official-readme": LongHeadsConfig(chunk_len=256, window=4096),
        # the miniature: trained at 256 tokens
        "tiny": LongHeadsConfig(chunk_len=16, window=256),
    }
)
"""Settings of the method by name."""

TINY_MODEL = "tiny:longheads"
"""The miniature's model; trained at 256 tokens."""
PAPER_MODEL = "meta-llama/Llama-2-7b-hf"
"""Source: 2402.10685, passkey figure: LLaMA-2-7B base; trained at 4096 tokens."""
MODERN_MODEL = "HuggingFaceTB/SmolLM2-1.7B-Instruct"
"""Our choice: small, open without a gate, of the proved type llama; trained at 8192 tokens."""

GENERATE: Mapping[str, GenerateConfig] = MappingProxyType(
    {
        "tiny": GenerateConfig(
            model=TINY_MODEL,
            longheads=WINDOWS["tiny"],
            max_new_tokens=1,  # the answer of the miniature's world is one word
            prefill_tok=1024,
        ),
        # no source for generation settings was found: greedy and 32 tokens are ours
        "paper": GenerateConfig(model=PAPER_MODEL, longheads=WINDOWS["author-passkey"]),
        "official-readme": GenerateConfig(model=PAPER_MODEL, longheads=WINDOWS["official-readme"]),
        "modern": GenerateConfig(
            model=MODERN_MODEL, longheads=WINDOWS["auto"], chat=True, max_new_tokens=256
        ),
    }
)
"""Presets of `longheads generate`."""

PASSKEY: Mapping[str, PasskeyConfig] = MappingProxyType(
    {
        "tiny": PasskeyConfig(
            model=TINY_MODEL,
            longheads=WINDOWS["tiny"],
            task="world",
            lengths=(256, 1024, 4096),
            trials=20,
            depth_bins=5,
            prefill_tok=1024,
        ),
        "paper": PasskeyConfig(
            model=PAPER_MODEL,
            longheads=WINDOWS["author-passkey"],
            # source: passkey figure of 2402.10685 v2 (4k, 16k to 128k); official script (8k)
            lengths=(4096, 8192, 16384, 32768, 65536, 131072),
            trials=50,  # source: official passkey script
        ),
        "official-readme": PasskeyConfig(
            model=PAPER_MODEL,
            longheads=WINDOWS["official-readme"],
            lengths=(4096, 8192, 16384, 32768, 65536, 131072),  # as in `paper`
            trials=50,  # source: official passkey script
        ),
        # 1 to 8 times the trained length; lengths and trials are our choice
        "modern": PasskeyConfig(
            model=MODERN_MODEL,
            longheads=WINDOWS["auto"],
            lengths=(8192, 16384, 32768, 65536),
            trials=20,
        ),
    }
)
"""Presets of `longheads passkey`."""

TRACE: Mapping[str, TraceConfig] = MappingProxyType(
    {
        "tiny": TraceConfig(
            model=TINY_MODEL, longheads=WINDOWS["tiny"], last_tok=1, prefill_tok=1024
        ),
        # no source for the number of queries was found: 16 is ours
        "paper": TraceConfig(model=PAPER_MODEL, longheads=WINDOWS["author-passkey"]),
        "official-readme": TraceConfig(model=PAPER_MODEL, longheads=WINDOWS["official-readme"]),
        "modern": TraceConfig(model=MODERN_MODEL, longheads=WINDOWS["auto"]),
    }
)
"""Presets of `longheads trace`."""
