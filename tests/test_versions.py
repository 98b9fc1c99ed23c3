"""One version everywhere, a lock that can be trusted, and files that name no private place."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

LOCK = "requirements.lock"


def requirements(lock: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Name -> (requirement, hashes) of a hashed requirements file."""
    found = {}
    for entry in lock.replace("\\\n", " ").splitlines():
        text = entry.split("#")[0] if entry.startswith("#") else entry
        if text.strip():
            head, *hashes = text.split("--hash=")
            requirement = Requirement(head.strip())
            found[requirement.name] = (requirement, [h.strip() for h in hashes])
    return found


@pytest.fixture(scope="module")
def lock(root):
    return (root / LOCK).read_text("utf-8")


@pytest.fixture(scope="module")
def settings(root):
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def test_every_member_has_the_version_of_the_core(member, core, settings):
    assert member.project["version"] == core.project["version"] == settings["project"]["version"]


def test_the_installed_version_is_the_one_in_the_source(member):
    assert version(member.name) == member.project["version"], "run `make setup`"
    module = importlib.import_module(member.import_name)
    assert getattr(module, "__version__", member.project["version"]) == member.project["version"]


def test_every_package_pins_the_core_to_its_own_version(package, core):
    project = package.project
    extras = project.get("optional-dependencies", {}).values()
    texts = project["dependencies"] + [text for extra in extras for text in extra]
    pins = [r for r in map(Requirement, texts) if r.name == core.name]
    assert pins, f"{package.name} does not depend on {core.name}"
    assert {str(pin.specifier) for pin in pins} == {f"=={core.project['version']}"}


def test_changelog_and_citation_name_the_version(root, core):
    number = re.escape(core.project["version"])
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    citation = (root / "CITATION.cff").read_text("utf-8")
    assert re.search(rf"^## {number}\b", changelog, re.MULTILINE)
    assert re.search(rf"^version: {number}$", citation, re.MULTILINE)


def test_the_workspace_knows_every_package(package, settings):
    assert settings["tool"]["uv"]["sources"].get(package.name) == {"workspace": True}
    named = {Requirement(r).name for r in settings["dependency-groups"]["dev"]}
    assert package.name in named, "the root's dev group must name every package"


def test_every_member_carries_the_licence(member, root):
    assert member.project["license-files"] == ["LICENSE"]
    assert (member.folder / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()


def test_every_locked_package_has_an_exact_version_and_hashes(lock):
    for name, (requirement, hashes) in requirements(lock).items():
        assert re.fullmatch(r"==[\w.+!-]+", str(requirement.specifier)), name
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), name


def test_the_lock_names_no_host(lock):
    assert not re.search(r"://|index-url|find-links|trusted-host|^-e|file:", lock, re.MULTILINE)


def test_the_lock_holds_the_pinned_versions(lock, settings):
    uv = settings["tool"]["uv"]
    pins = [Requirement(r) for r in uv["constraint-dependencies"] + uv["override-dependencies"]]
    locked = requirements(lock)
    for pin in pins:
        if pin.name != "vllm":  # vLLM has an environment of its own
            assert str(locked[pin.name][0].specifier) == str(pin.specifier), pin.name


def test_the_lock_covers_what_every_member_asks_for(member, lock):
    project = member.project
    extras = project.get("optional-dependencies", {})
    wanted = project["dependencies"] + [
        t for name in extras if name != "vllm" for t in extras[name]
    ]
    locked = requirements(lock)
    for requirement in map(Requirement, wanted):
        if requirement.name != "papercore":
            assert requirement.name in locked, f"{requirement.name}: run `make lock`"
            pinned = str(locked[requirement.name][0].specifier).removeprefix("==")
            assert requirement.specifier.contains(pinned), requirement


# Spelled in pieces, so that this file does not hold what it looks for.
HOSTS = ("py" + "pi.org", "python" + "hosted.org", "download.py" + "torch.org", "ana" + "conda.org")
HOMES = tuple("/" + start + "/" for start in ("ho" + "me", "Us" + "ers", "ro" + "ot", "wo" + "rk"))


def test_no_committed_file_names_a_registry_host_or_a_private_path(root):
    if not (root / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    paths = re.compile(rf"(?<![\w.}}/-])(?:{'|'.join(HOMES)})[\w.-]")
    offences = []
    for name in filter(None, listed.stdout.split("\0")):
        file = root / name
        if not file.is_file():
            continue
        text = file.read_bytes().decode("utf-8", "replace")
        offences += [f"{name}: {host}" for host in HOSTS if host in text]
        offences += [f"{name}: {match.group()}..." for match in paths.finditer(text)]
    assert not offences, offences


def test_no_page_installs_a_package_of_ours_from_elsewhere(root, packages):
    """`r3` is somebody else's name on the public registry, so every line says where ours is."""
    ours = {p.name for p in packages}
    for page in [root / "README.md", *root.glob("docs/*.md"), *root.glob("packages/*/README.md")]:
        for line in page.read_text("utf-8").splitlines():
            words = line.replace("`", " ").split()
            if "install" in words and ours & {w.split("[")[0] for w in words}:
                assert "--find-links" in words or "pip" not in words, f"{page.name}: {line}"
