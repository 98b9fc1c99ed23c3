"""`longheads perplexity` from the command line, on a small saved model."""

import json
import math

import pytest
import torch

from longheads import perplexity
from longheads.cli import APP
from longheads.config import PerplexityConfig
from longheads.perplexity import tokenize
from longheads.presets import PERPLEXITY, WINDOWS
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer, word_tokenizer

TEXT = "The boats lay in the harbour, and nobody was in a hurry to go anywhere. " * 6


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama-gqa", max_position_embeddings=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    byte_tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def texts(tmp_path):
    place = tmp_path / "texts"
    place.mkdir()
    (place / "a.txt").write_text(TEXT)
    (place / "b.txt").write_text("short")
    (place / "c.txt").write_text(TEXT[::-1])
    return place


def run(capsys, folder, out, *words):
    capsys.readouterr()
    fixed = ["perplexity", "--model", folder, "--out", out, "--longheads.chunk-len", 8]
    fixed += ["--longheads.window", 40, "--stride", 16, "--lengths", 64, 128]
    code = APP.main([str(word) for word in [*fixed, *words]])
    said = capsys.readouterr()
    return code, said.out, said.err


def lines(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def windows(out):
    return [one for one in lines(out) if not one["id"].startswith("perplexity/document/")]


def metrics(out):
    return json.loads((out / "summary.json").read_text())["metrics"]


def by_hand(model, text, length, stride):
    """Total loss and number of tokens, each window read from scratch."""
    ids = byte_tokenizer()(text)["input_ids"]
    total, count = 0.0, 0
    for end in range(length, len(ids) + 1, stride):
        window = torch.tensor([ids[end - length : end]])
        with torch.no_grad():
            logits = model(input_ids=window).logits[0].double().log_softmax(-1)
        for place in range(length - stride, length):
            total -= float(logits[place - 1, window[0, place]])
            count += 1
    return total, count


def test_the_same_number_as_by_hand(capsys, folder, model, texts, tmp_path):
    out = tmp_path / "run"
    words = ("--data", texts, "--method", "full", "--max-windows", 99)
    code, table, err = run(capsys, folder, out, *words)
    assert code == 0, err
    for length in (64, 128):
        sums = [by_hand(model, text, length, 16) for text in (TEXT, TEXT[::-1])]
        tokens = sum(count for _, count in sums)
        expected = math.exp(sum(total for total, _ in sums) / tokens)
        assert metrics(out)[f"perplexity_by_token/{length}"]["value"] == pytest.approx(
            expected, rel=1e-5
        )
        found = metrics(out)[f"perplexity/{length}"]  # the documents are of the same length
        assert found["value"] == pytest.approx(expected, rel=1e-5)
        assert found["n"] == 2
        assert found["lo"] <= found["value"] <= found["hi"]
        mine = [one["data"] for one in windows(out) if one["data"]["length"] == length]
        assert sum(data["scored_tok"] for data in mine) == tokens
    head = table.splitlines()[0]
    assert "stride 16, at most 99 windows of a document; 2 documents, 1 too short" in head
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["64", "128"]
    assert "report:" in err


def test_a_length_without_any_window_is_told_of(capsys, folder, texts, tmp_path):
    words = ("--data", texts, "--lengths", 64, 4096, "--min-tok", 64, "--max-windows", 1)
    code, table, err = run(capsys, folder, tmp_path / "run", *words)
    assert code == 0, err
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["64"]
    assert "no document was long enough for 4096 tokens" in err


def test_a_run_leaves_figure_table_and_report(capsys, folder, texts, tmp_path):
    out = tmp_path / "run"
    code, _, err = run(capsys, folder, out, "--data", texts, "--max-windows", 2)
    assert code == 0, err
    first, skipped = lines(out)[0], lines(out)[5]
    assert (first["id"], first["status"]) == ("perplexity/document/0", "ok")
    assert (skipped["id"], skipped["status"]) == ("perplexity/document/1", "skipped")
    assert skipped["error"] == "5 tokens, fewer than 128"
    assert {path.name for path in (out / "figures").iterdir()} >= {"perplexity.png"}
    assert (out / "tables" / "perplexity_documents.csv").is_file()
    assert len(windows(out)) == 2 * 2 * 2
    assert {one["data"]["method"] for one in windows(out)} == {"longheads"}
    assert str(texts / "a.txt") in json.loads((out / "env.json").read_text())["notes"]["data"]
    assert APP.main(["report", str(out), "--recheck"]) == 0


def test_a_run_that_was_stopped_goes_on_to_the_same_records(capsys, folder, texts, tmp_path):
    words = ("--data", texts, "--max-windows", 2)
    assert run(capsys, folder, tmp_path / "whole", *words)[0] == 0
    whole = (tmp_path / "whole" / "records.jsonl").read_text()
    assert run(capsys, folder, tmp_path / "cut", *words)[0] == 0
    cut = tmp_path / "cut" / "records.jsonl"
    cut.write_text("".join(whole.splitlines(keepends=True)[:3]) + '{"id": "perp')
    assert run(capsys, folder, tmp_path / "cut", *words)[0] == 2
    assert run(capsys, folder, tmp_path / "cut", *words, "--resume")[0] == 0
    assert cut.read_text() == whole


def test_other_texts_are_another_run(capsys, folder, texts, tmp_path):
    words = ("--data", texts, "--max-windows", 1)
    assert run(capsys, folder, tmp_path / "run", *words)[0] == 0
    (texts / "c.txt").write_text(TEXT.upper())
    code, _, err = run(capsys, folder, tmp_path / "run", *words, "--resume")
    assert (code, "data_hash" in err) == (2, True)


def test_a_window_that_fails_is_a_record_and_is_tried_again(
    capsys, folder, texts, tmp_path, monkeypatch
):
    honest = perplexity.token_losses

    def sometimes(model, ids, **options):
        if len(ids) == 128:
            raise RuntimeError("no\nluck")
        return honest(model, ids, **options)

    words = ("--data", texts, "--max-windows", 1)
    out = tmp_path / "run"
    monkeypatch.setattr(perplexity, "token_losses", sometimes)
    code, table, err = run(capsys, folder, out, *words)
    assert code == 1
    assert "2 windows failed and are left out, first: no luck" in err
    assert table.splitlines()[3].split() == ["128", "-", "-", "-", *"0002"]
    assert json.loads((out / "summary.json").read_text())["counts"] == {
        "ok": 4,
        "error": 2,
        "skipped": 1,
    }
    monkeypatch.setattr(perplexity, "token_losses", honest)
    code, table, _ = run(capsys, folder, out, *words, "--resume")
    assert code == 0
    assert table.splitlines()[3].split()[-1] == "0"


def test_a_model_of_nan_ends_the_run(capsys, texts, tmp_path):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    for method in ("full", "longheads"):
        code, out, err = run(
            capsys, tmp_path / "model", tmp_path / method, "--data", texts, "--method", method
        )
        assert (code, out) == (2, "")
        assert "not finite" in err.splitlines()[-1]


def test_texts_that_are_all_too_short_leave_nothing_behind(capsys, folder, texts, tmp_path):
    code, _, err = run(capsys, folder, tmp_path / "run", "--data", texts, "--lengths", 5000)
    assert code == 2
    assert f"the longest has {len(TEXT)} tokens, and 5000 are needed" in err
    assert not (tmp_path / "run").exists()


def test_shorter_documents_may_be_let_in(capsys, folder, texts, tmp_path):
    (texts / "b.txt").write_text(TEXT[:100])
    out = tmp_path / "run"
    words = ("--data", texts, "--min-tok", 64, "--max-windows", 3)
    assert run(capsys, folder, out, *words)[0] == 0
    used = {(one["data"]["length"], one["data"]["document"]) for one in windows(out)}
    assert used == {(64, 0), (64, 1), (64, 2), (128, 0), (128, 2)}


def test_limit_counts_documents_that_are_read(capsys, folder, texts, tmp_path):
    (texts / "0.txt").write_text("short")
    out = tmp_path / "run"
    assert run(capsys, folder, out, "--data", texts, "--limit", 1, "--max-windows", 1)[0] == 0
    assert {one["data"]["document"] for one in windows(out)} == {1}


def test_same_targets_count_the_same_tokens(capsys, folder, texts, tmp_path):
    out = tmp_path / "run"
    words = ("--data", texts, "--same-targets", "--max-windows", 3)
    assert run(capsys, folder, out, *words)[0] == 0
    ends = {64: set(), 128: set()}
    for one in (record["data"] for record in windows(out)):
        ends[one["length"]].add((one["document"], one["start"] + one["length"]))
    assert ends[64] == ends[128]


def test_blocks_are_read_once(capsys, folder, texts, tmp_path):
    out = tmp_path / "run"
    code, table, err = run(capsys, folder, out, "--data", texts, "--scheme", "block")
    assert code == 0, err
    assert "scheme block" in table
    starts = {one["data"]["start"] for one in windows(out) if one["data"]["document"] == 0}
    assert starts == set(range(0, len(TEXT) - 127, 128))
    assert {one["data"]["scored_tok"] for one in windows(out)} == {32, 64}


def test_bos_in_front_of_every_window_changes_the_number(capsys, folder, texts, tmp_path):
    words = ("--data", texts, "--max-windows", 2, "--lengths", 64, "--method", "full")
    found = {}
    for bos in ("none", "window"):
        code, _, err = run(capsys, folder, tmp_path / bos, *words, "--bos", bos)
        assert code == 0, err
        found[bos] = metrics(tmp_path / bos)["perplexity/64"]["value"]
    assert found["none"] != found["window"]


def test_bos_needs_a_bos_token(capsys, model, texts, tmp_path):
    place = tmp_path / "model"
    model.save_pretrained(place)
    word_tokenizer(sorted(set(TEXT.split()))).save_pretrained(place)
    code, _, err = run(capsys, place, tmp_path / "run", "--data", texts, "--bos", "window")
    assert (code, "has no BOS token" in err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_special_tokens_stand_before_a_document_only_and_never_behind_it():
    class Adds:
        eos_token_id = 2

        def __call__(self, text, *, add_special_tokens, verbose):
            return {"input_ids": [1, 5, 6, 2] if add_special_tokens else [5, 6]}

    assert tokenize(Adds(), "x", "document") == (1, 5, 6)
    assert tokenize(Adds(), "x", "window") == tokenize(Adds(), "x", "none") == (5, 6)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--stride", "65"], "stride=65 is longer than the shortest length, 64"),
        (["--lengths", "64", "64"], "twice"),
        (["--lengths", "1", "--stride", "1"], "no token to predict"),
        (["--scheme", "block", "--same-targets"], "same_targets"),
        ([], "there is no text to read"),
        (["--data", "absent.txt"], "absent.txt: no such file"),
    ],
)
def test_bad_settings_are_one_line(capsys, tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "no-such-model", "out", *words, *([] if words else ["--data"]))
    assert code == 2
    assert reason in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_same_presets_as_everywhere():
    assert list(PERPLEXITY) == ["tiny", "paper", "official-readme", "modern"]
    assert PERPLEXITY["paper"].longheads == WINDOWS["author-passkey"]
    assert PERPLEXITY["paper"].stride == PerplexityConfig().stride == 256


