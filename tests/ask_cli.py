"""Answers command lines of one package, each in a process of its own, which begins as a fork.

    python tests/ask_cli.py longheads < questions > answers

A question is a line of JSON, `{"words": [...], "cwd": "..."}`; an answer is one too, with `code`,
`out`, `err` and `heavy`, the heavy modules that the command imported. Importing the command line
is most of what a short command costs, and here it is paid once.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "vllm")


def main(package: str) -> None:
    """Answer questions until there are no more."""
    app = importlib.import_module(f"{package}.cli").APP
    warm(app)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            answers.write(json.dumps(ask(app, **json.loads(line))) + "\n")
            answers.flush()


def warm(app) -> None:
    """Import what every command line needs to be read; what this costs is nobody's import."""
    from papercore import flags  # noqa: F401  # reads flags, for all verbs
    from papercore.cli import load

    for verb in app.verbs:
        for path in (verb.config, verb.presets, verb.estimate):
            if path:
                load(path)


def ask(app, words: list[str], cwd: str) -> dict[str, object]:
    """What one command line answers."""
    with tempfile.TemporaryDirectory() as folder:
        out, err, heavy = (Path(folder) / name for name in ("out", "err", "heavy"))
        child = os.fork()
        if not child:
            os._exit(run(app, words, cwd, out, err, heavy))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = {"out": out.read_text("utf-8"), "err": err.read_text("utf-8")}
        return {"code": code, **said, "heavy": heavy.read_text("utf-8")}


def run(app, words: list[str], cwd: str, out: Path, err: Path, heavy: Path) -> int:
    """Run a command line in this process and end it as Python would."""
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    try:
        code = app.main(words)
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001  # as Python does
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    heavy.write_text(" ".join(name for name in HEAVY if name in sys.modules), "utf-8")
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    main(sys.argv[1])
