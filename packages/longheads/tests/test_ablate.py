"""Variants by hand, the same trials for all of them, and a table with paired differences."""

import json

import pytest

from longheads import ablate, ablate_report
from longheads.ablate_report import ablation_table, summarise
from longheads.cli import APP
from longheads.config import AblateConfig, LongHeadsConfig
from longheads.passkey_prompts import write_trial
from longheads.presets import ABLATE, WINDOWS
from longheads.trace import Choice
from longheads.variants import DEFAULT, chosen, variants
from longheads.world import WORDS
from papercore.errors import ConfigError
from papercore.records import Record
from papercore.stats import paired_difference
from papercore.tiny import tiny_llama, word_tokenizer

WORLD = word_tokenizer(WORDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tiny_llama(51, seed=3, kv_heads=2).save_pretrained(place)
    WORLD.save_pretrained(place)
    return place


def run(capsys, folder, out, *words):
    capsys.readouterr()
    fixed = ["ablate", "--model", folder, "--out", out, "--longheads.chunk-len", 8]
    fixed += ["--longheads.window", 64, "--lengths", 100, "--trials", 2]
    code = APP.main([str(word) for word in [*fixed, *words]])
    said = capsys.readouterr()
    return code, said.out, said.err


def lines(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


# variants


def test_the_variants_of_the_paper_setting():
    found = variants(WINDOWS["author-passkey"], trained=4096, grouped=False)
    assert list(found) == [
        "default",
        "select=random",
        "select=recent",
        "chunk_rep=mean",
        "chunk_rep=minmax",
        "chunk_rep=last",
        "chunk_rep=random",
        "keep_first=false",
        "keep_last=false",
        "share_selection=layer_mean",
        "share_selection=layer_max",
        "compat=official",
        "chunks=4",
        "chunks=16",
        "chunk_len=64",
        "chunk_len=128",
        "chunk_len=512",
    ]
    assert found["chunks=16"].window_for(4096) == 4096
    assert found["chunk_len=512"] == LongHeadsConfig(chunk_len=512, window=2048)
    assert {what.window_for(4096) for name, what in found.items() if "chunks" not in name} == {2048}


def test_grouped_models_have_two_more_and_each_variant_differs_in_one_thing():
    base = WINDOWS["auto"]
    found = variants(base, trained=8192, grouped=True)
    assert {"share_selection=group_mean", "share_selection=group_max"} <= set(found)
    assert found.pop(DEFAULT) == base
    for name, what in found.items():
        changed = {
            field
            for field in LongHeadsConfig.model_fields
            if getattr(what, field) != getattr(base, field)
        }
        assert changed - {"window"} == {name.partition("=")[0]}


def test_what_the_settings_are_already_is_no_variant():
    found = variants(LongHeadsConfig(select="random", chunks=8), trained=4096, grouped=False)
    assert "select=random" not in found
    assert "chunks=8" not in found
    assert found["chunk_len=128"].window_for(4096) == 2048


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="too long for a model trained at 256"):
        variants(LongHeadsConfig(), trained=256, grouped=False)


def test_some_variants_may_be_chosen_and_the_default_stays():
    found = variants(WINDOWS["tiny"], trained=256, grouped=False)
    assert list(chosen(found, ["chunks=8", "select=random"])) == [
        "default",
        "select=random",
        "chunks=8",
    ]
    assert chosen(found, []) == found
    with pytest.raises(ConfigError, match="no 'select=randm' here; did you mean 'select=random'"):
        chosen(found, ["select=randm"])


# runs


def test_a_run_gives_records_table_and_report(capsys, folder, tmp_path):
    out = tmp_path / "run"
    code, table, err = run(capsys, folder, out)
    assert code == 0, err
    model = {"trained": 256, "grouped": True}
    names = list(variants(LongHeadsConfig(chunk_len=8, window=64), **model))
    assert "share_selection=group_max" in names
    assert [line.split()[0] for line in table.splitlines()] == ["variant", *names]
    found = lines(out)
    assert [one["id"] for one in found[: len(names) + 1]] == [
        *(f"ablate/{name}/100/0" for name in names),
        "ablate/default/100/1",
    ]
    expected = {tuple(one["data"]["expected_ids"]) for one in found if one["data"]["trial"] == 0}
    trial = write_trial(WORLD, "world", length=100, index=0, seed=0)
    assert expected == {trial.expected_ids}
    heads = {one["data"]["variant"]: one["data"]["heads"] for one in found}
    assert heads["default"] == 2 * 4
    assert heads["share_selection=group_mean"] == 2 * 2
    assert (out / "tables" / "ablation.csv").is_file()
    assert (out / "figures" / "ablation.png").is_file()
    assert APP.main(["report", str(out), "--recheck"]) == 0


def test_the_default_is_what_passkey_reads(capsys, folder, tmp_path):
    code, _, err = run(capsys, folder, tmp_path / "a", "--variants", "select=random")
    assert code == 0, err
    flags = ["--longheads.chunk-len", "8", "--longheads.window", "64", "--lengths", "100"]
    out = ["--model", str(folder), "--out", str(tmp_path / "p"), "--trials", "2"]
    for method in ("longheads", "random"):
        words = ["passkey", *flags, *out, "--method", method, "--overwrite"]
        assert APP.main(words) == 0
        name = DEFAULT if method == "longheads" else "select=random"
        ours = [
            one["data"]["predicted_ids"]
            for one in lines(tmp_path / "a")
            if one["data"]["variant"] == name
        ]
        assert ours == [one["data"]["predicted_ids"] for one in lines(tmp_path / "p")]


def test_a_run_that_was_stopped_goes_on_to_the_same_records(capsys, folder, tmp_path):
    words = ("--variants", "select=random", "keep_last=false")
    assert run(capsys, folder, tmp_path / "whole", *words)[0] == 0
    whole = (tmp_path / "whole" / "records.jsonl").read_text()
    assert run(capsys, folder, tmp_path / "cut", *words)[0] == 0
    cut = tmp_path / "cut" / "records.jsonl"
    cut.write_text("".join(whole.splitlines(keepends=True)[:2]) + '{"id": "abl')
    assert run(capsys, folder, tmp_path / "cut", *words, "--resume")[0] == 0
    assert cut.read_text() == whole


def test_a_trial_that_fails_is_a_record_and_the_run_goes_on(capsys, folder, tmp_path, monkeypatch):
    honest, calls = ablate.continue_prompt, []

    def sometimes(model, ids, **options):
        calls.append(ids)
        if len(calls) == 2:
            raise RuntimeError("no\nluck")
        return honest(model, ids, **options)

    monkeypatch.setattr(ablate, "continue_prompt", sometimes)
    out = tmp_path / "run"
    code, table, err = run(capsys, folder, out, "--variants", "select=random")
    assert code == 1
    assert "1 of 4 trials failed, first: no luck" in err
    assert table.splitlines()[2].split()[-1] == "1"
    failed = [one["id"] for one in lines(out) if one["status"] == "error"]
    assert failed == ["ablate/select=random/100/0"]
    assert "--resume tries them again" in err
    monkeypatch.setattr(ablate, "continue_prompt", honest)
    before = table.splitlines()[1]
    code, table, err = run(capsys, folder, out, "--variants", "select=random", "--resume")
    assert code == 0, err
    assert [one["id"] for one in lines(out)[4:]] == failed, "only what failed is read again"
    assert table.splitlines()[1] == before
    assert table.splitlines()[2].split()[-1] == "0"
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert metrics["minus_default/select=random"]["n"] == 2
    assert APP.main(["report", str(out), "--recheck"]) == 0


def test_limit_counts_trials_not_variants(capsys, folder, tmp_path):
    words = ("--variants", "select=random", "--limit", 1, "--lengths", 100, 120)
    assert run(capsys, folder, tmp_path / "run", *words)[0] == 0
    assert [one["id"] for one in lines(tmp_path / "run")] == [
        "ablate/default/100/0",
        "ablate/select=random/100/0",
    ]


def test_texts_inside_the_window_are_warned_about_and_read_in_full(
    capsys, folder, tmp_path, caplog
):
    words = ("--variants", "select=random", "--lengths", 40)
    assert run(capsys, folder, tmp_path / "run", *words)[0] == 0
    assert "lengths 40 are inside the window of 64" in caplog.text
    assert {
        (one["data"]["heads_at_needle"], one["data"]["heads"]) for one in lines(tmp_path / "run")
    } == {(2, 2)}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--method", "full"), "has nothing to ablate"),
        (("--variants", "nonesuch"), "there is no 'nonesuch' here"),
        (("--lengths", "5"), "a length of 5 tokens is too short"),
    ],
)
def test_bad_settings_leave_nothing_behind(capsys, folder, tmp_path, words, reason):
    code, out, err = run(capsys, folder, tmp_path / "run", *words)
    assert (code, out) == (2, "")
    assert reason in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_the_same_presets_as_everywhere():
    assert list(ABLATE) == ["tiny", "paper", "official-readme", "modern"]
    assert ABLATE["official-readme"].longheads == WINDOWS["official-readme"]
    assert AblateConfig().method == "longheads"


