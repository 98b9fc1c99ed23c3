r"""Runs programs that a model wrote: fast, and so that they can do no harm.

    with Sandbox(workers=2) as sandbox:
        result = sandbox.run(Program(code, tests=(StdinTest("3\n", "6\n"),)))
    result.passed, result.outcome, result.tests[0].stdout

A program runs in a child of a fork server, with limits on time, memory and output, without
privileges, files, sockets and processes (`levels` says by which layers). What it should have
answered never enters it: it returns plain data, and the comparison is made here.
"""

from papercore.sandbox.compare import Comparison, same_text, same_value
from papercore.sandbox.levels import Level, Probe, probe
from papercore.sandbox.pool import Sandbox
from papercore.sandbox.types import (
    CallTest,
    Coverage,
    Limits,
    Outcome,
    Program,
    RunResult,
    Statement,
    StdinTest,
    TestResult,
)

__all__ = [
    "CallTest",
    "Comparison",
    "Coverage",
    "Level",
    "Limits",
    "Outcome",
    "Probe",
    "Program",
    "RunResult",
    "Sandbox",
    "Statement",
    "StdinTest",
    "TestResult",
    "probe",
    "same_text",
    "same_value",
]
