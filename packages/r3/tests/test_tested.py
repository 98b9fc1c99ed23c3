"""Looks at the test questions are written down, and other weights of one run are noticed."""

import json

import pytest
import torch
from safetensors.torch import save_file

from papercore.config import RunFlags
from r3.config import SFTConfig
from r3.folders import open_run
from r3.tested import LEDGER, note_test, weights_digest


def weights(folder, value):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": torch.full((300, 300), float(value))}, folder / "model.safetensors")
    return folder


@pytest.fixture
def trained(tmp_path):
    out = tmp_path / "run"
    open_run(out, SFTConfig(), RunFlags(), verb="sft", data_hash="d").close()
    weights(out / "model", 1)
    return out


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def look(data, model, run="r", digest="d", **more):
    return note_test(data, data=digest, model=str(model), run=run, **more)


def test_a_first_look_is_written_beside_the_model(trained, data):
    found = look(data, trained / "model")
    assert found.ledger == trained / LEDGER
    assert (found.num_before, found.warning) == (0, "")
    assert not (data / LEDGER).exists()
    entry = json.loads((trained / LEDGER).read_text())["tests"][0]
    assert str(trained) not in json.dumps(entry["lineage"])


def test_other_weights_of_the_same_run_are_noticed(trained, data):
    look(data, trained / "model")
    found = look(data, weights(trained / "checkpoints" / "checkpoint-5", 2), run="s")
    assert found.num_before == 1
    assert "looked at before with 1 other weights" in found.warning
    weights(trained / "model", 3)  # trained on
    assert look(data, trained / "model", run="t").num_before == 2


def test_the_same_weights_again_are_no_choice(trained, data):
    look(data, trained / "model", run="greedy")
    assert look(data, trained / "model", run="sampled").num_before == 0
    assert look(data, f"vllm:{trained / 'model'}", run="vllm").num_before == 0


def test_a_look_that_is_gone_on_with_is_written_once(trained, data):
    for _ in range(3):
        look(data, trained / "model")
    assert len(json.loads((trained / LEDGER).read_text())["tests"]) == 1


def test_other_questions_are_another_test(trained, data):
    look(data, trained / "model")
    weights(trained / "model", 2)
    assert look(data, trained / "model", digest="e").num_before == 0


def test_an_adapter_counts_as_the_weights(trained, data):
    look(data, "hub/base", adapter=str(weights(trained / "adapter", 1)))
    found = look(data, "hub/base", adapter=str(weights(trained / "adapter", 2)), run="s")
    assert (found.num_before, found.ledger) == (1, trained / LEDGER)


def test_models_of_others_are_written_down_with_the_data(data, tmp_path):
    assert look(data, "hub/one").ledger == data / LEDGER
    assert look(data, "hub/two").num_before == 0
    assert look(data, "openai:m@http://127.0.0.1/v1").num_before == 0
    folder = tmp_path / "foreign"
    assert look(data, weights(folder / "checkpoint-1", 1)).num_before == 0
    assert look(data, weights(folder / "checkpoint-2", 2)).num_before == 1
    assert look(data, weights(tmp_path / "another", 3)).num_before == 0


def test_a_ledger_that_cannot_be_written_is_said(data, monkeypatch, caplog):
    def refuse(path, document):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("r3.tested.write_json", refuse)
    assert look(data, "hub/one").ledger is None
    assert "cannot be written: Permission denied" in caplog.text


def test_a_broken_ledger_is_begun_anew(data, caplog):
    (data / LEDGER).write_text("{")
    assert look(data, "hub/one").ledger == data / LEDGER
    assert "begun anew" in caplog.text


def test_the_digest_sees_a_small_change_anywhere(tmp_path):
    plain = torch.zeros(1000, 1000)
    digests = set()
    for row in (None, 0, 500, 999):
        changed = plain.clone()
        if row is not None:
            changed[row] = 1.0
        save_file({"w": changed}, tmp_path / "model.safetensors")
        digests.add(weights_digest(tmp_path))
    assert len(digests) == 4
