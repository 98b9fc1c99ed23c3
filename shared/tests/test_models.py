"""Model references, and loading with one line for everything that can be wrong."""

import json
import subprocess
import sys
import types

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from papercore.config import Config, RunFlags
from papercore.errors import ModelError
from papercore.models import (
    ModelRef,
    check_directory,
    describe,
    load_model,
    parse_ref,
    read_config,
    read_tokenizer,
)
from papercore.refs import id_or_directory
from papercore.runs import Run
from papercore.testing import assert_close, tiny_model
from papercore.testing.fixtures import model_cache, one_thread  # noqa: F401
from papercore.tiny import TinySpec, byte_tokenizer, cached_model, tiny_llama

# peft 0.21 asks transformers 5.23 for a name that version 6 drops.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.arange(12)[None]


@pytest.fixture
def saved(tmp_path):
    """A saved tiny Llama with its tokenizer, and the model itself."""
    model = tiny_model("llama-gqa")
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- references


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("meta-llama/Llama-2-7b-hf", ModelRef("hf", "meta-llama/Llama-2-7b-hf")),
        ("gpt2", ModelRef("hf", "gpt2")),
        ("vllm:Qwen/Qwen3-8B", ModelRef("vllm", "Qwen/Qwen3-8B")),
        ("tiny:longheads", ModelRef("tiny", "longheads")),
        ("tiny:self-cd", ModelRef("tiny", "self_cd")),
        (
            "openai:a/b@c@http://127.0.0.1:8000/v1/",
            ModelRef("openai", "a/b@c", "http://127.0.0.1:8000/v1"),
        ),
    ],
)
def test_references_are_parsed(text, ref):
    assert parse_ref(text) == ref


def test_a_directory_is_a_reference_even_with_a_colon(tmp_path):
    directory = tmp_path / "vllm:odd"
    directory.mkdir()
    assert parse_ref(str(directory)) == ModelRef("hf", str(directory))
    assert parse_ref(f"vllm:{directory}") == ModelRef("vllm", str(directory))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("vllm:", "empty"),
        ("~no-such-user/model", "no directory"),
        ("./nowhere", "no directory './nowhere'"),
        ("/no/such/place", "no directory"),
        ("a/b/c", "no directory"),
        ("hf:gpt2", "unknown scheme 'hf:'"),
        ("openai:gpt", "openai:<model>@<base_url>"),
        ("openai:@http://x", "openai:<model>@<base_url>"),
        ("openai:gpt@ftp://x", "http"),
        ("openai:gpt@https://me:hunter2@host/v1", "openai:gpt has a user"),
        ("openai:gpt@https://host/v1?key=hunter2", "openai:gpt has a user, a query"),
        ("tiny:", "names no package"),
        ("tiny:../x", "names no package"),
    ],
)
def test_bad_references_are_refused_in_one_line(text, reason):
    with pytest.raises(ModelError, match=reason) as caught:
        parse_ref(text)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@given(st.from_regex(r"(vllm:)?[\w-]{1,8}/[\w-]{1,8}", fullmatch=True))
def test_references_come_back_from_their_text(text):
    assert str(parse_ref(text)) == text


