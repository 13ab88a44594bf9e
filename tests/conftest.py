"""Settings of all tests."""

import signal

import pytest
from hypothesis import settings

# A shared machine may stall for longer than hypothesis' default deadline of 200 ms.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# A shell's background job ignores Ctrl-C, and so do the processes that it starts: tests of Ctrl-C would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker begins a long one when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def without_java(monkeypatch):
    """METEOR's program takes seconds to start, for every dataset of reports and each of its baselines."""
    monkeypatch.setattr("unimed_model.scoring.java.missing", lambda: "needs Java")
