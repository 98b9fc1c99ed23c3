"""Must not be imported by help or a dry run."""

raise RuntimeError("the heavy module was imported")
