"""Statements that ran, against what `sys.settrace` sees; and nothing else changes."""

import ast
import contextlib
import io
import sys
import textwrap
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercore.sandbox import CallTest, Limits, Program, Sandbox, Statement, StdinTest, probe
from papercore.sandbox.inside.probes import PROBE, instrumented

FILE = "<program>"
LINUX = pytest.mark.skipif(
    probe().level in (None, "rlimits", "seccomp"), reason="this machine has no level landlock"
)

PROGRAMS = {
    "straight": "x = 1\ny = 2\n",
    "if": "x = 1\nif x:\n    y = 1\nz = 1\n",
    "if_not": "x = 0\nif x:\n    y = 1\nz = 1\n",
    "else": "x = 0\nif x:\n    y = 1\nelse:\n    y = 2\n",
    "elif": "x = 2\nif x == 1:\n    y = 1\nelif x == 2:\n    y = 2\nelif x == 3:\n    y = 3\n",
    "elif_else": "x = 9\nif x == 1:\n    y = 1\nelif x == 2:\n    y = 2\nelse:\n    y = 3\n",
    "nested_if": "x = 1\nif x:\n    if not x:\n        y = 1\n    else:\n        y = 2\n",
    "for": "for i in range(3):\n    x = i\nelse:\n    y = 1\nz = 1\n",
    "for_never": "for i in ():\n    x = i\nz = 1\n",
    "for_break": "for i in range(3):\n    if i:\n        break\n    x = 1\n"
    "else:\n    y = 1\nz = 1\n",
    "for_continue": "for i in range(3):\n    if i < 9:\n        continue\n    x = 1\n",
    "while": "i = 0\nwhile i < 2:\n    i += 1\nelse:\n    y = 1\n",
    "while_break": "while True:\n    x = 1\n    break\nelse:\n    y = 1\nz = 1\n",
    "while_never": "x = 0\nwhile x:\n    y = 1\nz = 1\n",
    "try": "try:\n    x = 1\nexcept ValueError:\n    y = 1\n"
    "else:\n    z = 1\nfinally:\n    w = 1\n",
    "except": "try:\n    int('a')\n    x = 1\nexcept ValueError:\n    y = 1\nelse:\n    z = 1\n",
    "except_second": "try:\n    {}[1]\nexcept OSError:\n"
    "    y = 1\nexcept KeyError as error:\n    z = 1\n",
    "finally": "try:\n    x = 1\nfinally:\n    y = 1\nz = 1\n",
    "try_return": "def f():\n    try:\n        return 1\n    finally:\n"
    "        x = 1\n    y = 1\nf()\n",
    "raise_through": "def f():\n    {}[1]\n    x = 1\ntry:\n    f()\nexcept KeyError:\n    y = 1\n",
    "early_return": "def f(x):\n    if x:\n        return 1\n    y = 1\n    return y\nf(1)\n",
    "both_returns": "def f(x):\n    if x:\n        return 1\n    y = 1\n    return y\nf(1)\nf(0)\n",
    "never_called": "def f():\n    x = 1\ndef g():\n    y = 1\ng()\n",
    "nested_never": "def f():\n    def g():\n        x = 1\n    y = 1\nf()\n",
    "nested_called": "def f():\n    def g():\n        x = 1\n    g()\nf()\n",
    "default": "def f(x=1, *, y=2):\n    return x\nf()\n",
    "decorator": "def d(f):\n    return f\n@d\ndef g():\n    x = 1\nx = 1\n",
    "lambda": "f = lambda x: x + 1\nif f(1) == 3:\n    y = 1\n",
    "generator": "def f():\n    yield 1\n    yield 2\nfor x in f():\n    break\n",
    "generator_whole": "def f():\n    yield 1\n    x = 2\nlist(f())\n",
    "comprehension": "x = [i for i in range(3) if i]\ny = {i: i for i in x}\n",
    "class": "class A:\n    x = 1\n    def f(self):\n        return 1\n"
    "    def g(self):\n        y = 1\nA().f()\n",
    "class_never": "if 0:\n    class A:\n        x = 1\ny = 1\n",
    "method_late": "class A:\n    def f(self):\n        x = 1\nx = 1\n",
    "with": "import contextlib\nwith contextlib.suppress(KeyError):\n    {}[1]\n    x = 1\ny = 1\n",
    "with_two": "import contextlib\nwith contextlib.nullcontext() as a, contextlib.nullcontext():\n"
    "    x = 1\n",
    "match": "x = [1, 2]\nmatch x:\n    case []:\n        y = 1\n"
    "    case [a, b]:\n        y = 2\n    case _:\n        y = 3\n",
    "match_none": "match 3:\n    case 1:\n        y = 1\n    case 2:\n        y = 2\nz = 1\n",
    "match_guard": "match 3:\n    case x if x > 5:\n        y = 1\n    case x:\n        y = 2\n",
    "global": "x = 1\ndef f():\n    global x\n    x = 2\nf()\n",
    "nonlocal": "def f():\n    x = 1\n    def g():\n        nonlocal x\n"
    "        x = 2\n    g()\nf()\n",
    "docstring": "'doc'\nx = 1\ndef f():\n    'doc'\n    return 1\n"
    "class A:\n    'doc'\n    x = 1\nf()\n",
    "only_docstring": "def f():\n    'doc'\nf()\n",
    "future": "'doc'\nfrom __future__ import annotations\nx: nothing = 1\n",
    "import": "import math\nfrom math import pi\nx = pi\n",
    "delete": "x = 1\ndel x\n",
    "assert": "assert True\nx = 1\n",
    "pass": "if 1:\n    pass\nelse:\n    pass\n",
    "long_call": "x = max(\n    1,\n    2,\n)\ny = 1\n",
    "recursion": "def f(n):\n    if n == 0:\n        return 0\n    return f(n - 1)\nf(3)\n",
    "async": "async def f():\n    x = 1\n    return x\ntry:\n"
    "    f().send(None)\nexcept StopIteration:\n    y = 1\n",
    "star_handlers": "try:\n    x = 1\nexcept* ValueError:\n    y = 1\n",
    "unknown_name": "x = 1\nif x:\n    nothing\ny = 1\n",
    "stops": "def f():\n    raise SystemExit\n    x = 1\nf()\ny = 1\n",
}
UNSEEN = ast.Global | ast.Nonlocal
"""Statements without code, of which a tracer sees nothing."""


