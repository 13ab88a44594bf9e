import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures.labels import shortened
from figures.palette import MARKERS, TASK_COLOURS, dataset_marks, order_by_task, series_marks, task_marks


@given(st.lists(st.text(min_size=1, max_size=70), unique=True, max_size=30), st.integers(8, 40))
def test_labels_are_short_and_tell_names_apart(names, width):
    labels = shortened(names, width)
    assert len(set(labels)) == len(names)
    assert all(len(label) <= width for label in labels)
    assert all(label == name for name, label in zip(names, labels, strict=True) if len(name) <= width)


def test_beginning_and_end_of_a_long_name_are_kept():
    assert shortened(["abcdefghijklmnop"], 9) == ["abcd…mnop"]
    assert shortened(["aaaaa1bbbbb", "aaaaa2bbbbb"], 9) == ["aaaa…bbbb", "aaa…2…bbb"]
    assert shortened(["same", "same"]) == ["same", "same"]


def test_a_width_without_room_is_refused():
    with pytest.raises(ValueError, match="at least 8"):
        shortened(["name"], 7)


def test_forty_datasets_have_marks_of_their_own():
    names = [f"dataset {number}" for number in range(40)]
    assert len({(mark.colour, mark.marker) for mark in series_marks(names).values()}) == 40
    assert len({(mark.colour, mark.marker) for mark in dataset_marks(names, {}).values()}) == 40
    for one, other in itertools.pairwise(names):
        assert series_marks(names)[one].colour != series_marks(names)[other].colour


def test_datasets_of_a_task_share_its_colour_and_differ_in_marker():
    marks = dataset_marks(["slake", "path", "derma"], {"slake": "VQA", "path": "VQA", "derma": "CLS"})
    assert marks["slake"].colour == marks["path"].colour == TASK_COLOURS["VQA"]
    assert marks["slake"].marker != marks["path"].marker
    assert marks["derma"].colour == TASK_COLOURS["CLS"]
    assert (marks["slake"].marker, marks["slake"].symbol) == MARKERS[0]


def test_tasks_of_the_paper_keep_their_colours_beside_others():
    marks = task_marks(["SEG", "VQA", "DEP"])
    assert list(marks) == ["VQA", "SEG", "DEP"]
    assert marks["VQA"].colour == TASK_COLOURS["VQA"]
    assert len({mark.colour for mark in marks.values()}) == 3
    assert order_by_task(["CLS", "SEG", "QA"], {}) == ["QA", "CLS", "SEG"]
