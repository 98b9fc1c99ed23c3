"""A whole package in miniature, for the tests of the core's command line and reports."""

__version__ = "0.1"