def execute(code, space):
    """Runs code; what it printed, and how it ended."""
    said = io.StringIO()
    error = None
    with contextlib.redirect_stdout(said):
        try:
            exec(code, space)
        except BaseException:  # noqa: BLE001 - a program may raise anything
            error = traceback.format_exc()
    return said.getvalue(), error and error[error.find(f'File "{FILE}"') :]


def with_probes(source):
    """Places of statements that ran and that did not, and what was seen of it."""
    tree, places = instrumented(ast.parse(source, FILE))
    hits = bytearray(len(places))
    seen = execute(compile(tree, FILE, "exec", dont_inherit=True), {PROBE: hits})
    pairs = list(zip(places, hits, strict=True))
    return [one for one, hit in pairs if hit], [one for one, hit in pairs if not hit], seen


def traced(source):
    """Lines that a tracer sees."""
    lines = set()

    def trace(frame, event, argument):
        if frame.f_code.co_filename != FILE:
            return None
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    code = compile(source, FILE, "exec", dont_inherit=True)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        execute(code, {})
    finally:
        sys.settrace(before)
    return lines


def first_lines(source, kinds):
    """Where statements of some kinds begin; decorated ones at the decorator."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds):
            decorators = getattr(node, "decorator_list", ())
            found.add(min([node.lineno, *(one.lineno for one in decorators)]))
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_lines_of_a_tracer(name):
    source = PROGRAMS[name]
    ran, _, _ = with_probes(source)
    not_both = first_lines(source, UNSEEN) | first_docs(source)
    seen = traced(source) & first_lines(source, ast.stmt)  # not lines inside of a statement
    assert {one[0] for one in ran} - not_both == seen - not_both


def first_docs(source):
    """Lines of docstrings and of `from __future__`, which have no probe."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            found.add(node.body[0].lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.add(node.lineno)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_output_errors_and_globals_do_not_change(name):
    source = PROGRAMS[name] + "print(sorted(k for k in globals() if not k.startswith('__')))\n"
    plain = execute(compile(source, FILE, "exec", dont_inherit=True), {})
    assert with_probes(source)[2] == plain


def test_every_statement_has_a_place():
    for source in PROGRAMS.values():
        ran, missed, _ = with_probes(source)
        statements = sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(source)))
        docs = first_docs(source)
        assert len(ran) + len(missed) == statements - len(docs)
        assert len({*ran, *missed}) == len(ran) + len(missed)


def test_one_line_is_told_apart_where_a_tracer_cannot():
    ran, missed, _ = with_probes("x = 0\nif x: y = 1\nz = 1; w = 2\n")
    assert ran == [(1, 0, 1, 5), (2, 0, 2, 6), (3, 0, 3, 5), (3, 7, 3, 12)]
    assert missed == [(2, 6, 2, 11)]


def test_places_of_compound_statements_end_where_their_body_begins():
    source = "@d\ndef f():\n    return 1\nmatch x:\n    case 1:\n        pass\n"
    places = instrumented(ast.parse(source))[1]
    assert sorted(places) == [(1, 0, 3, 4), (3, 4, 3, 12), (4, 0, 5, 9), (6, 8, 6, 12)]


def test_columns_are_bytes():
    places = instrumented(ast.parse("x = 'é'; y = 1"))[1]
    assert places == [(1, 0, 1, 8), (1, 10, 1, 15)]


