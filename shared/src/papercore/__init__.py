"""The thin core that ten paper packages share; docs/architecture.md says what each module owns."""

__version__ = "1.0.0"
