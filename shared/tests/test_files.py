"""Files and folders that are either old or new."""

from pathlib import Path

import pytest

from papercore.errors import DataError
from papercore.files import replace_folder, writing


def folder(path, content):
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_folder_comes_into_the_place_of_another(tmp_path):
    new, target = folder(tmp_path / "new", "new"), folder(tmp_path / "target", "old")
    replace_folder(new, target)
    assert (target / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_may_be_empty(tmp_path):
    replace_folder(folder(tmp_path / "new", "new"), tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "new"


def test_the_old_one_stays_where_the_new_one_cannot_come(tmp_path, monkeypatch):
    new, target = folder(tmp_path / "new", "new"), folder(tmp_path / "target", "old")
    rename = Path.rename

    def full(path, to):
        if path == new:
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        replace_folder(new, target)
    assert (target / "file").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [new, target]


def test_what_cannot_be_written_is_named(tmp_path):
    said = r"a\.jsonl cannot be written \(No space.*--resume"
    with pytest.raises(DataError, match=said), writing(tmp_path / "a.jsonl"):
        raise OSError(28, "No space left on device")
