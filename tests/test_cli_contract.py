"""Every package answers on the command line in the same way."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMON_VERBS = {"info", "mini", "report"}
RECIPES = ("mini", "paper")
SCRIPTS = Path(sys.executable).parent


def app(package):
    return importlib.import_module(f"{package.import_name}.cli").APP


def placeholders(verb) -> list[str]:
    """Words for what a verb requires and no preset gives, enough to parse."""
    from papercore.cli import load

    if verb.presets:
        return []
    words = []
    for name, field in load(verb.config).model_fields.items():
        if field.is_required():
            positional = any("Positional" in repr(mark) for mark in field.metadata)
            words += ["x"] if positional else [f"--{name.replace('_', '-')}", "x"]
    return words


@dataclass(frozen=True)
class Said:
    """What a command line answered, and what it had to import for that."""

    code: int
    out: str
    err: str
    heavy: str


@pytest.fixture(scope="module")
def answers(environment):
    """For every package, a process that answers its command lines; see `ask_cli`."""
    started: dict[str, subprocess.Popen[str]] = {}

    def of(name: str) -> subprocess.Popen[str]:
        if name not in started:
            started[name] = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("ask_cli.py"), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        return started[name]

    yield of
    for process in started.values():
        with process:
            process.stdin.close()


@pytest.fixture
def probe(package, answers, tmp_path):
    def ask(*words: str) -> Said:
        process = answers(package.import_name)
        process.stdin.write(json.dumps({"words": words, "cwd": str(tmp_path)}) + "\n")
        process.stdin.flush()
        return Said(**json.loads(process.stdout.readline()))

    return ask


def assert_one_line_refusal(said: Said, naming: str) -> None:
    assert said.code == 2, said
    assert len(said.err.splitlines()) == 1, said.err
    assert naming in said.err
    assert "Traceback" not in said.err
    assert said.heavy == ""


def test_a_package_has_the_common_verbs(package):
    names = [verb.name for verb in app(package).verbs]
    assert set(names) >= COMMON_VERBS
    assert len(set(names)) == len(names)
    assert app(package).name == package.name
    assert app(package).package == package.import_name


def test_the_console_script_has_the_name_of_the_package(package, command):
    assert package.project["scripts"] == {package.name: f"{package.import_name}.cli:main"}
    done = command(package.name, "--version")
    assert (done.returncode, done.stdout.split()) == (0, [package.name, package.project["version"]])


def test_the_package_runs_as_a_module_as_its_script_does(package, command):
    ran = [
        command(*start, "--version")
        for start in ([package.name], [sys.executable, "-m", package.import_name])
    ]
    script, module = [(done.returncode, done.stdout, done.stderr) for done in ran]
    assert module == script


def test_help_names_every_verb_and_imports_nothing_heavy(package, probe):
    said = probe("--help")
    assert (said.code, said.heavy, said.err) == (0, "", "")
    for verb in app(package).verbs:
        assert verb.name in said.out
        assert verb.help in said.out


def test_no_words_at_all_is_a_mistake_that_shows_the_help(package, probe):
    said = probe()
    assert said.code == 2
    assert package.name in said.out + said.err


def test_the_help_of_every_verb_imports_nothing_heavy(package, probe):
    for verb in app(package).verbs:
        said = probe(verb.name, "--help")
        assert (said.code, said.heavy) == (0, ""), (verb.name, said)
        assert "--dry-run" in said.out, verb.name
        assert "settings files are TOML" in said.out, verb.name


def test_a_dry_run_of_every_verb_prints_the_config_and_imports_nothing_heavy(
    package, probe, tmp_path
):
    from papercore.cli import load

    for verb in app(package).verbs:
        said = probe(verb.name, *placeholders(verb), "--dry-run")
        assert (said.code, said.heavy) == (0, ""), (verb.name, said)
        missing = [f for f in load(verb.config).model_fields if f not in said.out]
        assert not missing, f"{verb.name} --dry-run does not show {missing}"
    assert list(tmp_path.iterdir()) == []


def test_every_preset_of_every_verb_parses(package, probe):
    from papercore.cli import load

    for verb in app(package).verbs:
        for preset in load(verb.presets) if verb.presets else ():
            said = probe(verb.name, preset, "--dry-run")
            assert (said.code, said.heavy) == (0, ""), (verb.name, preset, said)


def test_info_imports_nothing_heavy_and_names_the_paper(package, probe):
    said = probe("info")
    assert (said.code, said.heavy) == (0, "")
    about = app(package).about
    assert about.arxiv in said.out


def test_an_unknown_verb_is_refused_in_one_line(probe):
    assert_one_line_refusal(probe("nonesuch"), "nonesuch")


def test_an_unknown_preset_is_refused_in_one_line(package, probe):
    from papercore.cli import load

    for verb in app(package).verbs:
        positional = "Positional" in repr(load(verb.config).model_fields)
        if not positional:
            assert_one_line_refusal(probe(verb.name, "nonesuch"), "nonesuch")


def test_an_unknown_flag_is_refused(package, probe):
    for verb in app(package).verbs:
        said = probe(verb.name, *placeholders(verb), "--nonesuch", "1")
        assert (said.code, said.heavy) == (2, ""), (verb.name, said)
        assert "Traceback" not in said.err


def test_an_unknown_key_in_a_file_is_refused_in_one_line(package, probe, tmp_path):
    (tmp_path / "mine.toml").write_text("nonesuch = 1\n")
    for verb in app(package).verbs:
        assert_one_line_refusal(probe(verb.name, "@mine.toml", *placeholders(verb)), "nonesuch")


@pytest.mark.parametrize(
    "content", [None, "seed = = 1\n", "\udcff\n"], ids=["absent", "not-toml", "not-text"]
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(package, probe, tmp_path, content):
    if content is not None:
        (tmp_path / "mine.toml").write_bytes(content.encode("utf-8", "surrogateescape"))
    said = probe("mini", "@mine.toml")
    assert_one_line_refusal(said, "mine.toml")


def test_flags_win_over_the_file(probe, tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 41\n")
    assert "41" in probe("mini", "@mine.toml", "--dry-run").out
    said = probe("mini", "@mine.toml", "--seed", "42", "--dry-run")
    assert "seed = 42" in said.out
    assert "41" not in said.out


def test_report_of_a_folder_that_is_no_run_is_refused_in_one_line(probe, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        said = probe("report", name)
        assert said.code == 2, said
        assert len(said.err.splitlines()) == 1
        assert name in said.err


@pytest.mark.parametrize("recipe", RECIPES)
def test_info_prints_the_recipe_itself(package, probe, recipe):
    text = (package.source / "recipes" / f"{recipe}.sh").read_text("utf-8")
    assert probe("info", "--recipe", recipe).out.strip() == text.strip()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_command_of_a_recipe_parses(package, recipe, command, probe, tmp_path):
    """The recipe runs as it is, with a stand-in for the package that notes what it is asked."""
    file = package.source / "recipes" / f"{recipe}.sh"
    log = tmp_path / "calls"
    shims = tmp_path / "bin"
    shims.mkdir()
    shim = shims / package.name
    shim.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >> "{log}"; echo >> "{log}"\n')
    shim.chmod(0o755)
    done = command("bash", "-eu", file, cwd=tmp_path, env={"PATH": f"{shims}:/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [line.split("\0") for line in log.read_text("utf-8").split("\0\n")[:-1]]
    assert calls, f"{recipe}.sh calls {package.name} nowhere"
    for words in calls:
        said = probe(*words, "--dry-run")
        assert (said.code, said.heavy) == (0, ""), (words, said)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_quick_miniature_touches_everything_and_measures_nothing(package, command, tmp_path):
    env = {"PAPERCORE_CACHE": str(tmp_path / "cache")}
    run = ("mini", "--quick", "--out", tmp_path / "out")
    done = command(package.name, *run, env=env, timeout_s=1500)
    assert done.returncode == 0, done.stdout + done.stderr

    out = tmp_path / "out"
    document = json.loads((out / "claims.json").read_text("utf-8"))
    assert document["mode"] == "quick"
    assert {verdict["status"] for verdict in document["claims"]} == {"not_measured"}
    wanted = ("config.json", "env.json", "records.jsonl", "summary.json", "report.html")
    assert [name for name in wanted if not (out / name).is_file()] == []
    assert list(out.glob("figures/*.png"))
    assert {p.stem for p in out.glob("figures/*.png")} == {
        p.stem for p in out.glob("figures/*.csv")
    }
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "a quick model must not be kept"

    again = command(package.name, *run, env=env)
    assert again.returncode == 2, "an existing run is not overwritten unasked"
    assert "--overwrite" in again.stderr


def test_a_closed_pipe_is_no_error(package):
    """`<package> info | head -0` must not print a traceback."""
    pipe = f'"{SCRIPTS / package.name}" info | head -n 0'
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
