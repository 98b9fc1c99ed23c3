"""The command line that every package has: `<name> <verb> [preset] [@file.toml] [--dotted.flags]`.

A verb names its config, presets and function by strings, `module:attribute`; nothing is imported
before the verb is chosen, and its function not before it runs:

    APP = App(name="longheads", package="longheads", summary="...", about=About(...), verbs=(...))

    def main() -> None:
        raise SystemExit(APP.main())
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, cast

from papercore.errors import ConfigError, PaperError

if TYPE_CHECKING:
    from papercore.config import Config, RunFlags

__all__ = ["About", "App", "Verb", "leave_process_group", "load"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

SETTINGS_FILES = (
    "settings files are TOML: @file.toml reads one, such as --dry-run prints; flags go over it"
)
"""What every help says of settings files."""


@dataclass(frozen=True)
class About:
    """What `info` says about a package."""

    paper: str
    """Title of the paper."""
    arxiv: str
    """Its id on arXiv."""
    what: str
    """What the package does, in a few sentences."""
    devices: str
    """What it runs on."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Module that may be missing -> how to get it."""


@dataclass(frozen=True)
class Verb:
    """One verb of a command line; all four references are `module:attribute`."""

    name: str
    help: str
    """One line."""
    config: str
    """The config's class."""
    run: str
    """`run(config, flags) -> int`, the exit code; with `with_app`, `run(config, flags, app)`."""
    presets: str | None = None
    """A mapping from name to config; the one called `default`, else the first, is the default."""
    estimate: str | None = None
    """`estimate(config) -> Mapping[str, str]` for `--dry-run`; imports nothing heavy."""
    with_app: bool = False
    """The function also wants the `App`."""


