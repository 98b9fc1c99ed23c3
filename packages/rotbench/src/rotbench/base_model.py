"""The model that `train` starts from: a given one, with interpolated positions, or a random one.

model, tokenizer = load_base(config, "auto")
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from papercore.device import seed_everything
from papercore.errors import ConfigError
from papercore.files import cache_dir
from papercore.models import load_model
from papercore.refs import parse_ref
from papercore.tiny import byte_tokenizer, tiny_llama
from papercore.trainers import own_device, quiet
from rotbench.config import TrainConfig

__all__ = ["RANDOM", "load_base", "place_of", "positions"]

RANDOM: Final = "random"
"""The base that is made in code: a byte-level Llama of 30,000 random weights."""


def load_base(config: TrainConfig, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model to tune, with its positions interpolated.

    Raises:
        ConfigError: The base's positions are stretched in another way already.
        ModelError: It cannot be loaded.
    """
    seed_everything(config.seed)
    # Weights that are trained themselves need more digits than bfloat16 has.
    dtype = "float32" if (config.tune, config.dtype) == ("full", "auto") else config.dtype
    return load_model(
        place_of(config), device=own_device(device), dtype=dtype, config_overrides=positions(config)
    )


def positions(config: TrainConfig) -> dict[str, object]:
    """What linear interpolation changes in the model's config.

    Source: 2401.08326 extends LLaMA-2 by position interpolation (Chen et al., 2306.15595), which
        is what transformers calls linear; official inference code divides positions by 2.
    """
    if config.rope_linear == 1.0:
        return {}
    parsed = parse_ref(place_of(config), loads=True)
    if parsed.kind != "hf":
        raise ConfigError(f"--rope-linear changes hub ids and directories, not {config.base}")
    try:
        base = AutoConfig.from_pretrained(parsed.name, trust_remote_code=False)
    except (OSError, ValueError):
        return {}  # load_model says what is wrong
    known = getattr(base, "rope_parameters", None) or {}
    if known.get("rope_type", "default") != "default":
        raise ConfigError(
            f"the positions of {config.base} are stretched already "
            f"({known.get('rope_type', 'by layer')}): set --rope-linear 1"
        )
    longest = int(base.max_position_embeddings * config.rope_linear)
    return {
        "rope_parameters": {"rope_type": "linear", "factor": config.rope_linear},
        "max_position_embeddings": longest,
    }


def place_of(config: TrainConfig) -> str:
    """The reference of the base; the random one is made and kept in the cache."""
    if config.base != RANDOM:
        return config.base
    folder = cache_dir() / "rotbench" / "random-llama"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = byte_tokenizer()
        model = tiny_llama(len(tokenizer), hidden=32, layers=2, heads=4, max_positions=8192)
        model.config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        beside = Path(tempfile.mkdtemp(dir=folder.parent))
        with quiet():
            model.save_pretrained(beside)
            tokenizer.save_pretrained(beside)
        try:
            beside.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(beside)
    return str(folder)
