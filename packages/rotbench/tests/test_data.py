"""The sample, load_cases, and the verb data: what is installed is what was checked."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter

import httpx
import pytest

from papercore.errors import ConfigError, DataError
from papercore.testing import run_cli
from rotbench import archives
from rotbench.archives import collect, download
from rotbench.cases import LEVELS, NOISY_LEVELS, SCENARIOS, TURNS
from rotbench.data import MANIFEST, SAMPLE, installed_folder, load_cases
from rotbench.data_command import install
from rotbench.defects import defects
from rotbench.released import SHA256, file_of, read_folder
from rotbench.sample import build


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# The sample.


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_sample_is_what_its_sources_make(turn, level):
    assert file_of(SAMPLE, turn, level).read_text("utf-8") == build(turn, level)


def test_the_sample_covers_the_kinds_of_cases(sample_cases):
    clean = [case for case in sample_cases if case.key.level == "clean"]
    assert Counter((c.key.turn, c.scenario) for c in clean) == Counter(
        {("first", s): 2 for s in SCENARIOS} | {("third", s): 1 for s in SCENARIOS}
    )
    assert {c.key.level for c in sample_cases} == set(LEVELS)
    golds = [call for case in clean for call in case.golds]
    assert any(not call.arguments for call in golds)
    assert any("None" in call.arguments.values() for call in golds)
    assert any(isinstance(v, int) for call in golds for v in call.arguments.values())
    assert {"ask_to_user", "finish"} <= {call.name for call in golds}
    assert any(len(case.golds) > 1 for case in clean)
    first = {case.query for case in clean if case.key.turn == "first"}
    assert {case.query for case in clean if case.key.turn == "third"} <= first
    assert {one.kind for one in defects(sample_cases)} == {"only empty golds"}


def test_the_sample_holds_no_released_text(sample_cases, released_cases):
    queries = {case.query for case in released_cases}
    texts = {tool.description for case in released_cases for tool in case.tools}
    for case in sample_cases:
        assert case.query not in queries
        assert case.preamble != released_cases[0].preamble
        assert texts.isdisjoint(tool.description for tool in case.tools)


def test_a_light_install_reads_the_sample(tmp_path):
    code = (
        "import sys; from rotbench.data import load_cases; cases, _ = load_cases('sample');"
        "assert len(cases) == 168; assert 'torch' not in sys.modules;"
        "assert 'transformers' not in sys.modules"
    )
    done = run_cli(["python", "-c", code], cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# load_cases.


def test_cases_come_in_the_order_asked_for(cache):
    cases, digest = load_cases("sample", ("third", "first"), ("union", "clean"))
    assert list(dict.fromkeys((c.key.turn, c.key.level) for c in cases)) == [
        ("third", "union"),
        ("third", "clean"),
        ("first", "union"),
        ("first", "clean"),
    ]
    assert load_cases(str(SAMPLE), ("third", "first"), ("union", "clean")) == (cases, digest)
    assert load_cases("sample", ("third",), ("union",))[1] != digest


def test_missing_data_names_the_command(cache):
    with pytest.raises(DataError, match="rotbench data --from"):
        load_cases("released")
    with pytest.raises(DataError, match="no such folder"):
        load_cases("nowhere")


# Installing. The sample stands for the released files where their bytes do not matter.


def sample_files():
    return {name: (SAMPLE / name).read_bytes() for name in SHA256}


def test_the_released_files_are_installed_and_described(cache, released_folder):
    done = run_cli(["rotbench", "data", "--from", released_folder])
    assert done.returncode == 0, done.stderr
    assert "the released bytes" in done.stdout
    assert "1400 cases" in done.stdout
    target = installed_folder()
    assert "Apache License" in (target / "LICENSE").read_text()
    assert "Junjie-Ye/RoTBench" in (target / "ATTRIBUTION.txt").read_text()
    cases, digest = load_cases("released")
    assert len(cases) == 1400
    assert digest == load_cases(str(released_folder))[1]
    again = run_cli(["rotbench", "data"])
    assert again.returncode == 0
    assert digest in again.stdout


def test_other_bytes_are_refused_unless_accepted_and_then_remembered(cache, tmp_path):
    target = installed_folder()
    with pytest.raises(DataError, match=r"sha256.*--unverified"):
        install(sample_files(), target)
    assert not target.exists()
    install(sample_files(), target, unverified=True)
    cases, digest = load_cases("released")
    assert len(cases) == 168
    assert digest == f"unverified:{load_cases('sample')[1]}"
    (target / "First_Turn" / "union.json").write_text("[]")
    with pytest.raises(DataError, match="changed since they were installed"):
        load_cases("released")


def test_a_bad_schema_is_refused_even_unverified(cache):
    files = sample_files()
    files["First_Turn/clean.json"] = b"[{}]"
    with pytest.raises(DataError, match=r"^First_Turn/clean.json: entry 0"):
        install(files, installed_folder(), unverified=True)
    assert list(installed_folder().parent.iterdir()) == []


def test_an_installation_is_replaced_as_a_whole_and_nothing_else_is(cache, tmp_path):
    target = installed_folder()
    install(sample_files(), target, unverified=True)
    (target / "stale.txt").write_text("x")
    install(sample_files(), target, unverified=True)
    assert not (target / "stale.txt").exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds something else"):
        install(sample_files(), other, unverified=True)
    assert (other / "thesis.txt").exists()
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert json.loads((target / MANIFEST).read_text())["verified"] is False


# Sources.


def zipped(members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(members, mode="w:gz", extra=()):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for info in extra:
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def nested():
    files = {f"RoTBench-abc/Data/{name}": data for name, data in sample_files().items()}
    return files | {"RoTBench-abc/LICENSE": b"the licence", "RoTBench-abc/README.md": b"x"}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_are_searched_and_not_unpacked(tmp_path, pack):
    path = tmp_path / "archive"
    path.write_bytes(pack(nested() | {"../../evil.txt": b"x", "/etc/evil": b"x"}))
    before = sorted(tmp_path.iterdir())
    files = collect(str(path))
    assert files == sample_files() | {"LICENSE": b"the licence"}
    assert sorted(tmp_path.iterdir()) == before
    assert collect(str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest()) == files
    with pytest.raises(DataError, match="its sha256 is"):
        collect(str(path), sha256="0" * 64)


def test_a_folder_is_found_one_level_down(tmp_path):
    for name, content in sample_files().items():
        (tmp_path / "Data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Data" / name).write_bytes(content)
    (tmp_path / "LICENSE").write_text("the licence")
    assert collect(str(tmp_path))["LICENSE"] == b"the licence"
    assert collect(str(tmp_path / "Data"))["First_Turn/clean.json"]


def test_links_do_not_count_as_files(tmp_path):
    link = tarfile.TarInfo("First_Turn/clean.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = {
        name: data for name, data in sample_files().items() if "First_Turn/clean" not in name
    }
    path = tmp_path / "links.tar.gz"
    path.write_bytes(tarred(members, extra=[link]))
    with pytest.raises(DataError, match=r"has no First_Turn/clean\.json"):
        collect(str(path))


def test_what_is_no_data_is_said_in_a_line(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\x03\x04 broken")
    for content in (path.read_bytes(), b"", b"\x1f\x8b\x08 broken", zipped(nested())[:5000]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.zip: "):
            collect(str(path))
    path.write_bytes(zipped({"a": b"x"}))
    with pytest.raises(DataError, match=r"has no First_Turn/clean\.json"):
        collect(str(path))
    path.write_bytes(zipped(nested() | sample_files()))
    with pytest.raises(DataError, match="more than once"):
        collect(str(path))
    with pytest.raises(DataError, match="no such file"):
        collect(str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"has no First_Turn/clean\.json"):
        collect(str(tmp_path))


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "bomb.zip"
    path.write_bytes(zipped(nested()))
    with pytest.raises(DataError, match="is larger than"):
        collect(str(path))
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 10_000)
    with pytest.raises(DataError, match="holds too much"):
        collect(str(path))
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 10)
    with pytest.raises(DataError, match="larger than"):
        collect(str(path))


def serving(pages):
    def answer(request):
        return pages[str(request.url)]

    return httpx.Client(transport=httpx.MockTransport(answer))


def test_addresses_need_https_and_a_checksum():
    with pytest.raises(ConfigError, match="only https"):
        collect("http://example.org/x.zip", sha256="0" * 64)
    with pytest.raises(ConfigError, match="only https"):
        collect("file:///etc/passwd", sha256="0" * 64)
    with pytest.raises(ConfigError, match="needs --sha256"):
        collect("https://example.org/x.zip")


def test_downloads_follow_redirects_but_never_off_https():
    body = b"an archive"
    digest = hashlib.sha256(body).hexdigest()
    url = "https://example.org/x.zip"
    pages = {
        url: httpx.Response(302, headers={"location": "https://elsewhere.org/y"}),
        "https://elsewhere.org/y": httpx.Response(200, content=body),
    }
    assert download(url, digest, client=serving(pages)) == body
    with pytest.raises(DataError, match="its sha256 is"):
        download(url, "0" * 64, client=serving(pages))
    pages[url] = httpx.Response(302, headers={"location": "http://elsewhere.org/y"})
    with pytest.raises(ConfigError, match="leads away from https"):
        download(url, digest, client=serving(pages))
    pages[url] = httpx.Response(302, headers={"location": url})
    with pytest.raises(DataError, match="redirects more than"):
        download(url, digest, client=serving(pages))
    pages[url] = httpx.Response(404)
    with pytest.raises(DataError, match="cannot be fetched"):
        download(url, digest, client=serving(pages))


# The verb.


def test_the_verb_describes_and_copies_the_sample(cache, tmp_path):
    done = run_cli(["rotbench", "data", "--data", "sample"])
    assert done.returncode == 0, done.stderr
    assert "168 cases" in done.stdout
    done = run_cli(["rotbench", "data", "--write-sample", tmp_path / "mine"])
    assert done.returncode == 0, done.stderr
    assert len(read_folder(tmp_path / "mine", ("first",), NOISY_LEVELS)) == 98


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "not installed"),
        (["--from", "http://example.org/x"], "only https"),
        (["--from", "absent"], "no such file or folder"),
        (["--unverified"], "go with --from"),
        (["--data", "absent"], "no such folder"),
    ],
)
def test_mistakes_exit_2_with_one_line(cache, tmp_path, arguments, message):
    done = run_cli(["rotbench", "data", *arguments], cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
