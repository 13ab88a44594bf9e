import doctest

import pytest

import tugofwar


def test_the_example_in_the_packages_docstring_runs():
    failed, attempted = doctest.testmod(tugofwar)
    assert attempted > 5
    assert failed == 0


def test_every_public_name_is_there_and_stays_what_it_is():
    for _ in range(2):
        assert all(getattr(tugofwar, name) is not None for name in tugofwar.__all__)
    assert callable(tugofwar.interference)
    assert set(dir(tugofwar)) >= {"record", "interference", "Recording", "metrics", "UserError"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tugofwar.nothing
