"""Model references, and loading what they point to.

    ref = parse_ref("tiny:longheads")
    model, tokenizer = load_model("meta-llama/Llama-2-7b-hf", dtype="bfloat16", attn="sdpa")

References are explained in `papercore.refs`. Weights are read from safetensors only, and no code
that comes with a model is run. Importing this module loads no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from papercore import hub
from papercore.config import merge
from papercore.errors import ModelError
from papercore.refs import ModelRef, directory, id_or_directory, parse_ref
from papercore.runs import is_run_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from papercore.tiny import TinySpec

__all__ = [
    "ModelRef",
    "check_directory",
    "describe",
    "load_model",
    "parse_ref",
    "read_config",
    "read_tokenizer",
]

logger = logging.getLogger(__name__)


def load_model(
    ref: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attn: str | None = None,
    quantization: str | None = None,
    adapter: str | None = None,
    config_overrides: Mapping[str, object] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a causal language model and its tokenizer, in evaluation mode.

    Args:
        ref: Hub id, directory, or `tiny:<package>`, which is float32 unless another dtype is given.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, or `cuda:all`, which spreads the layers.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        attn: Attention implementation of transformers; its default if `None`.
        quantization: `4bit` or `8bit`, by bitsandbytes.
        adapter: Directory or hub id of a peft adapter. It is merged into the weights, or stays
            attached if they are quantized.
        config_overrides: Settings of the model's config to change; those that are mappings, such as
            `rope_parameters`, are changed key by key.

    Raises:
        ModelError: One line that says what is missing or wrong and what to do about it.
    """
    parsed = parse_ref(ref, loads=True)
    place = _locate(parsed)
    from papercore.device import EVERY_GPU, choose_device, choose_dtype

    config = _with_overrides(read_config(place), config_overrides or {})
    wanted = "float32" if (parsed.kind, dtype) == ("tiny", "auto") else dtype
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(wanted, chosen_device.value, getattr(config, "dtype", None))
    logger.info(
        "loading %s on %s (%s) in %s (%s)",
        *(ref, chosen_device.value, chosen_device.reason, chosen_dtype.value, chosen_dtype.reason),
    )
    if device != EVERY_GPU:  # accelerate looks at the memory of each device
        _check_weights(place, chosen_device.value, chosen_dtype.value, config)
    tokenizer = read_tokenizer(place)
    model = _read_weights(
        place,
        config,
        device="auto" if device == EVERY_GPU else chosen_device.value,
        dtype=chosen_dtype.value,
        attn=attn,
        quantization=_quantization_config(quantization, chosen_dtype.value),
    )
    if adapter is not None:
        model = _with_adapter(model, adapter, merge=quantization is None)
    return model.eval(), tokenizer  # type: ignore[no-untyped-call]


def describe(model: PreTrainedModel) -> dict[str, str]:
    """What a loaded model runs as, for the run folder."""
    # There is no public way to ask for the attention implementation (transformers 5.23).
    return {
        "class": type(model).__name__,
        "name": str(model.name_or_path),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": str(model.config._attn_implementation),
        "parameters": str(model.num_parameters()),
    }


def check_directory(place: str) -> None:
    """Refuses a directory that holds a model one level down, as a run folder does, or none.

    Ask before something heavy is imported or loaded. What is no directory passes.

    Raises:
        ModelError: It is a run folder, or the model is in its `model/`.
    """
    found = directory(place)
    if found is None:
        return
    inside = found / "model"
    holds_one = (inside / "config.json").is_file()
    if is_run_folder(found):
        told = f"its model is {inside}" if holds_one else "it has no model/: give a saved model"
        raise ModelError(f"{found} is a run folder; {told}")
    if holds_one and not (found / "config.json").is_file():
        raise ModelError(f"{found} has no config.json of a model; {inside} has one")


def _locate(ref: ModelRef) -> str:
    """Directory or hub id that transformers can read."""
    if ref.kind in ("vllm", "openai"):
        raise ModelError(f"{ref} can generate but not be loaded: give a hub id or a directory")
    if ref.kind == "tiny":
        return str(_tiny_directory(ref.name))
    check_directory(ref.name)
    found = directory(ref.name)
    if found is None:
        return ref.name
    if not (found / "config.json").is_file():
        raise ModelError(f"{found} has no config.json: give the directory of a saved model")
    return str(found)


def _tiny_directory(package: str) -> Path:
    """Where the cache holds the miniature of a package, of seed 0."""
    script = package.replace("_", "-")
    if not _installed(package):
        raise ModelError(f"tiny:{package}: no package {script} is installed")
    try:
        spec: TinySpec = importlib.import_module(f"{package}.mini").tiny_spec(seed=0)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ModelError(f"tiny:{package}: {script} has no miniature model ({error})") from error
    if not spec.directory.is_dir():
        raise ModelError(
            f"tiny:{package} is not in the cache, or was made by another version: "
            f"run `{script} mini --seed 0` once"
        )
    return spec.directory


def read_config(place: str) -> PreTrainedConfig:
    """The config of a hub id or directory.

    Raises:
        ModelError: It cannot be read.
    """
    check_directory(place)
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            place, trust_remote_code=False, local_files_only=_must_be_here(place)
        )
    except _read_errors() as error:
        raise _unreadable("the config", place, error) from error
    return config


def _with_overrides(config: PreTrainedConfig, changes: Mapping[str, object]) -> PreTrainedConfig:
    """A config built anew from changed settings, so that transformers checks them."""
    if not changes:
        return config
    before = config.to_dict()
    if unknown := sorted(changes.keys() - before.keys()):
        raise ModelError(f"{type(config).__name__} has no setting {unknown[0]!r} to change")
    try:
        changed = type(config).from_dict(merge(before, changes))
    except _read_errors() as error:
        raise ModelError(f"config_overrides {dict(changes)}: {_one_line(error)}") from error
    changed.name_or_path = config.name_or_path
    return changed


