"""Who may import whom, and what must stay light."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "vllm")
HEAVY_HALF = ("device", "models", "tiny", "trainers", "testing", "rl")
HEAVY_BACKENDS = ("decoding", "defaults", "hf", "jobs", "prompts", "vllm")
LIGHT_MODULES = ("config", "presets", "claims", "cli")
SKELETON = (
    "__init__.py",
    "__main__.py",
    "claims.py",
    "cli.py",
    "config.py",
    "mini.py",
    "presets.py",
    "py.typed",
    "recipes/mini.sh",
    "recipes/paper.sh",
    "report.py",
    "world.py",
)


def modules(source: Path) -> list[tuple[str, Path]]:
    """Dotted name and file of every module below a source folder."""
    found = []
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return found


def imported(name: str, file: Path) -> set[str]:
    """Dotted names that a module imports anywhere, relative imports resolved."""
    names = set()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = (
                ".".join([*above, *([node.module] if node.module else [])])
                if node.level
                else (node.module or "")
            )
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def is_light(name: str) -> bool:
    """Whether a module of the core belongs to its light half."""
    part, within = [*name.split("."), "", ""][1:3]
    if part == "generate":
        return within not in HEAVY_BACKENDS
    return part not in HEAVY_HALF and part != "__main__"


def heavy_after_importing(names: list[str], command) -> str:
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = command(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_light_half_of_the_core_imports_nothing_heavy(core, command):
    names = [name for name, _ in modules(core.source) if is_light(name)]
    assert len(names) > 10
    assert heavy_after_importing(names, command) == ""


def test_configs_presets_claims_and_cli_import_nothing_heavy(package, command):
    names = [f"{package.import_name}.{module}" for module in LIGHT_MODULES]
    assert heavy_after_importing(names, command) == ""


def test_packages_do_not_import_each_other(package, packages):
    others = {p.import_name for p in packages} - {package.import_name}
    for name, file in modules(package.source):
        roots = {target.split(".")[0] for target in imported(name, file)}
        assert not roots & others, file


def test_the_core_imports_no_package(core, packages):
    names = {p.import_name for p in packages}
    for name, file in modules(core.source):
        assert not names & {target.split(".")[0] for target in imported(name, file)}, file


@pytest.mark.parametrize("part", ["rl", "sandbox"])
def test_rl_and_sandbox_stand_almost_alone(core, part):
    """They use the core's errors and log, and nothing else of it."""
    own = f"papercore.{part}"
    files = [(n, f) for n, f in modules(core.source) if n == own or n.startswith(own + ".")]
    if not files:
        pytest.skip(f"{own} does not exist yet")
    allowed = {"papercore.errors", "papercore.log", own}
    known = {name for name, _ in modules(core.source)} - {"papercore"}
    for name, file in files:
        used = {t for t in imported(name, file) if t in known}
        assert all(any(u == a or u.startswith(a + ".") for a in allowed) for u in used), file


def test_every_package_has_the_same_skeleton(package):
    missing = [part for part in SKELETON if not (package.source / part).is_file()]
    assert not missing, f"{package.name} lacks {missing}"


def test_a_package_lists_what_it_offers_without_importing_it(package, command):
    name = package.import_name
    code = (
        f"import sys, {name}\nmissing = set({name}.__all__) - set(dir({name}))\n"
        f"assert not missing, missing\nassert 'torch' not in sys.modules\n"
        f"assert all(hasattr({name}, one) for one in dir({name}))"
    )
    done = command(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_modules_are_named_after_what_they_hold(member):
    for _, file in modules(member.source):
        assert file.stem not in {"utils", "util", "helpers", "misc", "common"}, file
