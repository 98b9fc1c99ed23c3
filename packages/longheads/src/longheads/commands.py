"""What the verbs run: everything that a user can get wrong is checked here, then torch is imported.

A missing file or a folder in use is so reported at once, not after half a minute of loading.
"""

from pathlib import Path

from longheads.config import CHUNK_METHODS, GenerateConfig, PasskeyConfig, TraceConfig
from longheads.texts import occurrences, read_prompt
from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.runs import check_folder

PASSKEY_FOLDER = Path("runs") / "longheads-passkey"
TRACE_FOLDER = Path("runs") / "longheads-trace"


def generate(config: GenerateConfig, flags: RunFlags) -> int:
    """`longheads generate`."""
    text = read_prompt(config.prompt, config.prompt_file)
    if flags.out is not None:
        check_folder(flags.out, flags)
    from longheads.generate import run

    return run(config, flags, text)


def passkey(config: PasskeyConfig, flags: RunFlags) -> int:
    """`longheads passkey`."""
    out = flags.out or PASSKEY_FOLDER
    check_folder(out, flags)
    from longheads.passkey import run

    return run(config, flags, out)


def trace(config: TraceConfig, flags: RunFlags) -> int:
    """`longheads trace`."""
    if config.method not in CHUNK_METHODS:
        raise ConfigError(
            f"method {config.method!r} reads no chunks, so there is nothing to trace: use one of "
            f"{', '.join(CHUNK_METHODS)}"
        )
    text = read_prompt(config.prompt, config.prompt_file)
    starts = _needle_starts(text, config.needle)
    out = flags.out or TRACE_FOLDER
    check_folder(out, flags)
    from longheads.trace_command import run

    return run(config, flags, out, text, starts)


def _needle_starts(text: str, needle: str | None) -> list[int]:
    """Where the needle begins, every time."""
    if needle is None:
        return []
    if not needle.strip():
        raise DataError("--needle is empty: give a text of the prompt, or leave it out")
    starts = list(occurrences(text, needle))
    if not starts:
        raise DataError(f"--needle {needle!r} does not occur in the prompt")
    return starts