VERBS = ("generate", "passkey", "longbench", "ablate", "perplexity", "trace")


def dry(verb, caplog, *words):
    """What a dry run warns of."""
    caplog.clear()
    assert APP.main([verb, *words, "--dry-run"]) == 0
    return caplog.text


@pytest.mark.parametrize("verb", VERBS)
def test_a_real_model_on_settings_of_the_miniature_is_warned_of(capsys, caplog, verb):
    said = dry(verb, caplog, "--model", "some/Real")
    assert "no preset was named, so some/Real runs with settings of 'tiny'" in said
    assert "longheads.chunk_len=16 longheads.window=256" in said
    assert "name a preset (paper, official-readme, modern)" in said
    assert not dry(verb, caplog)
    assert not dry(verb, caplog, "--model", "tiny:other")
    for preset in ("tiny", "paper"):
        assert not dry(verb, caplog, preset, "--model", "some/Real")


def test_only_settings_that_nobody_gave_are_warned_of(capsys, caplog):
    words = ["--model", "some/Real", "--longheads.chunk-len", "256", "--longheads.window", "auto"]
    words += ["--prefill-tok", "4096", "--data", "b", "--lengths", "4096", "--stride", "256"]
    assert "a miniature: max_windows=4; name" in dry("perplexity", caplog, *words)
    assert not dry("perplexity", caplog, *words, "--max-windows", "9")


def test_a_dry_run_says_what_is_read(capsys):
    words = ["--data", "pg19", "--lengths", "4096", "--max-windows", "10"]
    assert APP.main(["perplexity", "paper", *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "# windows: 10 of 4096 tokens in a document of 100000 tokens" in said
    assert "pg19 (about 10120713 tokens)" in said