def test_parsing_needs_no_torch():
    code = (
        "import sys; from papercore.models import parse_ref; parse_ref('tiny:r3'); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- loading


def test_a_saved_model_is_the_same(saved):
    directory, model = saved
    loaded, tokenizer = load_model(str(directory), device="cpu")
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert not loaded.training
    assert tokenizer("hi")["input_ids"] == [104, 105]
    assert describe(loaded)["dtype"] == "float32"
    assert describe(loaded)["class"] == "LlamaForCausalLM"


def test_dtype_and_attention_are_those_asked_for(saved):
    loaded, _ = load_model(str(saved[0]), device="cpu", dtype="bfloat16", attn="eager")
    assert loaded.dtype is torch.bfloat16
    assert describe(loaded)["attention"] == "eager"


def test_config_overrides_change_what_they_name(saved):
    directory, model = saved
    rope = {"rope_type": "linear", "factor": 4.0}
    loaded, _ = load_model(str(directory), config_overrides={"rope_parameters": rope})
    built = tiny_model("llama-gqa", rope_parameters={"rope_theta": 10_000.0, **rope})
    built.load_state_dict(model.state_dict())
    assert_close(loaded(IDS).logits, built(IDS).logits, atol=1e-6)
    assert (loaded(IDS).logits - model(IDS).logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [({"no_such": 1}, "no setting 'no_such'"), ({"hidden_size": "wide"}, "config_overrides")],
)
def test_overrides_that_make_no_config_are_refused(saved, overrides, reason):
    with pytest.raises(ModelError, match=reason):
        load_model(str(saved[0]), config_overrides=overrides)


def refused(reason, ref, **settings):
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(str(ref), **settings)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("ref", ["../nosuch", "", "hf:gpt2"])
def test_who_loads_a_model_is_offered_what_can_be_loaded(ref):
    with pytest.raises(ModelError) as caught:
        load_model(ref)
    said = str(caught.value)
    assert said.endswith("use a hub id, a directory or tiny:<package>")
    assert "vllm:" not in said
    assert "openai:" not in said


def test_who_takes_an_id_or_a_directory_is_offered_these():
    with pytest.raises(ModelError, match=r"use a hub id or a directory$"):
        id_or_directory("../nosuch")


def test_references_for_generators_are_not_loaded():
    refused("can generate but not be loaded", "vllm:a/b")
    refused("can generate but not be loaded", "openai:m@http://x/v1")


def test_a_hub_that_is_not_reachable_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("hf download nobody/nothing", "nobody/nothing")


@pytest.mark.parametrize("lost", [True, False])
def test_a_hub_without_a_way_to_it_is_not_asked(monkeypatch, lost):
    """Its client would try again for half a minute, with a warning each time."""
    asked = {}
    monkeypatch.setattr("papercore.hub.unreachable", lambda: lost)
    for read, kind in ((read_config, "AutoConfig"), (read_tokenizer, "AutoTokenizer")):
        monkeypatch.setattr(
            f"transformers.{kind}.from_pretrained", lambda place, **how: asked.update({place: how})
        )
        asked.clear()
        read("a/b")
        assert asked["a/b"]["local_files_only"] is lost


def test_a_directory_needs_no_hub(monkeypatch, saved):
    monkeypatch.setattr("papercore.hub.unreachable", lambda: pytest.fail("the hub was looked for"))
    load_model(str(saved[0]))


def test_a_misspelt_directory_is_named_first(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for read in (read_config, read_tokenizer):
        with pytest.raises(ModelError) as caught:
            read("runs/r3x")
        said = str(caught.value)
        assert said.startswith(
            "there is no directory 'runs/r3x' here, and the hub cannot be reached (the "
        )
        assert said.endswith(
            "is not in its cache): check the name, run `hf download runs/r3x` where there is a "
            "network, or give a local directory"
        )
        assert "://" not in said


def from_the_hub(kind, status):
    """What transformers raises over an error of the hub."""

    def fails(*_, **__):
        request = types.SimpleNamespace(url="https://huggingface.co/a/b", method="GET")
        response = types.SimpleNamespace(headers={}, status_code=status, request=request)
        try:
            raise kind(f"{status} for https://huggingface.co/a/b", response=response)
        except kind as error:
            raise OSError(
                "a/b does not appear to be had for url: https://huggingface.co/a/b.\n"
                "Checkout 'https://huggingface.co/a/b' for more"
            ) from error

    return fails


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        (
            RepositoryNotFoundError,
            404,
            "^there is no directory 'a/b' here, and the hub has none of this name",
        ),
        (GatedRepoError, 403, "^a/b is private or gated: run `hf auth login`"),
        (
            HfHubHTTPError,
            503,
            r"^the config of 'a/b', .* \(a/b does not appear to be had\): .*`hf download a/b`",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_without_addresses(monkeypatch, kind, status, reason):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", from_the_hub(kind, status))
    with pytest.raises(ModelError, match=reason) as caught:
        read_config("a/b")
    assert "://" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_texts_of_others_end_at_a_word(monkeypatch):
    def fails(*_, **__):
        raise ValueError("word " * 100)

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", fails)
    with pytest.raises(ModelError, match=r"word \.\.\.\): check the name"):
        read_config("a/b")


# --- run folders


@pytest.fixture
def run_folder(tmp_path):
    """A run folder, with a config.json of its own."""
    flags = RunFlags()
    with Run.open(
        tmp_path / "run", Config(), flags, package="papercore", version="1", verb="train"
    ) as run:
        return run.folder


@pytest.mark.parametrize("read", [load_model, read_config, read_tokenizer])
def test_a_run_folder_says_where_its_model_is(run_folder, read):
    tiny_llama(259).config.save_pretrained(run_folder / "model")
    with pytest.raises(ModelError) as caught:
        read(str(run_folder))
    assert str(caught.value) == f"{run_folder} is a run folder; its model is {run_folder}/model"


def test_a_run_folder_without_a_model_is_refused(run_folder):
    refused(r"is a run folder; it has no model/: give a saved model", run_folder)


def test_a_directory_around_a_model_says_where_it_is(saved):
    outer = saved[0].parent
    refused(rf"{outer} has no config\.json of a model; {saved[0]} has one", outer)


def test_a_model_beside_another_is_loaded(saved):
    saved[1].save_pretrained(saved[0] / "model")
    check_directory(str(saved[0]))
    assert load_model(str(saved[0]))[0].num_parameters() == saved[1].num_parameters()


def test_a_run_folder_is_refused_before_anything_heavy(run_folder):
    (run_folder / "model").mkdir()
    (run_folder / "model" / "config.json").write_text("{}")
    code = (
        "import sys; from papercore.errors import ModelError; "
        "from papercore.models import load_model\n"
        f"try: load_model({str(run_folder)!r})\n"
        "except ModelError: sys.exit('torch' in sys.modules or 'transformers' in sys.modules)\n"
        "sys.exit('was loaded')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_directory_without_a_model_is_refused(tmp_path):
    refused("no config.json", tmp_path)


def test_a_damaged_config_is_refused(saved):
    (saved[0] / "config.json").write_text("{")
    refused("the config of .* cannot be read", saved[0])


def test_an_unknown_architecture_is_refused(saved):
    edit_config(saved[0], model_type="nonesuch")
    refused("nonesuch", saved[0])


def test_missing_weights_are_refused(saved):
    (saved[0] / "model.safetensors").unlink()
    refused("has no weights", saved[0])


def test_pickled_weights_are_refused(saved):
    directory, model = saved
    (directory / "model.safetensors").unlink()
    torch.save(model.state_dict(), directory / "pytorch_model.bin")
    refused("only pickled weights.*safetensors", directory)


def test_torn_weights_are_refused(saved):
    path = saved[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    refused("the weights of .* cannot be read", saved[0])


def test_weights_that_lack_tensors_are_refused(saved):
    edit_config(saved[0], num_hidden_layers=3)
    refused(r"lack 9 tensors, first model\.layers\.2", saved[0])


def test_a_missing_tokenizer_is_refused(saved):
    for path in saved[0].glob("tokenizer*"):
        path.unlink()
    refused("the tokenizer of", saved[0])


def test_too_little_memory_is_refused(saved, monkeypatch):
    monkeypatch.setattr("papercore.device.free_memory", lambda device: 1000)
    refused("GiB free", saved[0])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"quantization": "3bit"}, "unknown quantization '3bit'"),
        ({"dtype": "int3"}, "unknown dtype"),
        ({"device": "warp"}, "unknown device"),
        ({"attn": "telepathy"}, "telepathy"),
        ({"adapter": "./nowhere"}, "no directory './nowhere'"),
    ],
)
def test_unknown_settings_are_refused(saved, settings, reason):
    refused(reason, saved[0], **settings)


def test_quantization_without_bitsandbytes_says_how_to_get_it(saved, monkeypatch):
    monkeypatch.setattr("papercore.models._installed", lambda name: name != "bitsandbytes")
    refused("pip install bitsandbytes", saved[0], quantization="4bit")


# --- adapters


@pytest.fixture
def adapter(saved, tmp_path):
    """A saved LoRA adapter that does something, and the model with it."""
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(tiny_model("llama-gqa"), lora).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted


def test_an_adapter_is_merged(saved, adapter):
    directory, adapted = adapter
    loaded, _ = load_model(str(saved[0]), adapter=str(directory))
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert_close(loaded(IDS).logits, adapted(IDS).logits, atol=1e-5)
    assert (loaded(IDS).logits - saved[1](IDS).logits).abs().max() > 1e-3


def test_a_directory_without_an_adapter_is_refused(saved, adapter, tmp_path):
    refused(r"no adapter_config\.json", saved[0], adapter=str(tmp_path))
    (adapter[0] / "adapter_model.safetensors").unlink()
    refused(r"no adapter_model\.safetensors", saved[0], adapter=str(adapter[0]))


# --- miniatures


@pytest.fixture
def toy(monkeypatch):
    """An installed package `papercore` that has a miniature; returns its spec."""
    spec = TinySpec("papercore", {"seed": 0}, lambda: (tiny_llama(259), byte_tokenizer()))
    module = types.ModuleType("papercore.mini")
    module.tiny_spec = lambda seed: spec if seed == 0 else None
    monkeypatch.setitem(sys.modules, "papercore.mini", module)
    return spec


def test_a_miniature_comes_from_the_cache(toy, model_cache):  # noqa: F811
    model, _, _ = cached_model(toy)
    loaded, _ = load_model("tiny:papercore", device="cpu")
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_a_miniature_that_is_not_cached_names_the_command(toy, model_cache):  # noqa: F811
    refused("run `papercore mini --seed 0`", "tiny:papercore")


def test_a_package_without_a_miniature_is_refused():
    refused("no package no-such is installed", "tiny:no_such")
    refused("has no miniature model", "tiny:hypothesis")


@pytest.mark.gpu
def test_a_model_over_all_gpus_says_what_it_says_on_one(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    one, _ = load_model(str(tmp_path), device="cuda", dtype="float32")
    spread, _ = load_model(str(tmp_path), device="cuda:all", dtype="float32")
    ids = torch.arange(8, device="cuda")[None]
    assert_close(spread(ids).logits.cuda(), one(ids).logits, atol=1e-4)
