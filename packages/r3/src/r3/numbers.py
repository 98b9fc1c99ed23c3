r"""Numbers as models write them, read exactly and without evaluating anything.

    value = parse_number("$1,234.50 per day.")  # Fraction(2469, 2)

Read are integers, decimals, `3/4`, `1 1/2`, `\frac{3}{4}`, `1e3`, signs, currencies, thousands
separators (`1,234` and `1 234`, but not `1,2`), words of scale (`5 million`), units behind the
number and marks around it (`**18**`, `$18$`, `\boxed{18}`). A percent sign is a unit: `50%` is 50,
as the gold answers of GSM8K have it. Whatever holds a second number or an operator, such as `9**9`,
`5-3` or `5 or 6`, is no number; neither are NaN, infinity and digits other than 0 to 9.

A `k` or `K` glued to the number is a thousand: `18k` is 18,000. Other letters of scale may be units
as well: glued to the number, `18m` (million or metres?), `18b`, `18bn` and `18t` are no numbers.
All that is a unit for sure is passed over: `18kg`, `18cm`, and whatever stands apart, as in `18 m`.

Before the number may stand `=` or `x =`, and that it is not exact: `about`, `approximately`,
`around`, `roughly`, `~` or `≈`. Behind it may stand what it was worked out from, `= 9*2`, if that
is made of digits and operators alone. It is not worked out again: the number is what counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

__all__ = ["MAX_LENGTH", "number_text", "parse_number"]

MAX_LENGTH = 200
"""Characters of a text at most, blanks around it aside: a longer one is no number."""
MAX_EXPONENT = 100
"""Largest power of ten in scientific notation."""

_DIGITS = "[0-9]{1,100}"
_SPACES = "[ \u00a0\u2009\u202f]"
_GROUPED = rf"[1-9][0-9]{{0,2}}(?:(?:,[0-9]{{3}}){{1,30}}|(?:{_SPACES}[0-9]{{3}}){{1,30}})"
_SIGN = r"(?P<sign>[-+−–]?)"
_MONEY = r"[$€£]?"

_DECIMAL = re.compile(
    rf"(?P<whole>{_GROUPED}|{_DIGITS})?(?P<part>\.{_DIGITS})?(?:[eE](?P<power>[-+−]?[0-9]{{1,3}}))?"
)
_FRACTION = re.compile(
    rf"(?:(?P<whole>{_DIGITS}){_SPACES})?(?P<over>{_GROUPED}|{_DIGITS}) ?/ ?(?P<under>{_DIGITS})"
)
_LATEX = re.compile(
    rf"(?P<whole>{_DIGITS})? ?\\[dt]?frac ?\{{ ?(?P<over>{_DIGITS}) ?\}} ?"
    rf"\{{ ?(?P<under>{_DIGITS}) ?\}}"
)
_LEAD = re.compile(rf"{_MONEY} ?{_SIGN} ?{_MONEY} ?")
_SCALES: Mapping[str, int] = MappingProxyType(
    {
        "hundred": 10**2,
        "thousand": 10**3,
        "million": 10**6,
        "billion": 10**9,
        "trillion": 10**12,
    }
)
_SCALE_WORD = re.compile(rf"(?:{_SPACES}{{0,2}}|-)({'|'.join(_SCALES)})s?\b", re.IGNORECASE)
_GLUED = re.compile(r"[^\W\d_]{1,4}(?![^\W\d_])")
_AMBIGUOUS = frozenset({"m", "mn", "b", "bn", "t", "tn"})
"""Million or metre, billion or byte, trillion or ton."""

_BEFORE = re.compile(
    r"(?:[A-Za-z] {0,2}[=≈~]|[=≈~])? {0,2}"
    r"(?:(?:about|approximately|around|roughly) {1,2}|[≈~] {0,2})?",
    re.IGNORECASE,
)
_TERM = r"[ ($€£]{0,6}(?:[-−][$€£]?)?[0-9]{1,30}(?:,[0-9]{3}){0,10}(?:\.[0-9]{1,30})?[ )%]{0,6}"
_WORKED_OUT = re.compile(rf"{_TERM}(?:(?:[-+−–*/×÷·x]|\\times|\\cdot|\\div){_TERM}){{1,40}}\.?")
"""Behind an equals sign; a single number would be a second answer."""

_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox) ?\{([^{}]{0,100})\}")
_MARKUP = re.compile(r"\\([%$])|\{(,)\}|\\[,;!: ]")
_WRAPPERS = (
    *(("**", "**"), ("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"), ("`", "`")),
    *(("\\boxed{", "}"), ("\\fbox{", "}"), ("{", "}"), ("(", ")"), ("[", "]")),
    *(('"', '"'), ("'", "'"), ("“", "”")),
)
_OPERATORS = frozenset("*^=<>+×÷·√\\_|~#@&{}≈≠≤≥")
"""Behind a number these make it a formula."""


def parse_number(text: str) -> Fraction | None:
    """The number that a text begins with, exactly; None if it does not hold just one number."""
    text = _unwrapped(text.strip())
    if len(text) > MAX_LENGTH:
        return None
    text = _MARKUP.sub(_without_markup, _WORDS.sub(r" \1", text))
    before = _BEFORE.match(text)
    assert before is not None, "every part of it may be missing"
    lead = _LEAD.match(text, before.end())
    assert lead is not None, "every part of it may be missing"
    found = _value(text, lead.end())
    if found is None:
        return None
    scaled = _scaled(text, *found)
    if scaled is None:
        return None
    value, end = scaled
    unit, _, worked_out = text[end:].partition("=")
    behind = unit if _WORKED_OUT.fullmatch(worked_out) else text[end:]
    if any(one.isnumeric() or one in _OPERATORS for one in behind):
        return None
    return -value if lead["sign"] in {"-", "−", "–"} else value


def number_text(value: Fraction) -> str:
    """A number in one form: a plain decimal where that is exact, otherwise a fraction."""
    places, rest = 0, value.denominator
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else sign + digits


def _unwrapped(text: str) -> str:
    """Without marks around the whole text, a few layers of them at most."""
    for _ in range(6):
        text = text.rstrip(".").strip()
        for before, behind in _WRAPPERS:
            inner = text[len(before) : len(text) - len(behind)]
            if text == before + inner + behind and inner:
                text = inner
                break
        else:
            break
    return text


def _without_markup(found: re.Match[str]) -> str:
    """LaTeX's escaped signs as plain ones, and its blanks away."""
    return found[1] or found[2] or ""


