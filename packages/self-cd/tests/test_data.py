"""load_items: references, limits, duplicates, hashes, and what is said about them."""

import hashlib
import json
import logging
from dataclasses import replace

import pytest

from papercore.errors import ConfigError, DataError
from self_cd import data
from self_cd.data import MANIFEST, installed_folder, load_items, resolve
from self_cd.formats import FORMATS
from self_cd.released import RELEASED, content_digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERCORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    def file(name, *rows, header="prompt,side"):
        path = tmp_path / name
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return f"csv:{path}"

    return file


def test_items_carry_data_set_row_side_and_focus(write):
    ref = write(
        "mine.csv",
        "Boil an egg?,harmless,food,egg",
        "Sing!,ordinary,,",
        header="prompt,side,type,focus",
    )
    first, second = load_items([ref]).items
    assert (first.id, first.dataset, first.side) == ("mine/1", "mine", "harmless")
    assert (first.kind, first.focus, first.query) == ("food", "egg", "Boil an egg?")
    assert (second.id, second.kind, second.focus) == ("mine/2", None, None)


def test_the_limit_is_per_data_set_and_side(write):
    rows = [f"Number {i}?,{side}" for i, side in enumerate(["harmless"] * 3 + ["harmful"] * 3)]
    ref = write("mine.csv", *rows)
    items = load_items(["sample", ref], limit=2).items
    assert [item.id for item in items if item.dataset == "mine"] == [
        "mine/1",
        "mine/2",
        "mine/4",
        "mine/5",
    ]
    assert sum(item.dataset == "sample" for item in items) == 6


def test_bad_rows_take_no_place_within_the_limit_and_later_ones_are_left_out(write):
    ref = write("mine.csv", ",harmless", "One?,harmless", "Two?,harmless", ",harmless")
    found = load_items([ref], limit=2)
    assert [item.id for item in found.items] == ["mine/2", "mine/3"]
    assert [bad.id for bad in found.bad] == ["mine/1"]
    assert [bad.id for bad in load_items([ref]).bad] == ["mine/1", "mine/4"]


def test_a_bad_row_names_file_row_and_remedy(write):
    ref = write("mine.csv", "One?,harmful", ",harmful")
    (bad,) = load_items([ref]).bad
    assert (bad.id, bad.dataset, bad.side) == ("mine/2", "mine", "harmful")
    assert bad.problem.startswith(f"{ref.removeprefix('csv:')}: row 2 ")
    assert "fill it in or delete the row" in bad.problem


def test_duplicates_are_kept_once_and_noted(write):
    ref = write(
        "mine.csv", "May I?,harmless", "Sing,ordinary", "May  I?,harmless", "May I?,harmful"
    )
    found = load_items([ref])
    assert [item.id for item in found.items] == ["mine/1", "mine/2"]
    same, contrary = found.notes
    assert same == "mine: left out 1 row (3): the question was there before"
    assert contrary == "mine: left out 1 row (4): the question was there on another side"


def test_duplicates_do_not_eat_up_the_limit(write):
    ref = write("mine.csv", "May I?,harmless", "May I?,harmless", "Sing?,harmless")
    assert [item.id for item in load_items([ref], limit=2).items] == ["mine/1", "mine/3"]


def test_bad_rows_are_no_duplicates_of_each_other(write):
    assert len(load_items([write("mine.csv", ",harmless", ",harmless", "a,harmless")]).bad) == 2


def test_questions_that_two_data_sets_share_stay_in_both(write):
    refs = [write("a.csv", "May I?,harmless", "One?,harmless"), write("b.csv", "May I?,harmful")]
    found = load_items(refs)
    assert [item.id for item in found.items] == ["a/1", "a/2", "b/1"]
    assert found.notes == ("a and b: both have the same 1 questions; both keep them",)


def test_a_focus_that_is_not_in_the_question_is_noted(write):
    ref = write(
        "mine.csv",
        "Fell trees?,harmless,fell",
        "Felling a tree?,harmless,fells",
        header="prompt,side,focus",
    )
    (note,) = load_items([ref]).notes
    assert note == "mine: the focus is not in the question as it stands: 1 row (2)"


def test_the_digest_is_of_the_bytes_of_all_files(write):
    ref = write("mine.csv", "May I?,harmless")
    one = load_items([ref]).digest
    assert load_items([ref], limit=1).digest == one
    assert load_items([ref, "sample"]).digest not in (one, load_items(["sample"]).digest)
    assert load_items([write("mine.csv", "May I? ,harmless")]).digest != one


# References.


def test_an_unknown_name_gives_the_names_and_a_near_miss():
    with pytest.raises(ConfigError, match=r"no data set 'xtest'; did you mean 'xstest'\?.*oktest"):
        load_items(["xtest"])


def test_a_path_alone_gives_a_hint(write):
    path = write("mine.csv", "May I?,harmless").removeprefix("csv:")
    with pytest.raises(ConfigError, match="to read the file give csv:"):
        load_items([path])


def test_an_unknown_format_gives_the_formats_and_a_near_miss():
    with pytest.raises(ConfigError, match=r"no format 'jsonll'; did you mean 'jsonl'\?"):
        load_items(["jsonll:x.jsonl"])


@pytest.mark.parametrize("ref", ["csv:", "csv: "])
def test_a_reference_without_a_file(ref):
    with pytest.raises(ConfigError, match="names no file"):
        load_items([ref])


def test_nothing_is_no_data_set():
    with pytest.raises(ConfigError, match="no data set is given"):
        load_items([])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(limit):
    with pytest.raises(ConfigError, match=f"limit={limit}"):
        load_items(["sample"], limit=limit)


