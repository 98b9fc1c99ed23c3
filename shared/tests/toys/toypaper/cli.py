"""The toy command line."""

from papercore.cli import About, App, Verb
from papercore.verbs import standard_verbs


def _verb(name, run):
    return Verb(name, f"try {run}", config="toypaper.config:GoConfig", run=f"toypaper.{run}")


APP = App(
    name="toypaper",
    package="toypaper",
    summary="A toy.",
    about=About(
        paper="On Toys",
        arxiv="2402.00000",
        what="It toys.",
        devices="any",
        optional={
            "part_that_nobody_has": "pip install 'toypaper[part]'",
            "numpy": "pip install numpy",
        },
    ),
    verbs=(
        Verb(
            "go",
            "go there",
            config="toypaper.config:GoConfig",
            presets="toypaper.config:GO",
            run="toypaper.commands:go",
            estimate="toypaper.commands:estimate",
        ),
        Verb(
            "read",
            "read a file",
            config="toypaper.config:ReadConfig",
            run="toypaper.commands:go",
        ),
        Verb(
            "reread",
            "read a file by preset",
            config="toypaper.config:ReadConfig",
            presets="toypaper.config:READ",
            run="toypaper.commands:go",
        ),
        _verb("heavy", "heavy:run"),
        _verb("needs-part", "commands:needs_part"),
        _verb("needs-own", "commands:needs_own"),
        _verb("fails", "commands:fails"),
        _verb("fails-kindly", "commands:fails_kindly"),
        _verb("interrupted", "commands:interrupted"),
        _verb("stopped", "commands:stopped"),
        _verb("together", "commands:together"),
        _verb("talks", "commands:talks"),
        *standard_verbs(),
    ),
)

if __name__ == "__main__":
    raise SystemExit(APP.main())
