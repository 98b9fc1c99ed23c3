import contextlib
import re
from html.parser import HTMLParser

import pytest

from papercore.claims import Bar, Claim, Estimate, judge
from papercore.config import RunConfig, RunFlags
from papercore.files import read_json, write_json
from papercore.overview import Outcome, write_index
from papercore.records import Record
from papercore.report import conclude, recheck
from papercore.runs import Run


class Page(HTMLParser):
    """Text and addresses of a page."""

    def __init__(self, html):
        super().__init__()
        self.text, self.addresses, self.tags = [], [], []
        self.feed(html)
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def folder(toypaper, tmp_path, capsys):
    toypaper.main(["mini", "--out", str(tmp_path / "run")])
    capsys.readouterr()
    return tmp_path / "run"


@pytest.fixture
def page(folder):
    return Page((folder / "report.html").read_text())


def test_the_page_needs_no_network_and_no_script(page):
    assert "script" not in page.tags
    assert "link" not in page.tags
    outside = [a for a in page.addresses if not a.startswith(("#", "data:", "figures/", "tables/"))]
    assert outside == []


def test_untrusted_text_is_text(folder, page):
    assert "<script>" not in (folder / "report.html").read_text()
    assert "<script>alert(1)</script>" in page.words
    assert "Bars & <b>whiskers</b>" in page.words


def test_read_values_stand_beside_ours_and_unread_ones_do_not(page):
    assert "0.912" in page.words
    assert "0.432" not in page.words


def test_every_bar_shows_its_number_with_interval_and_n(page):
    assert re.search(r"accuracy >= 0\.75 \d\.\d+ \[\S+ \S+\] n=50, wilson", page.words)
    assert re.search(r"interval excludes 0 \d\.\d+ \[\S+ \S+\] n=50, paired", page.words)


def test_a_planted_effect_has_its_badge(page):
    assert page.words.count("planted") == 1


def test_figures_link_to_their_numbers(folder, page):
    assert "figures/accuracy.csv" in page.addresses
    assert (folder / "figures" / "accuracy.csv").exists()


def test_tables_of_the_package_are_on_the_page_and_beside_it(folder, page):
    assert "Counts Of <all>. As CSV who records share ours 51 0.333 <i>theirs</i> 0 n/a" in (
        page.words
    )
    assert "tables/counts.csv" in page.addresses
    table = (folder / "tables" / "counts.csv").read_text()
    assert table == "who,records,share\nours,51,0.3333333333333333\n<i>theirs</i>,0,nan\n"


def test_a_run_without_claims_says_first_how_many_examples_failed(folder, tmp_path):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"verb": "mini"', '"verb": "eval"'))
    conclude(folder, into=tmp_path / "again")
    page = Page((tmp_path / "again" / "report.html").read_text())
    assert "1 of 51 examples failed; no metric below counts them." in page.words


def test_counts_timing_config_and_environment_are_there(page):
    for part in ("error 1", "ok 50", "phases.flips.wall_s", "ablate False", "machine.num_cpus"):
        assert part in page.words


def test_the_same_run_gives_the_same_bytes(folder, tmp_path):
    conclude(folder, into=tmp_path / "again")
    again = (tmp_path / "again" / "report.html").read_bytes()
    assert again == (folder / "report.html").read_bytes()


def test_a_run_that_no_claim_judges_has_metrics_only(folder, tmp_path):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"verb": "mini"', '"verb": "eval"'))
    conclusion = conclude(folder, into=tmp_path / "again")
    assert conclusion.verdicts == ()
    assert not (tmp_path / "again" / "claims.json").exists()
    page = Page((tmp_path / "again" / "report.html").read_text())
    assert "accuracy" in page.words
    assert "What did not reproduce" not in page.words


def verdict(name, value, bar=0.5):
    claim = Claim(
        name, f"Statement {name}", "T", 0.5, "read", "effect", False, (Bar("m", ">=", bar),)
    )
    return judge(claim, {"m": Estimate(value, value - 0.1, value + 0.1, 10, "wilson")})


def outcome(package, seed, folder, **fields):
    return Outcome(package, seed, folder / package / f"seed{seed}", folder / "no.log", **fields)


def test_the_index_says_first_what_did_not_reproduce(tmp_path):
    outcomes = [
        outcome("good", 0, tmp_path, verdicts=(verdict("fine", 0.9),)),
        outcome("good", 1, tmp_path, verdicts=(verdict("shaky", 0.2),)),
        outcome("bad", 0, tmp_path, failure="exit 1: <boom>"),
    ]
    page = Page(write_index(tmp_path, outcomes).read_text())
    shortfall, papers = page.words.split("What did not reproduce")[1].split(" good Seed 0 ")
    assert "Statement shaky" in shortfall
    assert "exit 1: <boom>" in shortfall
    assert "Statement fine" not in shortfall
    assert "Statement fine" in papers
    assert "good/seed0/report.html" in page.addresses
    assert "good: 1 of 1 held bad: failed" in page.words


def test_the_index_says_when_all_is_well(tmp_path):
    page = Page(
        write_index(
            tmp_path, [outcome("good", 0, tmp_path, verdicts=(verdict("a", 1),))]
        ).read_text()
    )
    assert "Every claim held on every seed that was run." in page.words


# --- how much of a run it is


def go(folder, *, resume=False, killed=False, **settings):
    """A run of two examples, or one if it is killed; what its page says."""
    where = {"package": "toypaper", "version": "0.1", "verb": "go"}
    with (
        contextlib.suppress(ProcessLookupError),
        Run.open(folder, RunConfig(**settings), RunFlags(resume=resume), **where) as run,
    ):
        for name in ("a",) if killed else ("a", "b"):
            if name not in run.done:
                run.append(Record(id=name, data={"ours": 1, "theirs": 0}))
        if killed:
            raise ProcessLookupError
    conclude(folder)
    assert recheck(folder) == []
    return Page((folder / "report.html").read_text()).words


def test_a_full_run_is_one_of_a_miniature(toypaper, page, tmp_path):
    assert "seed 0, full run, config" in page.words
    words = go(tmp_path / "go")
    assert "version 0.1, seed 0, config" in words
    assert "full run" not in words


def test_a_limit_is_said(toypaper, tmp_path):
    assert "seed 0, limited to 16, config" in go(tmp_path / "go", limit=16)


def test_an_unfinished_run_is_called_so_until_it_is_resumed(toypaper, tmp_path):
    words = go(tmp_path / "go", killed=True, limit=16)
    assert "seed 0, unfinished run, limited to 16, config" in words
    assert "all numbers are of 1 examples so far" in words
    assert "unfinished" not in go(tmp_path / "go", resume=True, limit=16)


def test_an_unfinished_miniature_is_no_full_run(toypaper, folder):
    timing = read_json(folder / "timing.json")
    write_json(folder / "timing.json", {**timing, "ended": False})
    conclude(folder)
    words = Page((folder / "report.html").read_text()).words
    assert "seed 0, unfinished run, config" in words


def test_a_run_of_which_nothing_is_known_is_not_called_unfinished(toypaper, folder):
    """Folders of earlier versions do not say how their command ended."""
    timing = read_json(folder / "timing.json")
    del timing["ended"]
    write_json(folder / "timing.json", timing)
    assert recheck(folder) == []
