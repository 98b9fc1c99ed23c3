from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError
from r3.steps import segments


def pieces(text: str, rule: str, regex: str | None = None) -> list[str]:
    ends = segments(text, rule, regex)
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("a\nb", ["a\n", "b"]),
        ("a\nb\n", ["a\n", "b\n"]),
        ("a\r\nb", ["a\r\n", "b"]),
        ("a\n\n \nb", ["a\n\n \n", "b"]),  # empty lines belong to the line before
        ("\n\na\nb", ["\n\na\n", "b"]),
        ("\n\n", ["\n\n"]),
        ("", []),
    ],
)
def test_lines(text, expected):
    assert pieces(text, "lines") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One and one. That is 2.", ["One and one.", " That is 2."]),
        ("Really? Yes! Good.", ["Really?", " Yes!", " Good."]),
        ("It is 3.5 kg. Done", ["It is 3.5 kg.", " Done"]),
        ("He has $1,000.50 now. Good.", ["He has $1,000.50 now.", " Good."]),
        ("It costs $1,000. Good.", ["It costs $1,000.", " Good."]),
        ("Mr. Fox met Dr. Hen.", ["Mr. Fox met Dr. Hen."]),
        ("Fruit, e.g. Apples, i.e. Food.", ["Fruit, e.g. Apples, i.e. Food."]),
        ("See No. 5 there. No. Never.", ["See No. 5 there.", " No.", " Never."]),
        ("J. R. Smith came. U.S. Steel fell.", ["J. R. Smith came.", " U.S. Steel fell."]),
        ("So do I. Then we go.", ["So do I.", " Then we go."]),
        ("At 5 p.m. we go. At 6 p.m. They go.", ["At 5 p.m. we go.", " At 6 p.m.", " They go."]),
        ("Apples, pears etc. are fruit.", ["Apples, pears etc. are fruit."]),
        ('"Why?" he asked. "So."', ['"Why?" he asked.', ' "So."']),
        ('He said "No." Then left.', ['He said "No."', " Then left."]),
        ("(It is 5.) Then 6.", ["(It is 5.)", " Then 6."]),
        ("**It is 5.** Then 6.", ["**It is 5.**", " Then 6."]),
        ("Well... Then. Or... not.", ["Well...", " Then.", " Or... not."]),
        ("What?! No.", ["What?!", " No."]),
        ("1. Add. 2. Go on.", ["1. Add.", " 2. Go on."]),
        ("我有苹果。你有3.5个！对", ["我有苹果。", "你有3.5个！", "对"]),
        ("他说「好。」对。", ["他说「好。」", "对。"]),
        ("One. Two.\nThree\n\nFour. ", ["One.", " Two.\n", "Three\n\n", "Four. "]),
        ("no end", ["no end"]),
        ("  ", ["  "]),
    ],
)
def test_sentences(text, expected):
    assert pieces(text, "sentences") == expected


PROGRAM = '''\
def solution():
    """How many
    eggs. """
    # what there is
    eggs = (16 -
            3)

    price = eggs \\
        * 2
    text = """a

b"""
    return price
'''


def test_code_is_cut_between_logical_lines():
    assert pieces(PROGRAM, "code-lines") == [
        "def solution():\n",
        '    """How many\n    eggs. """\n',
        "    # what there is\n    eggs = (16 -\n            3)\n\n",
        "    price = eggs \\\n        * 2\n",
        '    text = """a\n\nb"""\n',
        "    return price\n",
    ]


def test_body_of_a_function_without_its_head_is_code():
    assert pieces("    x = [1,\n  2]\n    return x", "code-lines") == [
        "    x = [1,\n  2]\n",
        "    return x",
    ]


@pytest.mark.parametrize(
    "text",
    ["He's 5.\nThen 3.", "x = (\ny", "a = '''\nb", "x = 1\ry = 2\nz", "  a\n b\nc", "\x00\na"],
)
def test_what_is_no_code_is_cut_at_lines(text):
    assert pieces(text, "code-lines") == pieces(text, "lines")


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        (r"; ", ["a; ", "b; ", "c"]),
        (r"(?=b)", ["a; ", "b; c"]),  # an empty match ends a step where it is
        (r"", ["a", "; ", "b", "; ", "c"]),  # no step is blank
        (r";", ["a;", " b;", " c"]),
        (r"^", ["a; b; c"]),
        (r"$", ["a; b; c"]),
        (r"none", ["a; b; c"]),
        (r".*", ["a; b; c"]),
    ],
)
def test_regex(regex, expected):
    assert pieces("a; b; c", "regex", regex) == expected


@pytest.mark.parametrize("regex", ["(", "*", "[a", "(?P<a>x)(?P<a>y)", "a{99999999999}"])
def test_regex_that_is_none_is_refused(regex):
    with pytest.raises(ConfigError, match="is no regular expression") as caught:
        segments("a", "regex", regex)
    assert "\n" not in str(caught.value)


TEXTS = st.text(max_size=80) | st.text(alphabet="aA1.?!。」\" \n\t\r#('\\=", max_size=80)


@given(TEXTS, st.sampled_from(["lines", "sentences", "code-lines", "regex"]))
def test_pieces_are_the_text(text, rule):
    ends = segments(text, rule, r"[.\s]" if rule == "regex" else None)
    assert ends == sorted(set(ends))
    found = pieces(text, rule, r"[.\s]")
    assert "".join(found) == text
    assert not text.strip() or all(piece.strip() for piece in found)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", [".", ". ", "a.", "A. ", "\n", " ", "(", "'", '"""', "#\n", "。"])
def test_hostile_texts_take_no_time(piece):
    for rule in ("lines", "sentences", "code-lines"):
        ends = segments(piece * 30_000, rule)
        assert ends == sorted(set(ends))
        assert ends[-1] == len(piece) * 30_000
