"""Tokenizers made in code, without files: one over a list of words, one over bytes.

    tokenizer = word_tokenizer(["red", "blue"])

Both give back the text that they encoded, so a test can compare texts or ids as it likes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

Role = Literal["unk", "pad", "bos", "eos"]

WORD_SPECIALS: Mapping[Role, str] = {"unk": "<unk>", "pad": "<pad>", "eos": "<eos>"}
BYTE_SPECIALS: Mapping[Role, str] = {"pad": "<|pad|>", "bos": "<|bos|>", "eos": "<|eos|>"}


def word_tokenizer(
    words: Sequence[str], *, special: Mapping[Role, str] = WORD_SPECIALS
) -> PreTrainedTokenizerFast:
    """Tokenizer with one token per word, words separated by white space.

    Word `i` has id `i`; special tokens that are not words themselves follow in the order given.
    Text made of its words, one space between two, comes back from its ids unchanged.

    Args:
        words: The vocabulary, without white space and without repetition.
        special: Token of each role; must define `unk`, the others are optional.

    Raises:
        ValueError: A word is empty, holds white space or is repeated, or there is no `unk`.
    """
    bad = [word for word in words if word.split() != [word]]
    if bad:
        raise ValueError(f"not one word each: {bad[:3]!r}")
    if len(set(words)) != len(words):
        raise ValueError("the words of a tokenizer must differ from each other")
    if "unk" not in special:
        raise ValueError("special must say which token stands for unknown words: unk")
    vocabulary = {
        word: index for index, word in enumerate(dict.fromkeys([*words, *special.values()]))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _fast(tokenizer, special)


def byte_tokenizer(*, special: Mapping[Role, str] = BYTE_SPECIALS) -> PreTrainedTokenizerFast:
    """Tokenizer whose first 256 ids are the bytes of the text; special tokens follow in order.

    Bytes are those of UTF-8; any text comes back from its ids unchanged.
    """
    tokens = dict.fromkeys([*_byte_characters(), *special.values()])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, special)


def _byte_characters() -> list[str]:
    """The character by which the byte-level pre-tokenizer stands for each byte.

    Printable Latin-1 characters stand for themselves; the other bytes get characters from 256 on,
    in order.
    """
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    stand_ins = iter(sorted(character for character in alphabet if ord(character) > 255))
    return [chr(byte) if chr(byte) in alphabet else next(stand_ins) for byte in range(256)]


def _fast(tokenizer: Tokenizer, special: Mapping[Role, str]) -> PreTrainedTokenizerFast:
    roles = {f"{role}_token": token for role, token in special.items()}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        **roles,
    )
