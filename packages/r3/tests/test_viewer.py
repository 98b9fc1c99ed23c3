"""The page of rollouts: it needs no network, runs nothing that a model wrote, and loses nothing."""

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import DataError
from r3.dump import Dumped, append_dump
from r3.viewer import Choice, EvenSample, collect, evenly, write_page

NASTY = (
    "<script>window.hacked = 1</script>",
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "]]></style></pre><img src=x onerror=alert(1)>",
    "\"' onload='x' `${1}` {{ 7 * 7 }} {% raw %}",
    "\u2028 and \u2029 and \x00 and \x1b[31m",
    "\u202egnp.exe\u202c \u200f \u0627\u0644\u0639",
    "&lt;b&gt; &amp; \\u003cb\\u003e \\",
    "http://example.org/x.js and https://example.org",
)


def dumped(step=1, **changes):
    usual = {
        "step": step,
        "demo": "gsm8k_0",
        "depth": 0,
        "share": 0.0,
        "cut_tok": 0,
        "prompt": "Two and two?",
        "prefix": "",
        "response": "four",
        "gold": "4",
        "reward": 0.0,
        "parsed": None,
        "length": 4,
    }
    return Dumped(**(usual | changes))


def right(step=1, **changes):
    return dumped(step, **({"reward": 1.0, "correct": True, "parsed": "4"} | changes))


def write(path, rows):
    for step, of_step in groupby(rows, key=lambda row: row.step):
        append_dump(path, step, of_step)