def test_the_same_reference_twice():
    with pytest.raises(ConfigError, match="'sample' is there twice"):
        load_items(["sample", "sample"])


def test_two_files_of_one_name_would_share_ids(tmp_path, write):
    (tmp_path / "other").mkdir()
    refs = [write("mine.csv", "a,harmless"), write("other/mine.csv", "b,harmless")]
    with pytest.raises(ConfigError, match=r"both the data set 'mine'.*rename its file"):
        load_items(refs)


@pytest.mark.parametrize("name", ["sample.csv", "xstest.csv"])
def test_an_own_file_may_not_take_the_name_of_another_data_set(write, name):
    with pytest.raises(ConfigError, match="rename the file"):
        load_items([write(name, "a,harmless")])


def test_a_file_name_becomes_a_data_set_name_without_spaces(write):
    assert (
        load_items([write("my own/set.csv".replace("/", " "), "a,harmless")]).items[0].id
        == "my-own-set/1"
    )


def test_a_file_without_a_question_is_refused(write):
    with pytest.raises(DataError, match="holds no question; row 1 the question is empty"):
        load_items([write("mine.csv", ",harmless")])
    with pytest.raises(DataError, match=r"holds no question$"):
        load_items([write("mine.csv")])


# Released data sets.


def test_one_that_is_not_installed_says_how_to_get_it():
    with pytest.raises(
        DataError, match=r"xstest: is not installed: get xstest_prompts.csv from .*--from"
    ):
        load_items(["xstest"])


def test_a_file_with_another_hash_is_refused_with_both_hashes(tmp_path):
    file = tmp_path / "OKTest.csv"
    file.write_text("prompt\nMay I?\n")
    with pytest.raises(DataError) as caught:
        load_items([f"oktest:{file}"])
    message = str(caught.value)
    assert hashlib.sha256(file.read_bytes()).hexdigest() in message
    assert RELEASED["oktest"].sha256 in message
    assert "--unverified" in message


def tuned(tmp_path, number):
    file = tmp_path / "tuned.json"
    texts = [f"Say {i}." for i in range(number)]
    file.write_text(json.dumps({"instructions": texts, "inputs": []}))
    return f"i-controversial:{file}"


def test_without_a_known_hash_the_rows_are_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = load_items([tuned(tmp_path, 40)])
    assert found.items[39].id == "i-controversial/40"
    assert "i-controversial: 40 questions; licence: none stated" in caplog.text
    with pytest.raises(DataError, match=r"has 39 harmful rows, but .* released with 40 harmful"):
        load_items([tuned(tmp_path, 39)])


def test_xstest_is_known_in_every_layout_by_its_content(tmp_path, monkeypatch):
    new = "prompt,type,label,focus\nFell trees? ,a,safe,fell\nFell Zor?,contrast_a,unsafe,fell\n"
    old = "type,prompt,focus\ncontrast_a,Fell Zor?,fell\na,Fell trees?,fell\n"
    known = content_digest(FORMATS["xstest"].read(new, "new"))
    monkeypatch.setitem(RELEASED, "xstest", replace(RELEASED["xstest"], content=known))
    file = tmp_path / "x.csv"
    file.write_text(old)
    assert [item.side for item in load_items([f"xstest:{file}"]).items] == ["harmful", "harmless"]
    file.write_text(old.replace("contrast_a", "b"))
    with pytest.raises(DataError, match="its sha256 is"):
        load_items([f"xstest:{file}"])


def test_held_out_rows_that_the_test_set_has_are_left_out(tmp_path, monkeypatch):
    leaked = hashlib.sha256(b"Question 7?").hexdigest()
    monkeypatch.setattr(data, "LEAKED_SHA256", frozenset({leaked}))
    file = tmp_path / "held.csv"
    file.write_text("prompt\n" + "".join(f'"Question {i}?\n"\n' for i in range(50)))
    found = load_items([f"oktest-heldout:{file}"])
    assert "oktest-heldout/8" not in {item.id for item in found.items}
    assert len(found.items) == 49
    assert found.notes == ("oktest-heldout: left out 1 row (8), which oktest has, too",)


def installed(text, manifest):
    folder = installed_folder("oktest")
    folder.mkdir(parents=True)
    (folder / "OKTest.csv").write_text(text)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_an_installed_one_is_read_and_says_if_it_was_not_verified():
    text = "prompt\nMay I?\n"
    installed(text, {"sha256": hashlib.sha256(text.encode()).hexdigest(), "verified": False})
    found = load_items(["oktest"])
    assert [item.id for item in found.items] == ["oktest/1"]
    assert found.notes == ("oktest: is not the released file (installed with --unverified)",)


def test_an_installed_one_that_was_changed_is_refused():
    installed("prompt\nMay I?\n", {"sha256": "0" * 64, "verified": True})
    with pytest.raises(DataError, match="was changed after it was installed"):
        load_items(["oktest"])


@pytest.mark.parametrize("manifest", [{}, {"sha256": 3, "verified": True}, {"sha256": "a"}])
def test_a_damaged_manifest_is_refused(manifest):
    installed("prompt\nMay I?\n", manifest)
    with pytest.raises(DataError, match="is damaged"):
        resolve("oktest")


def test_q_harm_notes_that_its_side_is_mixed(tmp_path):
    file = tmp_path / "q.json"
    file.write_text(json.dumps({"instructions": [f"Say {i}." for i in range(100)]}))
    (note,) = load_items([f"q-harm:{file}"]).notes
    assert "many of its questions are harmless" in note
