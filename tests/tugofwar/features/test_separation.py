"""Silhouette and purity against scikit-learn and the plain jackknife; intervals against simulated samples."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score
from sklearn.neighbors import NearestNeighbors

from tugofwar.features import distances
from tugofwar.features.separation import ALL, KNN_PURITY, SILHOUETTE, separation

K = 5


def points_of(rng, sizes, width=6, spread=0.8):
    names = np.repeat([f"d{number}" for number in range(len(sizes))], sizes)
    centres = np.random.default_rng(5).normal(size=(len(sizes), width)) * spread
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return centres[codes] + rng.normal(size=(len(names), width)), names


def by_hand(points, names):
    near = NearestNeighbors(n_neighbors=K).fit(points).kneighbors(return_distance=False)
    return silhouette_samples(points, names), (names[near] == names[:, None]).mean(axis=1)


def found_by_name(points, labels, datasets=None, k=K, **options):
    datasets = list(next(iter(labels.values()))) if datasets is None else datasets
    found = separation(points, {kind: list(names) for kind, names in labels.items()}, list(datasets), k, **options)
    return {(each.label, each.name, each.measure): each for each in found}


@pytest.fixture(params=[4_000_000, 100], ids=["one block", "many blocks"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(distances, "_CELLS", request.param)


@pytest.mark.usefixtures("_blocks")
def test_values_are_scikit_learns():
    points, names = points_of(np.random.default_rng(0), [9, 14, 2, 11])
    tasks = np.where(np.isin(names, ["d0", "d2"]), "CLS", "VQA")
    found = found_by_name(points + 100, {"task": tasks, "dataset": names}, names)
    for kind, labels in (("task", tasks), ("dataset", names)):
        assert found[kind, ALL, SILHOUETTE].estimate.value == pytest.approx(silhouette_score(points, labels))
        for measure, values in zip((SILHOUETTE, KNN_PURITY), by_hand(points, labels), strict=True):
            assert found[kind, ALL, measure].estimate.value == pytest.approx(values.mean())
            for name in set(labels):
                assert found[kind, name, measure].estimate.value == pytest.approx(values[labels == name].mean())


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("sizes", [[9, 14, 2, 11], [8, 1, 7], [20, 15]])
def test_intervals_are_the_plain_jackknifes(sizes):
    points, names = points_of(np.random.default_rng(1), sizes)
    found = found_by_name(points, {"dataset": names})
    _check_against_plain_jackknife(found, points, names)


def _check_against_plain_jackknife(found, points, names):
    for (_, name, measure), each in found.items():
        variance = 0.0
        for stratum in np.unique(names):
            left_out = []
            for sample in np.flatnonzero(names == stratum):
                rest = np.arange(len(names)) != sample
                if len(set(names[rest])) > 1:
                    values = by_hand(points[rest], names[rest])[measure == KNN_PURITY]
                    left_out.append(values.mean() if name == ALL else values[names[rest] == name].mean())
            size = len(left_out)
            variance += (size - 1) / size * ((left_out - np.mean(left_out)) ** 2).sum() if size > 1 else 0
        estimate = each.estimate
        cut = (estimate.low, estimate.high) in ((-1, estimate.high), (estimate.low, 1), (0, estimate.high))
        if not cut:
            reach = (estimate.high - estimate.low) / 2
            assert estimate.value == pytest.approx((estimate.low + estimate.high) / 2)
            # Student's quantile lies between the normal one and that of two samples
            assert 1.95 < reach / np.sqrt(variance) < 7.2


def test_a_single_label_has_nothing_to_be_apart_from():
    points, names = points_of(np.random.default_rng(0), [20])
    assert separation(points, {"dataset": list(names)}, list(names), K) == []


def test_a_lone_sample_has_no_row_of_its_own_but_counts_as_a_point():
    points, names = points_of(np.random.default_rng(0), [12, 1, 9])
    found = found_by_name(points, {"dataset": names})
    assert {name for _, name, _ in found} == {ALL, "d0", "d2"}
    silhouettes, purities = by_hand(points, names)
    assert found["dataset", ALL, SILHOUETTE].estimate.value == pytest.approx(silhouettes.mean())
    assert found["dataset", ALL, KNN_PURITY].estimate.value == pytest.approx(purities.mean())


def test_all_points_of_a_label_in_one_place():
    points = np.repeat([[0.0, 0], [1, 0]], 8, axis=0)
    names = np.repeat(["a", "b"], 8)
    for each in found_by_name(points, {"dataset": names}).values():
        assert (each.estimate.value, each.estimate.low, each.estimate.high) == (1, 1, 1)
    same = found_by_name(np.zeros((16, 2)), {"dataset": names})
    assert same["dataset", ALL, SILHOUETTE].estimate.value == 0


def test_chance_is_what_unrelated_labels_give():
    rng = np.random.default_rng(2)
    sizes = [30, 10, 20]
    names = np.repeat(["a", "b", "c"], sizes)
    points = rng.normal(size=(60, 4))
    found = found_by_name(points, {"dataset": names})
    shuffled = [by_hand(points, rng.permutation(names)) for _ in range(200)]
    expected = np.mean([[values.mean() for values in pair] for pair in shuffled], axis=0)
    assert found["dataset", ALL, SILHOUETTE].chance == pytest.approx(expected[0], abs=0.02)
    assert found["dataset", ALL, KNN_PURITY].chance == pytest.approx(expected[1], abs=0.01)
    assert found["dataset", "a", KNN_PURITY].chance == pytest.approx(29 / 59)


def test_scale_place_and_order_do_not_matter():
    rng = np.random.default_rng(3)
    points, names = points_of(rng, [12, 15])
    order = rng.permutation(27)
    one = found_by_name(points, {"dataset": names})
    other = found_by_name((points * 1e6 + 3)[order], {"dataset": names[order]})
    for key, each in one.items():
        assert each.estimate.value == pytest.approx(other[key].estimate.value)
        assert each.estimate.low == pytest.approx(other[key].estimate.low)


def test_intervals_cover_where_a_bootstrap_with_copies_would_not():
    rng = np.random.default_rng(4)
    sizes = [30, 30, 30]
    draws = [points_of(rng, sizes, width=10, spread=0.4) for _ in range(200)]
    found = [found_by_name(points, {"dataset": names}, k=10) for points, names in draws]
    for key in found[0]:
        estimates = [each[key].estimate for each in found]
        truth = np.mean([each.value for each in estimates])
        covered = np.mean([each.low <= truth <= each.high for each in estimates])
        spread = np.std([each.value for each in estimates])
        width = np.mean([each.high - each.low for each in estimates])
        assert covered >= 0.9, key
        assert width < 1.6 * 3.92 * spread, key
    # the naive bootstrap: its replicates lie above what they should surround
    key, risen = ("dataset", ALL, KNN_PURITY), []
    for (points, names), each in zip(draws[:30], found, strict=False):
        picked = np.concatenate([rng.choice(np.flatnonzero(names == name), 30) for name in np.unique(names)])
        copies = found_by_name(points[picked], {"dataset": names[picked]}, k=10)
        risen.append(copies[key].estimate.value - each[key].estimate.value)
    assert np.mean(risen) > np.std([each[key].estimate.value for each in found])