def load(reference: str) -> object:
    """Import what a `module:attribute` string names."""
    module, _, attribute = reference.partition(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class App:
    """A package's command line."""

    name: str
    """Name of the console script."""
    package: str
    """Import name."""
    summary: str
    """One line."""
    about: About
    verbs: tuple[Verb, ...]

    @property
    def version(self) -> str:
        """The installed version."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return str(getattr(import_module(self.package), "__version__", "unknown"))

    def verb(self, name: str) -> Verb:
        """The verb of this name.

        Raises:
            ConfigError: There is none.
        """
        from papercore.config import near_miss

        names = [verb.name for verb in self.verbs]
        if name in names:
            return self.verbs[names.index(name)]
        raise ConfigError(
            f"there is no verb {name!r}{near_miss(name, names)} (there are: {', '.join(names)})"
        )

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run a command line.

        Args:
            argv: Its words; `sys.argv[1:]` if None.

        Returns:
            The exit code: 0, 1 for a failed run, 2 for a mistake in the call, 130 for an interrupt,
            or what the verb returns.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        try:
            code = self._dispatch(words)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt as stop:
            # An open run folder has noted what it holds.
            said = ["interrupted", *getattr(stop, "__notes__", [])]
            return self._say("; ".join(said), EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader went away; Python must not complain about it when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 - the last line of defence of a command line
            if "--debug" in words:
                traceback.print_exc()
            return self._say(*self._describe(error))

    def _dispatch(self, words: list[str]) -> int:
        if not words or words[0] in ("-h", "--help", "help"):
            print(self._help())
            return 0 if words else EXIT_USAGE
        if words[0] in ("-V", "--version"):
            print(f"{self.name} {self.version}")
            return 0
        verb = self.verb(words[0])
        try:
            config, flags = self._read(verb, words[1:])
        except SystemExit as stop:  # tyro has said what it had to say
            return stop.code if isinstance(stop.code, int) else EXIT_USAGE
        from papercore import log

        log.setup(debug=flags.debug)
        self._warn_of_default(verb, words[1:], config)
        return self._dry_run(verb, config) if flags.dry_run else self._run(verb, config, flags)

    def _read(self, verb: Verb, words: Sequence[str]) -> tuple[Config, RunFlags]:
        from papercore import config as configs
        from papercore import flags

        model = cast("type[Config]", load(verb.config))
        presets = cast("Mapping[str, Config]", load(verb.presets) if verb.presets else {})
        rest = list(words)
        preset, default = _default_preset(presets)
        if _names_preset(rest, presets, model):
            preset = _preset(presets, default := rest.pop(0), verb)
        files: list[Path] = []
        while rest and rest[0].startswith("@"):
            files.append(Path(rest.pop(0)[1:]))
        settings, source = configs.layered(preset, files)
        return flags.parse(
            model,
            settings,
            rest,
            prog=f"{self.name} {verb.name}",
            about=_verb_about(verb, presets, default),
            source=source,
        )

    def _warn_of_default(self, verb: Verb, words: Sequence[str], config: Config) -> None:
        """Says which settings of a miniature another model runs with, unasked."""
        presets = cast("Mapping[str, Config]", load(verb.presets) if verb.presets else {})
        preset, name = _default_preset(presets)
        if preset is None or _names_preset(words, presets, type(config)):
            return
        theirs, ours = getattr(preset, "model", None), getattr(config, "model", None)
        if not _is_miniature(theirs) or ours is None or _is_miniature(ours):
            return
        kept = _kept(preset, config)
        if kept:
            others = ", ".join(other for other in presets if other != name)
            logging.getLogger(__name__).warning(
                "no preset was named, so %s runs with settings of %r, which are for a miniature: "
                "%s; name a preset (%s) or give them",
                *(ours, name, " ".join(kept), others),
            )

    def _run(self, verb: Verb, config: Config, flags: RunFlags) -> int:
        if verb.with_app:
            with_app = cast("Callable[[Config, RunFlags, App], int]", load(verb.run))
            return with_app(config, flags, self)
        run = cast("Callable[[Config, RunFlags], int]", load(verb.run))
        code = run(config, flags)
        leave_process_group()
        return code

    def _dry_run(self, verb: Verb, config: Config) -> int:
        from papercore.config import config_hash, to_toml

        print(f"# {self.name} {verb.name}: dry run, nothing is loaded or written")
        print(to_toml(config), end="")
        print(f"\n# hash without data: {config_hash(config, version=self.version)}")
        if verb.estimate:
            estimate = cast("Callable[[Config], Mapping[str, str]]", load(verb.estimate))
            for key, value in estimate(config).items():
                print(f"# {key}: {value}")
        return 0

    def _help(self) -> str:
        width = max(len(verb.name) for verb in self.verbs)
        verbs = "\n".join(f"  {verb.name:<{width}}  {verb.help}" for verb in self.verbs)
        return (
            f"{self.name} {self.version}: {self.summary}\n\n"
            f"usage: {self.name} <verb> [preset] [@file.toml] [--flags]\n\n"
            f"{verbs}\n\n"
            f"{SETTINGS_FILES}\n"
            f"'{self.name} <verb> --help' shows presets and flags."
        )

    def _describe(self, error: Exception) -> tuple[str, int]:
        """The line for an error, and the exit code."""
        from pydantic import ValidationError

        from papercore.config import one_line

        if isinstance(error, PaperError):
            return f"error: {_flat_text(error)}", error.exit_code
        if isinstance(error, ValidationError):
            return f"error: {error.title}: {one_line(error)}", EXIT_USAGE
        if isinstance(error, ModuleNotFoundError) and self._is_optional(error.name):
            return f"error: {self._missing(str(error.name))}", EXIT_USAGE
        reason = f"{type(error).__name__}: {_flat_text(error)}"
        return f"failed: {reason}; run again with --debug for the traceback", EXIT_FAILED

    def _is_optional(self, module: str | None) -> bool:
        """Whether a missing module is somebody else's, not a mistake of ours."""
        return module is not None and module.split(".")[0] not in (self.package, "papercore")

    def _missing(self, module: str) -> str:
        top = module.split(".", maxsplit=1)[0]
        how = self.about.optional.get(top, f"pip install {top}")
        return f"this needs the module {top!r}, which is not installed: {how}"

    def _say(self, line: str, code: int) -> int:
        print(f"{self.name}: {line}", file=sys.stderr)
        return code


def leave_process_group() -> None:
    """Ends the group of a program that several processes ran together.

    A thread of the group that lets go of a tensor while Python ends aborts a process whose work is
    done; the threads end only when nothing refers to the group. A group of one process is left
    alone: an engine within this process may have made it.
    """
    group = sys.modules.get("torch.distributed")
    if group is None or not group.is_available() or not group.is_initialized():
        return
    if group.get_world_size() > 1:
        group.destroy_process_group()
        gc.collect()  # trainers and their models refer to each other in circles


def _flat_text(error: Exception) -> str:
    return " ".join(str(error).split())


def _default_preset(presets: Mapping[str, Config]) -> tuple[Config | None, str]:
    if not presets:
        return None, ""
    name = "default" if "default" in presets else next(iter(presets))
    return presets[name], name


def _preset(presets: Mapping[str, Config], name: str, verb: Verb) -> Config:
    from papercore.config import near_miss

    if name in presets:
        return presets[name]
    if not presets:
        raise ConfigError(f"{verb.name} takes no preset and no argument, but got {name!r}")
    raise ConfigError(
        f"{verb.name} has no preset {name!r}{near_miss(name, presets)}"
        f" (there are: {', '.join(presets)})"
    )


def _names_preset(words: Sequence[str], presets: Mapping[str, Config], model: type[Config]) -> bool:
    """Whether a verb's first word is a preset, or meant as one."""
    from papercore.flags import has_positionals

    if not words or words[0].startswith(("-", "@")):
        return False
    return words[0] in presets or not has_positionals(model)


def _is_miniature(model: object) -> bool:
    return isinstance(model, str) and model.startswith("tiny:")


def _kept(preset: Config, config: Config) -> list[str]:
    """What a preset sets in its own way and a config has from it, as `key=value`."""
    from papercore.config import differences, plain

    usual = plain(type(preset).model_construct())
    changed = {line.partition(":")[0] for line in differences(plain(preset), plain(config))}
    own = [line.partition(": ") for line in differences(usual, plain(preset))]
    return [f"{key}={what.rpartition(' -> ')[2]}" for key, _, what in own if key not in changed]


def _verb_about(verb: Verb, presets: Mapping[str, Config], chosen: str) -> str:
    """What stands above the flags in the help of a verb."""
    from papercore.config import differences, plain

    lines = [verb.help]
    if presets:
        width = max(map(len, presets))
        lines += ["", "presets (the defaults below are those of the one marked *):"]
        for name, config in presets.items():
            usual = plain(type(config).model_construct())
            own = [change.partition(" -> ") for change in differences(usual, plain(config))]
            shown = " ".join(f"{key.partition(':')[0]}={new}" for key, _, new in own)
            shown = shown or "the defaults"
            clipped = shown if len(shown) <= 70 else f"{shown[:67]}..."
            lines.append(f"{'*' if name == chosen else ' '} {name:<{width}}  {clipped}")
    return "\n".join([*lines, "", SETTINGS_FILES])
