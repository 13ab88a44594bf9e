import pytest

from tugofwar.errors import UserError
from tugofwar.launch import is_first, joined, world_size


@pytest.mark.parametrize(
    ("environment", "world", "first"),
    [
        ({}, 1, True),
        ({"RANK": "3"}, 1, True),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1, True),
        ({"WORLD_SIZE": "2", "RANK": "0"}, 2, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, 2, False),
    ],
)
def test_the_environment_says_who_is_first(monkeypatch, environment, world, first):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert world_size() == world
    assert is_first() is first


def test_alone_nothing_is_joined(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    from torch import distributed

    with joined():
        assert not distributed.is_initialized()


def test_a_number_of_processes_without_a_launcher_is_one_sentence(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="start them with torchrun or accelerate launch, or unset WORLD_SIZE"), joined():
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE is 'two', not a number"):
        world_size()
