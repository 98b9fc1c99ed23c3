"""A folder that comes to be as a whole or not at all, whatever dies on the way.

    writing = WholeFolder(path, accelerator)
    writing.tensors("weights.safetensors", {"w": w})
    writing.json("about.json", {"step": 3})
    writing.finish()

It is written beside its place, synced, and renamed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from papercore.errors import DataError
from papercore.rl.parallel import agree, is_first

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["WholeFolder", "remove_whole"]

logger = logging.getLogger(__name__)


class WholeFolder:
    """Writes a folder beside its place and puts it there.

    All processes make one and finish it; the first one writes. An error is kept until `finish`,
    which raises it in all processes, so that none waits for one that has given up.
    """

    def __init__(self, path: Path, accelerator: Accelerator | None) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.tmp")
        self._accelerator = accelerator
        self._problem = ""
        self._first(self._begin)

    def tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes a file of safetensors."""
        self._first(lambda: save_file(dict(tensors), self._beside / name))

    def json(self, name: str, document: Mapping[str, JsonValue]) -> None:
        """Writes a file of JSON; all numbers must be finite."""
        text = json.dumps(document, indent=1, allow_nan=False)
        self._first(lambda: (self._beside / name).write_text(text, encoding="utf-8"))

    def together(self, accelerator: Accelerator, write: Callable[[Path], object]) -> None:
        """Lets every process write its part of something, given the folder to write to."""
        accelerator.wait_for_everyone()
        write(self._beside)
        accelerator.wait_for_everyone()

    def finish(self) -> None:
        """Puts the folder in its place, instead of one that is there.

        Raises:
            DataError: It could not be written, for instance because the disk is full. What was
                there before is as it was.
        """
        self._first(self._publish)
        failed = agree(bool(self._problem), self._accelerator)
        if failed:
            raise DataError(
                f"{self._path} cannot be written ({self._problem or 'the first process failed'}): "
                "make room, then go on with --resume from what was saved before"
            )

    def _first(self, action: Callable[[], object]) -> None:
        if self._problem or not is_first(self._accelerator):
            return
        try:
            action()
        except (OSError, SafetensorError) as error:
            self._problem = " ".join(str(error).split())
            shutil.rmtree(self._beside, ignore_errors=True)

    def _begin(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for left in self._path.parent.glob(".*.tmp"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._beside.mkdir()

    def _publish(self) -> None:
        for file in [*self._beside.rglob("*"), self._beside]:
            _sync(file)
        if self._path.exists():  # of a session that was killed after it
            remove_whole(self._path)
        self._beside.rename(self._path)
        _sync(self._path.parent)


def remove_whole(path: Path) -> None:
    """Deletes a folder in a way that never leaves a part of it under its name.

    What cannot be deleted stays, with a warning: the run does not depend on it.
    """
    doomed = path.with_name(f".{path.name}.old.tmp")
    try:
        path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        logger.warning("%s could not be deleted: %s", path, error.strerror)


def _sync(path: Path) -> None:
    """Forces a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
