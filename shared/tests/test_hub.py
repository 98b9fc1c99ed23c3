"""Whether there is a way to the hub; no test asks the network."""

import errno
import socket
import time
import types

import pytest

from papercore import hub


def no_way(error):
    """What the hub's client raises over an error of the system."""
    outer = RuntimeError(f"ConnectError: {error}")
    outer.__cause__ = RuntimeError("from within")
    outer.__cause__.__context__ = error
    return outer


UNKNOWN = no_way(socket.gaierror(-2, "Name or service not known"))
REFUSED = no_way(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
NO_ROUTE = no_way(OSError(errno.ENETUNREACH, "Network is unreachable"))
SLOW = no_way(TimeoutError("timed out"))


@pytest.fixture
def answers(monkeypatch):
    """Sets what the hub answers, in turn; returns the addresses that it was asked for."""
    asked = []
    hub._found.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def set_(*replies):
        left = list(replies)

        def head(address, timeout):
            asked.append(address)
            reply = left.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply

        session = types.SimpleNamespace(head=head)
        monkeypatch.setattr("huggingface_hub.get_session", lambda: session)
        return asked

    yield set_
    hub._found.cache_clear()


@pytest.mark.parametrize("error", [UNKNOWN, REFUSED, NO_ROUTE])
def test_without_a_way_it_is_tried_twice_in_all(answers, error):
    asked = answers(error, error)
    assert hub.unreachable()
    assert hub.unreachable()
    assert len(asked) == 2


def test_a_name_that_is_lost_for_a_moment_is_found_again(answers):
    answers(UNKNOWN, types.SimpleNamespace(status_code=200))
    assert not hub.unreachable()


@pytest.mark.parametrize("reply", [SLOW, types.SimpleNamespace(status_code=503), ValueError("odd")])
def test_a_slow_or_failing_hub_is_there(answers, reply):
    asked = answers(reply)
    assert not hub.unreachable()
    assert len(asked) == 1


def test_offline_nothing_is_tried(answers, monkeypatch):
    asked = answers()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not hub.unreachable()
    assert asked == []
