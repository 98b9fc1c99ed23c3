"""A small chat model on disk, for tests of commands.

    folder = save_chat_model(tmp_path / "model")

Random weights, bytes as tokens, and a chat template whose marks are special tokens.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer

__all__ = ["CHAT_TEMPLATE", "chat_model", "chat_tokenizer", "save_chat_model"]

MARKS = ("<|system|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the marks of the template as special tokens."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def chat_model(*, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A seeded Llama of two layers with that tokenizer; it ends at the tokenizer's end mark."""
    tokenizer = chat_tokenizer()
    model = tiny_model(
        "llama-gqa",
        seed=seed,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model, tokenizer


def save_chat_model(folder: Path, *, seed: int = 0) -> Path:
    """The same on disk, as a user would have it."""
    model, tokenizer = chat_model(seed=seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
