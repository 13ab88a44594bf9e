import pytest

from figures.explaining.sentences import LONGEST, counted, interval, named, number, p_value, percent, points, within


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.624, "0.62"),
        (-0.2, "−0.20"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (1.0, "1.00"),
        (0.004, "0.004"),
        (-0.002, "−0.002"),
        (0.9997, "0.9997"),
        (1e-12, "0.00"),
        (1 + 1e-12, "1.00"),
        (12.345, "12.35"),
        (1234.5, "1,234"),
        (-693.4, "−693"),
    ],
)
def test_a_number_keeps_what_its_statement_rests_on(value, text):
    assert number(value) == text


def test_what_is_no_number_is_not_printed():
    with pytest.raises(ValueError, match="no number"):
        number(float("nan"))


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.27, "27%"), (0.088, "8.8%"), (0.0004, "0.04%"), (0.0, "0%"), (1.0, "100%"), (0.9996, "99.96%"), (0.99, "99%")],
)
def test_a_share_is_a_percentage(share, text):
    assert percent(share) == text


def test_intervals_and_differences_of_shares():
    assert interval(0.62, 0.41, 0.83) == "0.62 [0.41, 0.83]"
    assert points(0.037, 0.027, 0.047) == "+3.7 [2.7, 4.7] percentage points"
    assert points(-0.029, -0.039, -0.019) == "−2.9 [−3.9, −1.9] percentage points"


def test_p_values_have_two_digits_and_an_end():
    assert p_value(0.00123) == "p = 0.0012"
    assert p_value(0.0) == "p < 0.0001"


def test_long_lists_are_cut_and_counted():
    assert named(["a", "b"]) == "a, b"
    assert named([str(n) for n in range(5)]) == "0, 1, 2, 3, 4"
    assert named([str(n) for n in range(40)]) == "0, 1, 2, 3 and 36 more"
    assert counted(1, "batch", "batches") == "1 batch"
    assert counted(1560, "pair") == "1,560 pairs"


def test_a_sentence_takes_clauses_while_they_fit():
    assert within(["one", "two"], " (end)") == "one; two (end)."
    assert within(["a" * 200, "b" * 200], "!") == "a" * 200 + "!."
    assert within(["a" * (LONGEST - 5)], "; a long end", brief="; e") == "a" * (LONGEST - 5) + "; e."
