"""Settings of all tests."""

from hypothesis import settings

# A shared machine may stall for longer than hypothesis' default deadline of 200 ms.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
