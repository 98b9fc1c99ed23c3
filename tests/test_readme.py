"""What a page shows as a console session really happens.

In a ```console block every line that starts with `$ ` is run, in order, in one temporary folder per
page. Lines below it are its expected output: they must match literally, and a line `...` stands for
any lines. Blocks marked ```bash need a GPU, the network or hours: they are only parsed.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(console|bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Step:
    """One command of a console block and the output it promises."""

    command: str
    expected: tuple[str, ...]


def pages() -> list[Path]:
    patterns = ("*.md", "docs/*.md", "shared/README.md", "packages/*/README.md")
    return [page for pattern in patterns for page in sorted(ROOT.glob(pattern))]


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def steps(block: str) -> list[Step]:
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if found and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line.removeprefix('> ')}", [])
        elif line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            assert found, f"output before the first command: {line!r}"
            found[-1][1].append(line)
    return [Step(command, tuple(lines)) for command, lines in found]


def matches(expected: tuple[str, ...], shown: str) -> bool:
    parts = ["(?:.*\n)*?" if e.strip() == "..." else re.escape(e.rstrip()) + "\n" for e in expected]
    text = "".join(line.rstrip() + "\n" for line in shown.strip("\n").splitlines())
    return re.fullmatch("".join(parts), text) is not None


def params(language: str) -> list[pytest.param]:
    """Pages with such blocks; those that run commands stay on the worker of their package."""
    found = [page for page in pages() if blocks(page, language)]
    group = [pytest.mark.xdist_group] if language == "console" else []
    return [
        pytest.param(
            page, id=str(page.relative_to(ROOT)), marks=[mark(page.parent.name) for mark in group]
        )
        for page in found
    ]


@pytest.mark.slow
@pytest.mark.timeout(2 * COMMAND_TIMEOUT_S)
@pytest.mark.parametrize("page", params("console"))
def test_console_blocks_run_and_show_what_the_page_shows(
    page, packages, miniature, command, tmp_path
):
    session = [step for block in blocks(page, "console") for step in steps(block)]
    text = "\n".join(step.command for step in session)
    caches = [miniature(p).cache for p in packages if re.search(rf"\b{p.name}\b", text)]
    env = {"PAPERCORE_CACHE": str(caches[0])} if caches else {}
    for step in session:
        done = command(
            "bash", "-c", step.command, cwd=tmp_path, env=env, timeout_s=COMMAND_TIMEOUT_S
        )
        assert done.returncode == 0, f"$ {step.command}\n{done.stdout}\n{done.stderr}"
        if step.expected:
            assert matches(step.expected, done.stdout), f"$ {step.command}\n{done.stdout}"


@pytest.mark.parametrize("page", params("console"))
def test_commands_of_console_blocks_parse(page):
    """In seconds, so that a quote which is not closed is not left to the slow test above."""
    for step in (step for block in blocks(page, "console") for step in steps(block)):
        done = subprocess.run(
            ["bash", "-n"], input=step.command, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"$ {step.command}\n{done.stderr}"


@pytest.mark.parametrize("page", params("bash"))
def test_bash_blocks_parse(page, command):
    for block in blocks(page, "bash"):
        done = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("page", params("python"))
def test_python_blocks_parse(page):
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in pages()])
def test_links_and_pictures_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text("utf-8"))
    local = [a or b for a, b in targets if not re.match(r"[a-z]+:|#", a or b)]
    missing = [target for target in local if not (page.parent / target.split("#")[0]).exists()]
    assert not missing


def test_every_distribution_has_a_readme_that_says_something(member):
    assert len((member.folder / "README.md").read_text("utf-8").split()) > 40


def test_a_console_block_is_read_as_commands_with_output():
    assert steps("$ a \\\n> b\none\n...\n$ c\n") == [
        Step("a \\\nb", ("one", "...")),
        Step("c", ()),
    ]


@pytest.mark.parametrize(
    ("expected", "shown", "same"),
    [
        (("one", "two"), "one\ntwo\n", True),
        (("one", "..."), "one\ntwo\nthree\n", True),
        (("...", "three"), "one\ntwo\nthree\n", True),
        (("one", "...", "two"), "one\ntwo\n", True),
        (("one",), "one\ntwo\n", False),
        (("o.e",), "one\n", False),
        (("one", "...", "four"), "one\ntwo\n", False),
    ],
)
def test_expected_output_matches_line_by_line(expected, shown, same):
    assert matches(expected, shown) is same
