"""Prompts of exact length, exact matches, and runs that go on after failures."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longheads import passkey, passkey_report
from longheads.cli import APP
from longheads.config import PasskeyConfig
from longheads.passkey_prompts import (
    FILLER,
    NEEDLE,
    SLACK_TOK,
    fit,
    passkey_text,
    trial_id,
    write_trial,
)
from longheads.texts import encode
from longheads.world import WORDS
from papercore.errors import ConfigError, ModelError
from papercore.records import Record
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer, tiny_llama, word_tokenizer

BYTES = byte_tokenizer()
WORLD = word_tokenizer(WORDS)
ENGLISH = word_tokenizer(sorted(set(passkey_text(7, 0.5, 400).split())))
SHORT = len(encode(BYTES, passkey_text(10_000, 0.0, 0)).ids)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tiny_llama(51, seed=3).save_pretrained(place)
    WORLD.save_pretrained(place)
    return place


def run(capsys, folder, out, *words):
    capsys.readouterr()
    fixed = ["passkey", "--model", folder, "--out", out, "--longheads.chunk-len", 8]
    code = APP.main([str(word) for word in [*fixed, "--longheads.window", 40, *words]])
    said = capsys.readouterr()
    return code, said.out, said.err


def lines(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


# prompts


@settings(deadline=None, max_examples=40)
@given(st.integers(SHORT, 3000), st.integers(0, 99), st.integers(0, 9))
def test_a_prompt_of_bytes_is_as_long_as_asked_and_holds_its_key_twice(length, index, seed):
    trial = write_trial(BYTES, "passkey", length=length, index=index, seed=seed)
    assert length - SLACK_TOK <= len(trial.ids) <= length
    text = BYTES.decode(list(trial.ids))
    assert text.count(trial.expected) == 2
    first, second = trial.keys
    for key in (first, second):
        assert BYTES.decode([trial.ids[place] for place in key]) == trial.expected
    needle = BYTES.decode([trial.ids[place] for place in trial.needle])
    assert needle == NEEDLE.format(key=trial.expected)
    assert BYTES.decode(list(trial.expected_ids)) == f" {trial.expected}"


@settings(deadline=None, max_examples=20)
@given(st.integers(80, 600), st.integers(0, 99))
def test_a_prompt_of_words_is_never_longer_than_asked(length, index):
    trial = write_trial(ENGLISH, "passkey", length=length, index=index)
    assert length - SLACK_TOK <= len(trial.ids) <= length


@settings(deadline=None, max_examples=20)
@given(st.integers(19, 700), st.integers(0, 99))
def test_a_prompt_of_the_world_is_exactly_as_long_as_asked(length, index):
    trial = write_trial(WORLD, "world", length=length, index=index)
    assert len(trial.ids) == length
    asked = trial.ids[-1]
    for place in trial.keys:
        assert [trial.ids[p] for p in place] == [asked, *trial.expected_ids]


@given(st.integers(1, 60), st.integers(0, 500), st.integers(500, 2000))
def test_fit_never_passes_the_limit_and_stops_within_the_slack(per_tok, fixed, limit):
    calls = []

    def count(amount):
        calls.append(amount)
        return fixed + amount // per_tok

    amount = fit(count, limit)
    assert limit - SLACK_TOK <= fixed + amount // per_tok <= limit
    assert len(calls) < 40


def test_fit_takes_what_it_can_get_where_tokens_come_in_leaps():
    assert fit(lambda amount: 10 + 8 * (amount // 5), 30) in range(10, 15)


def test_filler_is_cut_at_the_depth():
    before, after = passkey_text(123, 0.25, 40).split("\nThe access number is 123.")
    assert before.endswith("\n" + FILLER[:10])
    assert f"\n{FILLER[:30]}\n" in after


def test_the_same_trial_twice_and_different_ones():
    one = write_trial(BYTES, "passkey", length=900, index=3)
    assert one == write_trial(BYTES, "passkey", length=900, index=3)
    others = [(901, 3, 0), (900, 4, 0), (900, 3, 1)]
    for length, index, seed in others:
        other = write_trial(BYTES, "passkey", length=length, index=index, seed=seed)
        assert (other.expected, other.depth) != (one.expected, one.depth)


def test_keys_and_depths_are_spread():
    trials = [write_trial(BYTES, "passkey", length=600, index=index) for index in range(200)]
    depths = sorted(trial.depth for trial in trials)
    assert depths[0] < 0.05
    assert depths[-1] > 0.95
    assert 0.4 < sum(depths) / 200 < 0.6
    keys = [int(trial.expected) for trial in trials]
    assert len(set(keys)) > 190
    assert min(keys) >= 1
    assert max(keys) < 50_000


def test_which_chunks_hold_the_needle_by_hand():
    trial = write_trial(WORLD, "world", length=100, index=0)
    start = trial.needle[0]
    assert trial.needle == tuple(range(start, start + 4))
    assert trial.keys == ((start, start + 1), (start + 2, start + 3))
    assert trial.needle_chunks(4) == sorted({start // 4, (start + 3) // 4})
    assert trial.key_split(4) == (start % 2 == 1)


def test_a_length_without_room_is_refused():
    with pytest.raises(ConfigError, match=r"too short: the prompt has \d+ without"):
        write_trial(BYTES, "passkey", length=SHORT - 20, index=0)
    with pytest.raises(ConfigError, match="too short"):
        write_trial(WORLD, "world", length=10, index=0)


def test_the_world_needs_its_own_words():
    with pytest.raises(ModelError, match="one token per word"):
        write_trial(BYTES, "world", length=100, index=0)


def test_a_tokenizer_that_joins_prompt_and_key_is_refused(monkeypatch):
    joined = word_tokenizer(["a", "b"])
    from longheads import passkey_prompts

    monkeypatch.setattr(passkey_prompts, "encode", lambda _, text: encode(joined, text[::-1]))
    with pytest.raises(ModelError, match="joins the end of the prompt"):
        passkey_prompts._following(joined, (1, 2), "a b", "b")


# runs


def test_a_run_gives_records_table_and_report(capsys, folder, tmp_path):
    out = tmp_path / "run"
    words = ("--lengths", 24, 64, 100, "--trials", 4, "--depth-bins", 2)
    code, table, err = run(capsys, folder, out, *words)
    assert code == 0
    assert [line.split()[0] for line in table.splitlines()] == ["tokens", "24", "64", "100"]
    assert "report:" in err
    found = lines(out)
    assert [one["id"] for one in found[:3]] == ["passkey/24/0", "passkey/64/0", "passkey/100/0"]
    assert len(found) == 12
    for one in (record["data"] for record in found):
        assert one["num_tok"] == one["length"]
        assert one["correct"] == (one["predicted_ids"] == one["expected_ids"])
        assert len(one["predicted_ids"]) == len(one["expected_ids"]) == 1
        assert one["depth_bin"] == int(one["depth"] * 2)
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {"passkey_depth.png", "passkey_depth.csv", "passkey_accuracy.csv"} <= figures
    assert (out / "report.html").is_file()
    assert APP.main(["report", str(out), "--recheck"]) == 0


def test_a_run_that_was_stopped_goes_on_to_the_same_records(capsys, folder, tmp_path):
    words = ("--lengths", 24, 64, "--trials", 3)
    assert run(capsys, folder, tmp_path / "whole", *words)[0] == 0
    whole = (tmp_path / "whole" / "records.jsonl").read_text()
    assert run(capsys, folder, tmp_path / "cut", *words)[0] == 0
    cut = tmp_path / "cut" / "records.jsonl"
    cut.write_text("".join(whole.splitlines(keepends=True)[:2]) + '{"id": "passk')
    code, _, err = run(capsys, folder, tmp_path / "cut", *words)
    assert code == 2
    assert "--resume" in err
    assert run(capsys, folder, tmp_path / "cut", *words, "--resume")[0] == 0
    assert cut.read_text() == whole


def test_a_trial_that_fails_is_a_record_and_the_run_goes_on(capsys, folder, tmp_path, monkeypatch):
    honest = passkey.continue_prompt

    def sometimes(model, ids, **options):
        if len(ids) == 64:
            raise RuntimeError("no\nluck")
        return honest(model, ids, **options)

    monkeypatch.setattr(passkey, "continue_prompt", sometimes)
    out = tmp_path / "run"
    code, table, err = run(capsys, folder, out, "--lengths", 24, 64, "--trials", 2)
    assert code == 1
    assert "2 of 4 trials failed, first: no luck" in err
    assert table.splitlines()[2].split()[-1] == "2"
    status = {one["id"]: (one["status"], one["error"]) for one in lines(out)}
    assert status["passkey/64/1"] == ("error", "no luck")
    assert status["passkey/24/1"] == ("ok", None)
    assert json.loads((out / "summary.json").read_text())["counts"]["error"] == 2
    assert "--resume tries them again" in err
    monkeypatch.setattr(passkey, "continue_prompt", honest)
    code, table, err = run(capsys, folder, out, "--lengths", 24, 64, "--trials", 2, "--resume")
    assert code == 0, err
    assert [line.split()[-1] for line in table.splitlines()[1:]] == ["0", "0"]
    statuses = [one["status"] for one in lines(out) if one["id"] == "passkey/64/1"]
    assert statuses == ["error", "ok"]  # the second one counts
    assert json.loads((out / "summary.json").read_text())["counts"] == {
        "ok": 4,
        "error": 0,
        "skipped": 0,
    }
    assert json.loads((out / "summary.json").read_text())["metrics"]["accuracy/64"]["n"] == 2
    assert APP.main(["report", str(out), "--recheck"]) == 0


def test_a_length_that_is_too_short_leaves_nothing_behind(capsys, folder, tmp_path):
    code, out, err = run(capsys, folder, tmp_path / "run", "--lengths", 64, 5)
    assert (code, out) == (2, "")
    assert "a length of 5 tokens is too short" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_the_english_prompt_runs_on_any_tokenizer(capsys, tmp_path):
    tiny_model("llama-gqa", max_position_embeddings=256).save_pretrained(tmp_path / "model")
    BYTES.save_pretrained(tmp_path / "model")
    words = ("--task", "passkey", "--lengths", 420, "--trials", 1)
    code, _, _ = run(capsys, tmp_path / "model", tmp_path / "run", *words)
    assert code == 0
    (record,) = lines(tmp_path / "run")
    assert len(record["data"]["predicted_ids"]) == len(record["data"]["expected_ids"])


def test_limit_takes_some_of_every_length():
    config = PasskeyConfig(lengths=(10, 20), trials=5, limit=3)
    assert passkey.planned(config) == [(10, 0), (20, 0), (10, 1)]


@pytest.mark.parametrize(("depth", "row"), [(0.0, 0), (0.099, 0), (0.1, 1), (0.999, 9), (1.0, 9)])
def test_depths_fall_into_rows(depth, row):
    assert passkey.depth_bin(depth, 10) == row


# what records come to


def record(length, index, *, correct, depth_bin=0, split=False):
    data = {
        "length": length,
        "trial": index,
        "method": "longheads",
        "correct": correct,
        "depth_bin": depth_bin,
        "depth_bins": 2,
        "key_split": split,
    }
    return Record(id=trial_id(length, index), data=data)


def test_accuracies_by_hand(tmp_path):
    records = [
        record(64, 0, correct=True),
        record(64, 1, correct=True, depth_bin=1, split=True),
        record(128, 0, correct=False, split=True),
        record(128, 1, correct=True),
        Record(id=trial_id(128, 2), status="error", error="x", data={"length": 128}),
        Record(id="data/train", data={}),
    ]
    found = passkey_report.summarise(records)
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "accuracy/64": (1.0, 2),
        "accuracy/128": (0.5, 2),
        "accuracy/key_split": (0.5, 2),
        "accuracy": (0.75, 4),
    }
    assert passkey_report.accuracy_table(records)[2].split()[-1] == "1"
    _, heat = passkey_report.figures(records, tmp_path)
    assert heat.csv.read_text().splitlines()[1:] == [
        "0% to 50%,1.0,0.5",
        "50% to 100%,1.0,nan",
    ]


def test_no_trial_gives_nothing(tmp_path):
    assert passkey_report.summarise([]) == {}
    assert passkey_report.figures([], tmp_path) == []
    assert len(passkey_report.accuracy_table([])) == 1