def test_a_dry_run_names_the_variants(capsys):
    assert APP.main(["ablate", "paper", "--variants", "chunks=4", "--dry-run"]) == 0
    assert "# variants: each prompt is read by default, chunks=4\n" in capsys.readouterr().out
    assert APP.main(["ablate", "paper", "--variants", "chunks=5", "--dry-run"]) == 2


# what records come to


def result(variant, index, *, correct, at_needle=1, **more):
    data = {
        "variant": variant,
        "length": 100,
        "trial": index,
        "correct": correct,
        "heads_at_needle": at_needle,
        "heads": 4,
    }
    return Record(id=f"ablate/{variant}/100/{index}", data=data, **more)


def test_differences_are_paired_over_trials_that_both_finished():
    right = {"default": [1, 1, 1, 0], "select=random": [0, 1, 0]}
    records = [
        result(name, index, correct=bool(one), at_needle=2 if name == DEFAULT else 0)
        for name, ones in right.items()
        for index, one in enumerate(ones)
    ]
    failed = Record(
        id="ablate/select=random/100/3",
        status="error",
        error="x",
        data={"variant": "select=random", "length": 100, "trial": 3},
    )
    found = summarise([*records, failed])
    assert found["accuracy/default"].value == 0.75
    assert found["accuracy/select=random"].n == 3
    expected = paired_difference([0, 1, 0], [1, 1, 1])
    assert found["minus_default/select=random"] == expected
    assert expected.value == pytest.approx(-2 / 3)
    assert found["heads_at_needle/default"].value == 0.5
    assert found["heads_at_needle/select=random"].value == 0.0
    default, random = ablation_table([*records, failed])[1:]
    assert default.split() == ["default", "3/4", "0.75", "0.30", "to", "0.95", "-", "0.50", "0"]
    assert random.split()[:3] == ["select=random", "1/3", "0.33"]
    assert random.split()[6] == "-0.67"
    assert random.split()[-1] == "1"


def test_heads_at_the_needle_by_hand():
    choices = [
        Choice(0, 0, 99, ((0, 3, 9), (0, 5, 9))),
        Choice(1, 0, 99, ((0, 4, 9), (0, 3, 9))),
    ]
    assert ablate._at_needle(choices, [3, 4]) == (3, 4)
    assert ablate._at_needle([], [3]) == (0, 0)


def test_no_trial_gives_nothing(tmp_path):
    assert summarise([]) == {}
    assert ablate_report.figures([], tmp_path) == []
    assert ablate_report.tables([]) == []
    assert len(ablation_table([])) == 1
