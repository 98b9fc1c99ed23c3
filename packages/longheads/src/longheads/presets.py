"""Named settings, each value with its source. No torch here."""

from collections.abc import Mapping
from types import MappingProxyType

from longheads.config import LongHeadsConfig

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