def test_errors_keep_their_lines():
    source = "def f(x):\n    y = 1\n\n    return (x +\n            nothing)\n\n\nf(\n    1\n)\n"
    plain = execute(compile(source, FILE, "exec"), {})
    assert "line 5" in plain[1]
    assert with_probes(source)[2] == plain


def test_docstrings_stay():
    source = "'a'\ndef f():\n    'b'\nclass A:\n    'c'\nprint(__doc__, f.__doc__, A.__doc__)\n"
    assert with_probes(source)[2][0] == "a b c\n"


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 63))
@settings(max_examples=60)
def test_nested_branches_by_hand(shape, bits):
    """A chain of if and else, of which the program itself says where it went."""
    lines, indent = [], ""
    for depth, deeper in enumerate(shape):
        lines += [f"{indent}if {bits} >> {depth} & 1:", f"{indent}    print({2 * depth})"]
        lines += [f"{indent}else:", f"{indent}    print({2 * depth + 1})"]
        indent += "    " if deeper else ""
    source = "\n".join(lines) + "\n"
    numbers = {n: int(one.strip()[6:-1]) for n, one in enumerate(lines, 1) if "print" in one}
    ran, _, (said, _) = with_probes(source)
    assert {numbers[one[0]] for one in ran if one[0] in numbers} == {*map(int, said.split())}


CHAIN = "x = int(input())\nif x == -1:\n    print(-1)\n" + "".join(
    f"elif x == {n}:\n    print({n})\n" for n in range(2900)
)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1, limits=Limits(cpu_s=1, wall_s=5)) as made:
        yield made


def lines_of(coverage):
    pairs = zip(coverage.statements, coverage.ran, strict=True)
    return {place.line for place, ran in pairs if ran}


@LINUX
def test_long_chains_compile_as_they_do_without_probes(sandbox):
    for more in ("", "\n".join(f"elif x == {n}: pass" for n in range(5000, 9000))):
        program = [
            Program(CHAIN + more, (StdinTest("2800", "2800"),), None, c) for c in (False, True)
        ]
        plain, probed = map(sandbox.run, program)
        assert (plain.outcome, plain.passed) == (probed.outcome, probed.passed)
    assert plain.outcome in ("compile", "memory")  # the parser's own stack counts as memory
    assert probed.coverage is None


@LINUX
def test_a_long_chain_is_covered(sandbox):
    program = Program(CHAIN, (StdinTest("2", "2"), StdinTest("7", "7")), None, coverage=True)
    result = sandbox.run(program)
    if result.outcome == "compile":
        pytest.skip(f"this Python does not compile it either: {result.tests[0].error}")
    assert result.passed
    seen = lines_of(result.coverage)
    assert 9 in seen  # print(2)
    assert 19 in seen
    assert not seen & {3, 5, 7, 11, 21}
    assert 20 not in seen


@LINUX
def test_statements_of_all_tests_are_joined(sandbox):
    source = "x = int(input())\nif x == 1:\n    a = 1\nelif x == 2:\n    b = 1\nelse:\n    c = 1\n"
    tests = (StdinTest("1"), StdinTest("2"))
    result = sandbox.run(Program(source, tests, coverage=True))
    assert lines_of(result.coverage) == {1, 2, 3, 4, 5}
    assert result.coverage.statements[0] == Statement(1, 0, 1, 16)
    assert sandbox.run(Program(source, tests)).coverage is None


@LINUX
def test_functions_are_covered_too(sandbox):
    source = "def f(x):\n    if x:\n        return 1\n    return 2\n"
    result = sandbox.run(Program(source, (CallTest((0,), 2),), "f", coverage=True))
    assert result.passed
    assert lines_of(result.coverage) == {1, 2, 4}


@LINUX
def test_an_error_covers_what_ran_before(sandbox):
    result = sandbox.run(Program("x = 1\n1 / 0\ny = 1", (StdinTest(""),), coverage=True))
    assert result.tests[0].line == 2
    assert lines_of(result.coverage) == {1, 2}


@LINUX
@pytest.mark.parametrize("name", ["straight", "for_break", "except", "class", "match", "future"])
def test_the_sandbox_sees_what_is_seen_here(sandbox, name):
    source = textwrap.dedent(PROGRAMS[name])
    result = sandbox.run(Program(source, (StdinTest(""),), coverage=True))
    pairs = zip(result.coverage.statements, result.coverage.ran, strict=True)
    ran = [tuple(place) for place, hit in pairs if hit]
    assert ran == with_probes(source)[0]


@LINUX
def test_who_forges_statements_changes_only_its_own(sandbox):
    code = (
        "import sys\nframe = sys._getframe()\n"
        f"globals()[{PROBE!r}][:] = b''\n"  # too few: they count as none
    )
    result = sandbox.run(Program(code, (StdinTest("", ""),), coverage=True))
    assert len(result.coverage.ran) == len(result.coverage.statements)
