"""A real endpoint on this machine: `transformers serve` over a saved model; imports no torch.

    with served(folder) as base_url:
        OpenAIGenerator(str(folder), base_url).generate(requests)

The server knows its model by the folder's path. It answers one request after another, and ignores
`n`, `logprobs` and `tool_choice`; it samples only if the checkpoint's generation config says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from papercore.testing.commands import free_port

__all__ = ["served"]

START_S = 240.0
"""Longest time until it is healthy. Source: measured, 17 to 39 s under load on two CPU cores."""
STOP_S = 20.0
"""Longest time to wait after SIGTERM."""


@contextmanager
def served(folder: Path, *, start_s: float = START_S) -> Iterator[str]:
    """Serves a saved model on the CPU in float32; gives the address, with `/v1`.

    Args:
        folder: Safetensors, a byte-level tokenizer with a decoder, and a chat template.

    Raises:
        RuntimeError: The server is not installed, ended early or did not become healthy.
    """
    script = shutil.which("transformers", path=str(Path(sys.executable).parent))
    if script is None:
        raise RuntimeError("`transformers serve` is not in this environment")
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        argv = [script, "serve", str(folder), "--device", "cpu", "--dtype", "float32"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--default-seed", "0"]
        with log.open("wb") as sink:
            server = subprocess.Popen(
                argv,
                env=_environment(scratch),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_healthy(server, port, log, start_s)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(server)


def _environment(scratch: str) -> dict[str, str]:
    quiet = {
        "HF_HUB_CACHE": scratch,  # it must exist, or the server fails
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **quiet}


def _wait_until_healthy(
    server: subprocess.Popen[bytes], port: int, log: Path, start_s: float
) -> None:
    deadline = time.monotonic() + start_s
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with {server.returncode}: {_end(log)}")
            try:
                if client.get(f"http://127.0.0.1:{port}/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
    raise RuntimeError(f"the server was not healthy within {start_s:g} s: {_end(log)}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _end(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-5:])
