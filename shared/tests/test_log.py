import io
import logging
import sys

import pytest

from papercore import log


@pytest.fixture
def root():
    logger = logging.getLogger()
    before = (logger.handlers[:], logger.level)
    yield logger
    logger.handlers[:], level = before
    logger.setLevel(level)


def test_warnings_reach_stderr_and_details_only_with_debug(root, capsys):
    for debug in (False, True):
        log.setup(debug=debug)
        logging.getLogger("papercore.x").warning("careful")
        logging.getLogger("papercore.x").info("detail")
        err = capsys.readouterr().err
        assert err.count("WARNING papercore.x: careful") == 1
        assert ("detail" in err) is debug


def test_setting_up_twice_or_under_a_redirection_loses_no_line(root, capsys, monkeypatch):
    before = [handler for handler in root.handlers if type(handler).__module__ != log.__name__]
    log.setup()
    log.setup()
    redirected = io.StringIO()
    monkeypatch.setattr(sys, "stderr", redirected)
    logging.getLogger("papercore.x").warning("careful")
    assert redirected.getvalue() == "WARNING papercore.x: careful\n"
    assert root.handlers[:-1] == before


def test_progress_hands_everything_on_and_is_silent_when_short(capsys):
    assert list(log.progress([3, 1, 2], "reading")) == [3, 1, 2]
    assert list(log.progress(iter("ab"), "reading")) == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_progress_is_a_line_now_and_then_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(log, "PLAIN_INTERVAL_S", 0.0)
    list(log.progress(range(3), "reading"))
    list(log.progress(iter(range(2)), "streaming"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("reading: 1/3, 0 s, ")
    assert lines[4].startswith("streaming: 1 done")


def test_progress_counts_what_an_earlier_session_did(capsys, monkeypatch):
    monkeypatch.setattr(log, "PLAIN_INTERVAL_S", 0.0)
    assert list(log.progress(range(20, 23), "reading", done=20)) == [20, 21, 22]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"reading: {n}/23" for n in (20, 21, 22)]


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(log.progress(range(3), "reading")) == [0, 1, 2]
    assert "reading" in sys.stderr.getvalue()
