"""The cache of trained miniature models, so that a demonstration need not train twice.

    model, tokenizer, from_cache = cached_model(tiny_spec(seed=0))

An entry is keyed by the config of the model, the source of its package and of the core, and the
versions of torch and transformers: a changed line gives another key. The cache is in
`$PAPERCORE_CACHE`, by default in the user's cache directory.
"""

import hashlib
import importlib.util
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch
import transformers
from pydantic import BaseModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from papercore.config import plain
from papercore.errors import ModelError
from papercore.files import cache_dir

logger = logging.getLogger(__name__)

Built = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class TinySpec:
    """A miniature model: what it is keyed by, and how to make it.

    Attributes:
        package: Import name of the package that owns it.
        config: Everything that the weights depend on, the seed included.
        build: Makes and trains model and tokenizer.
        load: Reads them back from a directory; by default through the transformers class that the
            saved config names. A package with a model class of its own gives its own.
    """

    package: str
    config: Mapping[str, object] | BaseModel
    build: Callable[[], Built]
    load: Callable[[Path], Built] | None = None

    @property
    def key(self) -> str:
        """Hash of the config, the source of package and core, and the versions below them."""
        config = self.config
        parts = {
            "config": plain(config) if isinstance(config, BaseModel) else dict(config),
            "source": {name: source_hash(name) for name in ("papercore", self.package)},
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def directory(self) -> Path:
        """Where the cache keeps this model, whether or not it is there."""
        return cache_dir() / "models" / self.package / self.key


def cached_model(
    spec: TinySpec, *, refresh: bool = False, store: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, bool]:
    """Model and tokenizer of a spec, and whether they came from the cache.

    A model that was just built is saved and read back like a cached one, so that a cold and a warm
    cache give the same model. Two processes that want the same model build it once.

    Args:
        refresh: Build it even if it is there.
        store: Whether to use the cache at all; models of quick runs must not.
    """
    if not store:
        with tempfile.TemporaryDirectory() as folder:
            return *_build(spec, Path(folder)), False
    spec.directory.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(spec.directory.with_suffix(".lock")):
        if not refresh and (found := find_model(spec)) is not None:
            return *found, True
        temporary = Path(tempfile.mkdtemp(prefix=f"{spec.key}.", dir=spec.directory.parent))
        try:
            built = _build(spec, temporary)
            shutil.rmtree(spec.directory, ignore_errors=True)
            temporary.rename(spec.directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return *built, False


def find_model(spec: TinySpec) -> Built | None:
    """The cached model of a spec, or `None`; an unreadable entry is reported and ignored."""
    if not spec.directory.is_dir():
        return None
    try:
        return _read(spec, spec.directory)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        logger.warning(
            "the cached model %s cannot be read (%s): it is ignored", spec.directory, error
        )
        return None


def source_hash(package: str) -> str:
    """Hash of the names and bytes of all Python files of an importable package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"no package {package!r} is installed")
    digest = hashlib.sha256()
    for location in found.submodule_search_locations:
        for path in sorted(Path(location).rglob("*.py")):
            name, source = str(path.relative_to(location)).encode(), path.read_bytes()
            digest.update(b"%d %s %d " % (len(name), name, len(source)) + source)
    return digest.hexdigest()


def _build(spec: TinySpec, folder: Path) -> Built:
    """Builds, saves and reads back; the caller's random state is left as it was."""
    with torch.random.fork_rng():
        model, tokenizer = spec.build()
    with _no_progress_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return _read(spec, folder)


def _read(spec: TinySpec, folder: Path) -> Built:
    with _no_progress_bars():
        model, tokenizer = (spec.load or _load)(folder)
    return model.eval(), tokenizer  # type: ignore[no-untyped-call]


def _load(folder: Path) -> Built:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config["architectures"][0]
    model_class = getattr(transformers, name, None)
    if model_class is None:
        raise ModelError(f"transformers has no class {name}: give TinySpec a load of its own")
    model = model_class.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """A bar for a file of a few hundred kilobytes would only be noise."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()  # type: ignore[no-untyped-call]