class Page(HTMLParser):
    """What a browser would make of a page: its tags, and the text inside each script."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)

    def handle_endtag(self, tag):
        self.lasttag = ""

    @property
    def data(self):
        return json.loads(self.scripts[0], parse_constant=pytest.fail)


@pytest.fixture
def page(tmp_path):
    def make(rows, *, title="Rollouts of run", **choice):
        write(tmp_path / "rollouts.jsonl", rows)
        view = collect(tmp_path / "rollouts.jsonl", Choice(**choice), limit=5000)
        write_page(tmp_path / "page.html", view, title=title)
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return make


def nasty_rows():
    return [
        dumped(prompt=bad, prefix=bad, response=bad, gold=bad, parsed=bad, demo=bad, error=bad)
        for bad in NASTY
    ]


def test_what_a_model_wrote_adds_no_tag_to_the_page(page):
    plain, nasty = Page(page([dumped()], title="t")), Page(page(nasty_rows(), title=NASTY[1]))
    names = [tag for tag, _ in plain.tags]
    assert [tag for tag, _ in nasty.tags] == names
    assert names.count("script") == 2
    assert NASTY[1] in "".join(nasty.words)  # the title, as text


def test_the_data_come_back_from_the_page(page):
    rows = nasty_rows()
    data = Page(page(rows)).data
    assert [data["prompts"][row["prompt"]] for row in data["rows"]] == list(NASTY)
    for name in ("prefix", "response", "gold", "parsed", "demo", "error"):
        assert [row[name] for row in data["rows"]] == list(NASTY)


def test_no_letter_that_could_begin_a_tag_stands_in_the_data(page):
    written = Page(page(nasty_rows())).scripts[0]
    assert not set(written) & set("<>&\u2028\u2029\x00")
    assert written.isascii()


def test_the_page_refers_to_nothing_outside(page):
    text = page([dumped()])
    for tag, attributes in Page(text).tags:
        assert not {"src", "href", "action", "srcset", "data"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    without_data = text.replace(Page(text).scripts[0], "")
    assert not re.search(r"https?://|@import|url\(|//[a-z]+\.", without_data)


def test_only_our_own_script_may_run(page):
    parsed = Page(page(nasty_rows()))
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "innerHTML" not in parsed.scripts[1]


def test_numbers_that_json_lacks_are_null(page):
    rows = [dumped(kl=math.nan, advantage=math.inf, value=-math.inf, reward=None, error="boom")]
    (row,) = Page(page(rows)).data["rows"]
    assert (row["kl"], row["advantage"], row["value"]) == (None, None, None)
    assert row["grade"] == "failed"


def test_a_question_is_stored_once(page):
    rows = [dumped(prompt=f"question {index % 2}") for index in range(10)]
    assert Page(page(rows)).data["prompts"] == ["question 0", "question 1"]


def test_depths_are_counted_by_hand(tmp_path):
    rows = [
        right(depth=2, share=0.5, length=2, kl=0.5, ended=False),
        dumped(depth=2, share=0.7, reward=0.2, length=4, kl=0.1),
        dumped(depth=2, share=0.6, reward=None, error="boom", length=6),
        dumped(depth=0),
    ]
    append_dump(tmp_path / "a", 1, rows)
    bare, deep = collect(tmp_path / "a", Choice(), limit=10).depths
    assert (bare.depth, bare.num, bare.right, bare.success.value) == (0, 1, 0, 0.0)
    assert math.isnan(bare.kl)
    assert (deep.num, deep.right, deep.partial, deep.truncated, deep.failed) == (3, 1, 1, 1, 1)
    assert (deep.success.value, deep.success.n) == (0.5, 2)  # the failed one is not judged
    assert (deep.share, deep.length, deep.kl) == pytest.approx((0.6, 4.0, 0.3))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"steps": (2, 4)}, [2, 3, 4]),
        ({"depth": 3}, [2]),
        ({"only": "right"}, [1]),
        ({"only": "wrong"}, [2, 3]),
        ({"only": "partial"}, [3]),
        ({"only": "truncated"}, [1, 4]),
        ({"text": "EIGHTEEN"}, [5]),
        ({"text": "and\nfour"}, [3]),
        ({"text": "<b>", "only": "wrong", "steps": (2, 2)}, [2]),
        ({"text": "nowhere"}, []),
    ],
)
def test_choices(tmp_path, choice, expected):
    rows = [
        right(1, ended=False),
        dumped(2, depth=3, response="<b>"),
        dumped(3, reward=0.1, prefix="two and", response="\nfour"),
        dumped(4, reward=None, error="boom", ended=False),
        dumped(5, parsed="Eighteen", reward=None),
    ]
    write(tmp_path / "a", rows)
    view = collect(tmp_path / "a", Choice(**choice), limit=10)
    assert [row.step for row in view.rows] == expected
    assert (view.total, view.matching) == (5, len(expected))


@given(num=st.integers(1, 400), limit=st.integers(1, 40))
def test_a_sample_is_even_and_in_order(num, limit):
    sample = EvenSample(limit)
    for step in range(num):
        sample.add(dumped(step))
    steps = [row.step for row in sample.rows()]
    assert len(steps) == min(num, limit)
    assert steps == sorted(set(steps))
    gaps = [b - a for a, b in zip(steps, [*steps[1:], num], strict=True)]
    assert steps[0] == 0
    assert all(gap <= 4 * max(1, num / limit) for gap in gaps)


@pytest.mark.parametrize(
    ("limit", "steps"),
    [(9, [0, 1, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5]), (4, [0, 1, 3, 4]), (1, [0])],
)
def test_rows_are_taken_evenly(limit, steps):
    assert [row.step for row in evenly([dumped(step) for step in range(6)], limit)] == steps


def test_more_than_the_page_holds_are_thinned_and_said(tmp_path):
    append_dump(tmp_path / "a", 1, [right(depth=index % 2) for index in range(25)])
    view = collect(tmp_path / "a", Choice(), limit=10)
    assert (view.matching, len(view.rows)) == (25, 10)
    assert sum(one.num for one in view.depths) == 25
    write_page(tmp_path / "page.html", view, title="t")
    text = " ".join((tmp_path / "page.html").read_text().split())
    assert "25 rollouts in the file, 25 chosen; the page holds 10 of them, evenly taken" in text


def test_no_rollouts_make_a_page_too(tmp_path):
    append_dump(tmp_path / "a", 1, [dumped()])
    view = collect(tmp_path / "a", Choice(depth=7), limit=10)
    write_page(tmp_path / "page.html", view, title="t")
    parsed = Page((tmp_path / "page.html").read_text())
    assert parsed.data == {"prompts": [], "rows": []}
    assert "No rollout was chosen." in "".join(parsed.words)


def test_a_damaged_dump_is_refused(tmp_path):
    (tmp_path / "a").write_text("{}\n")
    with pytest.raises(DataError, match="is no rollout"):
        collect(tmp_path / "a", Choice(), limit=10)


def browse(path, fragment=""):
    """The document of a page after its script has run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    words += [f"--user-data-dir={path.parent / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [browser, *words, f"{path.as_uri()}{fragment}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.browser
def test_a_browser_shows_the_rollouts_as_text(tmp_path, page):
    page([*nasty_rows(), right(7, depth=3)])
    shown = browse(tmp_path / "page.html")
    parsed = Page(shown)
    assert [tag for tag, _ in parsed.tags].count("article") == len(NASTY) + 1
    assert [tag for tag, _ in parsed.tags].count("script") == 2
    assert [tag for tag, _ in parsed.tags].count("img") == 0
    words = "".join(parsed.words)
    assert NASTY[1] in words
    assert "\u27e8202E\u27e9gnp.exe" in words  # what turns the direction of writing is shown
    assert "\u202e" not in words


@pytest.mark.browser
def test_a_browser_filters_by_the_address(tmp_path, page):
    page([right(7, depth=3), dumped(8, response="eight"), dumped(9, depth=1), right(9)])
    for fragment, expected in {
        "": "4 of 4, 50.0 % right",
        "#only=right&depth=3": "1 of 4, 100.0 % right",
        "#text=EIGHT": "1 of 4, 0.0 % right",
        "#first=9": "2 of 4, 50.0 % right",
        "#only=failed": "0 of 4",
    }.items():
        shown = browse(tmp_path / "page.html", fragment)
        assert f'role="status">{expected}</span>' in shown
