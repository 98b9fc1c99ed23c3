"""What the tests of all packages share: tiny models, comparisons, and running a command.

    from papercore.testing import assert_close, run_cli, tiny_model

The fixtures are in `papercore.testing.fixtures`, to be imported by a `conftest.py`.
"""

from papercore.testing.commands import free_port, run_cli
from papercore.testing.models import SHAPE, TINY, TinyKind, assert_close, tiny_model

__all__ = ["SHAPE", "TINY", "TinyKind", "assert_close", "free_port", "run_cli", "tiny_model"]