def read_tokenizer(place: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or directory; it pads on the left.

    Raises:
        ModelError: It cannot be read.
    """
    check_directory(place)
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            place,
            trust_remote_code=False,
            padding_side="left",
            local_files_only=_must_be_here(place),
        )
    except _read_errors() as error:
        raise _unreadable("the tokenizer", place, error) from error
    return tokenizer


def _check_weights(
    place: str, device: torch.device, dtype: torch.dtype, config: PreTrainedConfig
) -> None:
    """Refuses a local directory without safetensors, or with more than memory has room for."""
    found = directory(place)
    if found is None:
        return
    files = list(found.glob("*.safetensors"))
    if not files:
        pickled = any(found.glob("*.bin")) or any(found.glob("*.pt*"))
        problem = "only pickled weights, which can run code" if pickled else "no weights"
        raise ModelError(f"{place} has {problem}: convert or download them as *.safetensors")
    from papercore.device import require_free_memory

    saved = getattr(config, "dtype", None) or dtype
    num_bytes = sum(file.stat().st_size for file in files) * dtype.itemsize // saved.itemsize
    require_free_memory(num_bytes, device, f"the weights of {place} in {dtype}")


def _read_weights(
    place: str,
    config: PreTrainedConfig,
    *,
    device: torch.device | Literal["auto"],
    dtype: torch.dtype,
    attn: str | None,
    quantization: object | None,
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        with _without_progress_bars():
            loaded = AutoModelForCausalLM.from_pretrained(
                place,
                config=config,
                dtype=dtype,
                attn_implementation=attn,
                quantization_config=quantization,
                device_map="auto" if device == "auto" else {"": device},
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=_must_be_here(place),
                output_loading_info=True,
            )
    except _read_errors() as error:
        raise _unreadable("the weights", place, error) from error
    model, report = cast("tuple[PreTrainedModel, Mapping[str, set[str]]]", loaded)
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers would go on with random numbers in their place.
        raise ModelError(f"the weights of {place} lack {len(missing)} tensors, first {missing[0]}")
    return model


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing while it reads weights; downloads still draw."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    downloads_shown = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if downloads_shown:
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if not downloads_shown:
            disable_progress_bars()


def _quantization_config(quantization: str | None, dtype: torch.dtype) -> object | None:
    if quantization is None:
        return None
    if quantization not in ("4bit", "8bit"):
        raise ModelError(f"unknown quantization {quantization!r}: use 4bit or 8bit")
    if not _installed("bitsandbytes"):
        raise ModelError(f"{quantization} weights need bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _with_adapter(model: PreTrainedModel, adapter: str, *, merge: bool) -> PreTrainedModel:
    if not _installed("peft"):
        raise ModelError(f"the adapter {adapter} needs peft: pip install peft")
    found = directory(adapter)
    place = id_or_directory(adapter) if found is None else str(found)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if found is not None and not (found / name).is_file():
            raise ModelError(f"{found} has no {name}: give the directory of a saved peft adapter")
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, place)
    except _read_errors() as error:
        raise _unreadable("the adapter", adapter, error) from error
    # A PeftModel is no PreTrainedModel, but passes on all that one has.
    return cast("PreTrainedModel", adapted.merge_and_unload() if merge else adapted)


def _must_be_here(place: str) -> bool:
    """Whether a name on the hub can only be in its cache, since the hub cannot be reached."""
    return directory(place) is None and hub.unreachable()


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _read_errors() -> tuple[type[Exception], ...]:
    """What transformers raises over files and settings that it cannot take."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    plain = (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError)
    return (*plain, SafetensorError, StrictDataclassError)


def _unreadable(what: str, place: str, error: Exception) -> ModelError:
    """One line for the many ways in which transformers fails to read something."""
    if Path(place).is_dir():
        return ModelError(f"{what} of {place} cannot be read: {_one_line(error)}")
    from huggingface_hub import errors

    said = str(error).replace(place, "")
    if "gated" in said.lower() or "401" in said or _came_from(error, errors.GatedRepoError):
        return ModelError(
            f"{place} is private or gated: run `hf auth login` first, or give a directory"
        )
    missing = f"there is no directory {place!r} here, and the hub"
    if _came_from(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{missing} has none of this name, or a private one: check the name, run `hf auth "
            "login` if it is private, or give a local directory"
        )
    unreached = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    if _came_from(error, *unreached):
        return ModelError(
            f"{missing} cannot be reached ({what} is not in its cache): check the name, run "
            f"`hf download {place}` where there is a network, or give a local directory"
        )
    return ModelError(
        f"{what} of {place!r}, a name on the hub and no directory here, cannot be had "
        f"({_first_sentence(error)}): check the name, run `hf download {place}` where there is a "
        "network, or give a local directory"
    )


def _came_from(error: BaseException, *kinds: type[Exception]) -> bool:
    """Whether an error, or one that it was raised over, is of some kind."""
    over: BaseException | None = error
    while over is not None:
        if isinstance(over, kinds):
            return True
        over = over.__cause__ or over.__context__
    return False


def _first_sentence(error: Exception) -> str:
    """Of a text of transformers, which goes on with advice; without addresses."""
    first = re.split(r"(?<=[.!?])\s|\n", str(error).strip(), maxsplit=1)[0]
    plain = re.sub(r"(\b(for url:?|at|on|to)\s+)?['\"(<]*https?://\S*", "", first)
    text = " ".join(plain.split()).rstrip(" .:,") or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200].rpartition(' ')[0]} ..."


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