def _scaled(text: str, value: Fraction, end: int) -> tuple[Fraction, int] | None:
    """A number times the scale behind it, and where that ends; None if it may be a unit as well."""
    if word := _SCALE_WORD.match(text, end):
        return value * _SCALES[word[1].lower()], word.end()
    glued = _GLUED.match(text, end)
    letters = glued[0] if glued else ""
    if letters.lower() in _AMBIGUOUS:
        return None
    return (value * 1000, end + 1) if letters in ("k", "K") else (value, end)


def _value(text: str, start: int) -> tuple[Fraction, int] | None:
    """A number without its sign, and where it ends."""
    for pattern in (_LATEX, _FRACTION):
        if found := pattern.match(text, start):
            value = _ratio(found)
            return None if value is None else (value, found.end())
    decimal = _DECIMAL.match(text, start)
    assert decimal is not None, "every part of it may be missing"
    if decimal["whole"] is None and decimal["part"] is None:
        return None
    power = int((decimal["power"] or "0").replace("−", "-"))
    if abs(power) > MAX_EXPONENT:
        return None
    plain = Fraction(_digits(decimal["whole"] or "0") + (decimal["part"] or ""))
    return plain * Fraction(10) ** power, decimal.end()


def _ratio(found: re.Match[str]) -> Fraction | None:
    """A fraction, alone or behind a whole number."""
    over, under = int(_digits(found["over"])), int(found["under"])
    if under == 0:
        return None
    if found["whole"] is None:
        return Fraction(over, under)
    return Fraction(over, under) + int(found["whole"]) if over < under else None


def _digits(grouped: str) -> str:
    """Digits without separators of thousands."""
    return re.sub(rf",|{_SPACES}", "", grouped)
