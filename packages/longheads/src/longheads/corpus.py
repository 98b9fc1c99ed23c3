"""Long documents, one after another, from files, from the hub or from the miniature's world.

    corpus = open_corpus(["books/", "pg19"])
    for document in corpus:
        print(document.name, len(document.text))

A name is a path if there is something at it. No torch here, and no code from data sets is run.
"""

import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from longheads import hub_texts, world
from longheads.texts import read_prompt, read_text
from papercore.errors import DataError
from papercore.seeds import fan_out

logger = logging.getLogger(__name__)

__all__ = ["MAX_LINE_BYTES", "Corpus", "Document", "Part", "open_corpus", "text_files"]

MAX_LINE_BYTES = 1 << 28
"""Longer lines of JSONL are refused before they are read."""
JSONL = (".jsonl", ".jsonl.gz")
"""How names of JSONL files end."""
TEXT = (".txt", ".txt.gz")
"""How names of text files in a folder end."""
WORLD = "world"
WORLD_DOCUMENTS = 3


@dataclass(frozen=True)
class Document:
    """A text of a corpus.

    Attributes:
        index: its place, from 0.
        name: where it came from, for people.
        text: the text itself.
    """

    index: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """Texts from one place.

    Attributes:
        origin: where they come from and under what licence, for the run folder.
        is_local: whether they can be read twice at no cost.
        texts: reads names and texts.
    """

    origin: str
    is_local: bool
    texts: Callable[[], Iterator[tuple[str, str]]]


@dataclass(frozen=True)
class Corpus:
    """Documents in order; iterating reads them anew."""

    parts: tuple[Part, ...]

    def __iter__(self) -> Iterator[Document]:
        index = 0
        for part in self.parts:
            for name, text in part.texts():
                yield Document(index, name, text)
                index += 1

    @property
    def origin(self) -> str:
        """Where all parts come from."""
        return "; ".join(part.origin for part in self.parts)

    def check(self) -> str:
        """Reads all local texts, and the first text of each other part.

        Returns:
            Hash of the local texts.

        Raises:
            DataError: Something cannot be read, or there is no text.
        """
        digest = hashlib.sha256()
        for part in self.parts:
            found = False
            for _, text in part.texts():
                found = True
                if not part.is_local:
                    break
                digest.update(hashlib.sha256(text.encode()).digest())
            if not found:
                raise DataError(f"{part.origin}: holds no text")
        return digest.hexdigest()


def open_corpus(data: Sequence[str], *, seed: int = 0, world_tok: int = 4096) -> Corpus:
    """The documents that names stand for.

    Args:
        data: files, folders, `pg19`, `proof-pile`, `world`, or data sets of the hub.
        seed: seed of the documents of `world`.
        world_tok: words of each of them.

    Raises:
        DataError: There is no such thing, or nothing was named.
    """
    if not data:
        raise DataError(
            "there is no text to read: give --data FILE, FOLDER, pg19, proof-pile or owner/name"
        )
    parts: list[Part] = []
    for name in data:
        path = Path(name).expanduser()
        if path.exists():
            parts += [_file_part(file, alone=path.is_file()) for file in text_files(path)]
        elif name == WORLD:
            parts.append(_world_part(seed, world_tok))
        else:
            parts.append(_hub_part(name))
    return Corpus(tuple(parts))


def text_files(path: Path) -> list[Path]:
    """The file itself, or the texts and JSONL files of a folder in the order of their names.

    Raises:
        DataError: The folder holds none.
    """
    if not path.is_dir():
        return [path]
    endings = (*TEXT, *JSONL)
    found = sorted(file for file in path.iterdir() if file.name.endswith(endings))
    if not found:
        raise DataError(f"{path}: holds no file that ends in {', '.join(endings)}")
    others = sum(1 for _ in path.iterdir()) - len(found)
    if others:
        logger.warning(
            "%s: %d files or folders that do not end in %s are left out",
            *(path, others, ", ".join(endings)),
        )
    return found


def _file_part(path: Path, *, alone: bool) -> Part:
    if path.name.endswith(JSONL):
        return Part(str(path), is_local=True, texts=lambda: _jsonl_texts(path))
    return Part(str(path), is_local=True, texts=lambda: _text_file(path, alone=alone))


def _text_file(path: Path, *, alone: bool) -> Iterator[tuple[str, str]]:
    """The text; an empty one is a mistake if it was named, and too short if a folder holds it."""
    yield str(path), read_prompt(None, path) if alone else read_text(path)


def _jsonl_texts(path: Path) -> Iterator[tuple[str, str]]:
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            for number, line in _lines(path, cast("BinaryIO", file)):
                where = f"{path}:{number}"
                yield where, _text_of(where, line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{path}:{number}: the line has more than {MAX_LINE_BYTES >> 20} MiB")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


def _text_of(where: str, line: bytes) -> str:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise DataError(f"{where}: is not JSON") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise DataError(f'{where}: is not an object with a string "text"')
    return hub_texts.proper(where, row["text"])


def _world_part(seed: int, num_tok: int) -> Part:
    """Documents of the miniature's world, which its model can read and no other."""

    def texts() -> Iterator[tuple[str, str]]:
        rng = np.random.default_rng(fan_out(seed, "longheads/perplexity"))
        try:
            layout = world.Layout(num_tok, repeats=2)
        except ValueError as error:
            raise DataError(f"world: {error}") from None
        for place, ids in enumerate(world.write_documents(rng, WORLD_DOCUMENTS, layout).ids):
            yield f"world/{place}", world.to_text(ids)

    return Part("world: noise of the miniature, made here", is_local=True, texts=texts)


def _hub_part(name: str) -> Part:
    found = hub_texts.find(name)
    if found is None:
        raise DataError(
            f"{name}: no such file or folder, and no data set (pg19, proof-pile or owner/name)"
        )
    return Part(found.origin, is_local=False, texts=lambda: hub_texts.stream(found))
