import csv

import numpy as np
import pytest

import tugofwar as tow
from tugofwar import history
from tugofwar.recording import Block, Recording, upper_triangle


def build_recording(gradients, datasets):
    triangle = upper_triangle(gradients @ gradients.T)
    block = Block("shared", {"shared.weight": gradients.shape[1]})
    return Recording((block,), {"shared": triangle}, datasets, np.arange(float(len(datasets))))


def read(folder):
    with (folder / history.HISTORY).open(newline="") as file:
        return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]


@pytest.fixture
def recording():
    """Two datasets that agree in part, and one of pure noise, whose own progress may have either sign."""
    noise = np.random.default_rng(0).normal(size=(36, 50))
    noise[:12, 0] += 6
    noise[12:24, :2] += 6
    return build_recording(noise, ["a"] * 12 + ["b"] * 12 + ["noise"] * 12)


def test_numbers_of_an_uncertain_dataset_are_left_out(recording):
    numbers = history.headline(recording)
    result = tow.interference(recording)
    assert result.sign_uncertain == ("noise",)
    assert numbers["sign_uncertain"] == 1
    assert "index/noise" not in numbers
    assert numbers["index/a"] == result.index["a"]
    rows = [result.gd.loc[row, column] for row in "ab" for column in ("a", "b", "noise") if row != column]
    assert numbers["gd_min"] == min(rows)
    assert numbers["gd_mean"] == pytest.approx(np.mean(rows), rel=1e-12)
    gm = [result.gm.loc["a", "b"], result.gm.loc["a", "noise"], result.gm.loc["b", "noise"]]
    assert numbers["gm_mean"] == pytest.approx(np.mean(gm), rel=1e-12)
    assert (numbers["loss/a"], numbers["loss/noise"]) == (5.5, 29.5)
    assert all(type(value) is float and np.isfinite(value) for value in numbers.values())


def test_one_dataset_has_no_pairs():
    single = build_recording(np.random.default_rng(1).normal(size=(5, 3)) + 4, ["a"] * 5)
    assert set(history.headline(single)) == {"loss/a", "sign_uncertain", "index/a"}


def test_steps_are_in_order_and_a_step_is_replaced(tmp_path):
    history.append(tmp_path / "new", 20, {"gd_min": -0.1, "index/a, b": 1 / 3})
    history.append(tmp_path / "new", 100, {"gd_min": 0.5})
    history.append(tmp_path / "new", 3, {"gd_min": 0.25})
    history.append(tmp_path / "new", 20, {"index/a, b": 2 / 3})
    assert read(tmp_path / "new") == [(3, "gd_min", 0.25), (20, "index/a, b", 2 / 3), (100, "gd_min", 0.5)]
    history.forget_after(tmp_path / "new", 20)
    assert [step for step, *_ in read(tmp_path / "new")] == [3, 20]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [history.HISTORY]


def test_there_may_be_nothing_to_forget(tmp_path):
    history.forget_after(tmp_path / "nowhere", 5)
    assert not (tmp_path / "nowhere").exists()
