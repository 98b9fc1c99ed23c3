"""What stands around trl's and transformers' trainers."""

import warnings

import huggingface_hub
import pytest
import torch
from peft import get_peft_model
from transformers import TrainingArguments
from transformers.utils import logging as transformers_logging

from papercore.errors import ModelError
from papercore.testing import tiny_model
from papercore.trainers import (
    activation_checkpointing,
    adapter_for,
    last_checkpoint,
    no_telemetry,
    num_processes,
    own_device,
    quiet,
)


def test_the_checkpoint_of_the_last_step_that_is_whole(tmp_path):
    assert last_checkpoint(tmp_path / "missing") is None
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None, "none was written to its end"
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_an_adapter_has_the_rank_and_layers_that_were_asked_for():
    model = tiny_model()
    found = adapter_for(model, name="it", r=3, alpha=6.0, targets=("q_proj", "down_proj"))
    with quiet():
        adapted = get_peft_model(model, found)
    sizes = {name: w.shape for name, w in adapted.named_parameters() if w.requires_grad}
    assert all(3 in shape for shape in sizes.values())
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in sizes} == {"q_proj", "down_proj"}
    assert adapted.base_model.model.model.layers[0].self_attn.q_proj.scaling == {"default": 2.0}


def test_layers_that_a_model_does_not_have_are_named():
    with pytest.raises(ModelError, match=r"it has no layers c_attn, wte: set --lora\.targets"):
        adapter_for(tiny_model(), name="it", r=1, alpha=1.0, targets=("c_attn", "q_proj", "wte"))


@pytest.mark.parametrize("wanted", [True, False])
def test_arguments_of_checkpointing_are_those_of_the_installed_transformers(wanted, tmp_path):
    found = TrainingArguments(
        str(tmp_path), use_cpu=True, **activation_checkpointing(wanted=wanted)
    )
    names = ("activation_checkpointing", "gradient_checkpointing")
    assert wanted in [getattr(found, name, None) for name in names]


def test_bars_are_off_inside_and_as_before_after(recwarn):
    transformers_logging.enable_progress_bar()
    with quiet():
        assert not transformers_logging.is_progress_bar_enabled()
        warnings.warn("`is_gradient_checkpointing` has a new name", FutureWarning, stacklevel=1)
    assert transformers_logging.is_progress_bar_enabled()
    assert not recwarn.list


def test_bars_that_were_off_stay_off():
    transformers_logging.disable_progress_bar()
    try:
        with quiet():
            pass
        assert not transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.enable_progress_bar()


def test_telemetry_is_off_unless_somebody_asked_for_it(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    no_telemetry()
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY is False
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    no_telemetry()
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY is True


def test_each_process_of_a_launch_has_its_own_device(monkeypatch):
    assert (own_device("auto"), num_processes()) == ("auto", 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (own_device("auto"), num_processes()) == ("cuda:3", 4)
    assert own_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device("auto") == "auto"
