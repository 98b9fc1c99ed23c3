import json

import pytest

from papercore.errors import DataError
from self_cd.bounds import bound_file, bound_of, remember_bound
from self_cd.config import CalibrateConfig, RunAnswersConfig, SelfCDConfig


def config(**changes):
    return CalibrateConfig(model="owner/model", **changes)


def remember(upper=2.1, made=None, digest="d1", model="owner/model"):
    return remember_bound(model, made or config(), digest, upper, keep=0.99, num_true=40)


def test_a_bound_comes_back_and_the_latest_counts(model_cache):
    assert bound_of("owner/model", config(), "d1") is None
    path = remember(2.1)
    assert path.is_relative_to(model_cache / "self-cd" / "bounds")
    assert bound_of("owner/model", config(), "d1") == 2.1
    assert json.loads(path.read_text())["num_true"] == 40
    assert remember(1.5) == path
    assert bound_of("owner/model", config(), "d1") == 1.5


def test_a_bound_belongs_to_model_adapter_quantization_and_prompts(model_cache):
    remember()
    assert bound_of("owner/other", config(), "d1") is None
    assert bound_of("owner/model", config(), "d2") is None
    assert bound_of("owner/model", config(adapter="owner/lora"), "d1") is None
    assert bound_of("owner/model", config(quantization="4bit"), "d1") is None
    # other commands and other strengths of the same model have it
    other = RunAnswersConfig(model="owner/model", contrast=SelfCDConfig(alpha=1.5), seed=3)
    assert bound_of("owner/model", other, "d1") == 2.1


def test_a_folder_is_the_same_from_everywhere(model_cache, tmp_path, monkeypatch):
    folder = tmp_path / "here" / "model"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    remember(model="here/model")
    monkeypatch.chdir(tmp_path / "here")
    assert bound_of("model", config(), "d1") == 2.1
    assert bound_of(str(folder), config(), "d1") == 2.1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema": 1, "upper": null}'])
def test_a_broken_file_is_named(model_cache, content):
    path = remember()
    path.write_text(content)
    with pytest.raises(DataError, match=path.name):
        bound_of("owner/model", config(), "d1")
    assert bound_file("owner/model", config(), "d1") == path
