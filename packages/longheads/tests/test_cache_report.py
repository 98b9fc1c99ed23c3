"""The hit rate of a cache on the host, from records to report."""

import json

import pytest

from longheads import cache_report
from longheads.cli import APP
from papercore.records import Record
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer


def record(name, **cache):
    return Record(id=name, data={"cache": cache})


def test_pages_of_all_records_count_alike():
    records = [record("a", hits=1, misses=3), record("b", hits=8, misses=0), record("c")]
    found = cache_report.summarise(records)[cache_report.METRIC]
    assert (found.value, found.n) == (0.75, 12)
    (line,) = cache_report.lines(records)
    assert "0.75 of 12 pages" in line


@pytest.mark.parametrize("records", [[], [record("a")], [Record(id="a")]])
def test_without_offloading_there_is_no_rate(records):
    assert cache_report.summarise(records) == {}
    assert cache_report.lines(records) == []


@pytest.mark.parametrize("offload", [True, False])
def test_a_passkey_run_tells_its_hit_rate(capsys, tmp_path, offload):
    model, out = tmp_path / "model", tmp_path / "run"
    tiny_model("llama-gqa", max_position_embeddings=256).save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    words = ["passkey", "--model", model, "--out", out, "--lengths", 800, "--trials", 1]
    words += ["--task", "passkey", "--longheads.chunk-len", 8, "--longheads.window", 64]
    assert APP.main([str(word) for word in words + ["--longheads.offload"] * offload]) == 0
    (one,) = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert ("hits" in one["data"]["cache"]) == offload
    assert (cache_report.METRIC in metrics) == offload
    assert ("pages were on the device" in capsys.readouterr().err) == offload
