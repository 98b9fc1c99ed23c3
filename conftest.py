"""What holds for every test here: a quiet, offline machine, and honest skips."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal

import pytest

# Set before anything heavy is imported; workers of xdist inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

# A shell starts what runs in its background deaf to Ctrl-C, and children inherit that; tests of
# interrupts need the default. This is in effect in the main process and in xdist's workers.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why; do not prepare a costly module twice."""
    for item in items:
        alone = item.get_closest_marker("slow") and not item.get_closest_marker("xdist_group")
        if alone and "module" in _scopes(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    reasons = {
        name: reason
        for name, missing in _CHECKS.items()
        if any(item.get_closest_marker(name) for item in items) and (reason := missing())
    }
    for item in items:
        for name, reason in reasons.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("vllm"):  # what vLLM and its torch warn of is not ours to fix
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def _scopes(item: pytest.Item) -> set[str]:
    """Scopes of the fixtures that a test uses."""
    info = getattr(item, "_fixtureinfo", None)
    return {found[-1].scope for found in info.name2fixturedefs.values()} if info else set()


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "this machine has no CUDA device"


def _no_module(module: str, reason: str) -> str:
    return "" if importlib.util.find_spec(module) else reason


def _no_browser() -> str:
    found = any(map(shutil.which, ("chromium", "chromium-browser", "chrome")))
    return "" if found else "no headless browser is on this machine"


_CHECKS = {
    "gpu": _no_gpu,
    "vllm": lambda: _no_module("vllm", "vLLM is not in this environment"),
    "browser": _no_browser,
}
