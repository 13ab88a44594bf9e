"""Oracles: double loops, closed forms, explicit Fisher matrices, Monte Carlo with known truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tugofwar import diagnostics
from tugofwar.errors import UserError
from tugofwar.recording import Block, Recording, upper_triangle

DATASETS = list("aaaabbbbbccccc")
GROUPS = {"ab": range(9), "c": range(9, 14)}


@pytest.fixture
def gradients():
    return np.random.default_rng(0).normal(size=(14, 6)) + 0.7


def loop_pair_means(table, groups, datasets, counts=None):
    """Mean over distinct pairs, dataset by dataset, each pair as often as its batches were drawn."""
    counts = np.ones(len(table)) if counts is None else counts
    result = np.empty((len(groups), len(groups)))
    for i, rows in enumerate(groups.values()):
        for j, columns in enumerate(groups.values()):
            cells = []
            for one in dict.fromkeys(datasets[a] for a in rows):
                for two in dict.fromkeys(datasets[b] for b in columns):
                    pairs = [
                        (table[a, b], counts[a] * counts[b])
                        for a in rows
                        for b in columns
                        if a != b and datasets[a] == one and datasets[b] == two
                    ]
                    values, weights = np.array(pairs).T
                    cells.append(np.average(values, weights=weights))
            result[i, j] = np.mean(cells)
    return result


def test_products_and_conflicts_equal_the_loop(gradients):
    gram = gradients @ gradients.T
    ours = diagnostics.mean_gradient_products(gram, GROUPS, DATASETS)
    np.testing.assert_allclose(ours, loop_pair_means(gram, GROUPS, DATASETS), rtol=1e-10)
    conflict = diagnostics.conflicting_pairs(gram, GROUPS, DATASETS)
    np.testing.assert_allclose(conflict, loop_pair_means(gram < 0, GROUPS, DATASETS), atol=1e-12)
    assert (conflict == conflict.T).all()


def test_groups_that_share_batches_never_pair_a_batch_with_itself(gradients):
    gram = gradients @ gradients.T
    groups = {"one": range(8), "two": range(3, 14)}
    ours = diagnostics.mean_gradient_products(gram, groups)
    np.testing.assert_allclose(ours, loop_pair_means(gram, groups, ["x"] * 14), rtol=1e-10)


def test_resampled_means_equal_the_loop(gradients):
    gram = gradients @ gradients.T
    counts = np.array([2, 0, 1, 1, 0, 3, 1, 1, 0, 1, 1, 1, 2, 0.0])
    members = diagnostics.build_groups(GROUPS, 14, DATASETS)
    ours = diagnostics._resampled_pair_means(gram, members, counts[:, np.newaxis])[0]
    np.testing.assert_allclose(ours, loop_pair_means(gram, GROUPS, DATASETS, counts), rtol=1e-10)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_permutations_change_nothing(seed):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(12, 5)) + 1
    rows, columns, names = rng.permutation(12), rng.permutation(5), rng.permutation(3)
    groups = {"a": range(4), "b": range(4, 8), "c": range(8, 12)}
    place = np.argsort(rows)
    renamed = {name: place[list(groups[name])] for name in np.array(list(groups))[names]}
    gram = gradients @ gradients.T
    moved = gradients[rows][:, columns]
    moved_gram = moved @ moved.T
    cells = np.ix_(names, names)
    for measure in (diagnostics.mean_gradient_products, diagnostics.conflicting_pairs):
        np.testing.assert_allclose(measure(moved_gram, renamed), measure(gram, groups)[cells], rtol=1e-8, atol=1e-10)
    for before, after in zip(
        diagnostics.gradient_noise(gram, groups), diagnostics.gradient_noise(moved_gram, renamed), strict=True
    ):
        np.testing.assert_allclose(after, before[names], rtol=1e-8, atol=1e-10)
    before, overall = diagnostics.fisher_spectra(gram, groups, 1)
    after, overall_after = diagnostics.fisher_spectra(moved_gram, renamed, 1)
    assert after["b"].entropy == pytest.approx(before["b"].entropy, rel=1e-8)
    assert overall_after.effective_rank == pytest.approx(overall.effective_rank, rel=1e-8)


@pytest.mark.parametrize("scale", [-2.0, 1.0, 3.0])
def test_cosine_of_noiseless_gradients(scale):
    gradients = np.repeat([[3.0, 4, 0], [scale, 0, 0]], 5, axis=0)
    cosine, undefined = diagnostics.mean_gradient_cosine(gradients @ gradients.T, {"a": range(5), "b": range(5, 10)})
    np.testing.assert_allclose(cosine, [[1, np.sign(scale) * 0.6], [np.sign(scale) * 0.6, 1]], rtol=1e-12)
    assert not undefined.any()


def draw(rng, cosine=0.1, dimension=500, batches=50, direction=0.3):
    noise = np.sqrt((1 / cosine - 1) / dimension)
    gradients = noise * rng.normal(size=(2 * batches, dimension))
    gradients[:batches, 0] += 1
    gradients[batches:, :2] += direction, np.sqrt(1 - direction**2)
    return gradients @ gradients.T, {"a": range(batches), "b": range(batches, 2 * batches)}


def test_noise_is_taken_out_of_the_cosine_and_the_noise_scale():
    rng = np.random.default_rng(1)
    cosines, naive, scales, signals, noises = [], [], [], [], []
    for _ in range(150):
        gram, groups = draw(rng)
        cosines.append(diagnostics.mean_gradient_cosine(gram, groups)[0][0, 1])
        squared = [gram[:50, :50].mean(), gram[50:, 50:].mean()]
        naive.append(gram[:50, 50:].mean() / np.sqrt(np.prod(squared)))
        signal, noise = diagnostics.gradient_noise(gram, groups)
        signals.append(signal)
        noises.append(noise)
        scales.append(diagnostics.noise_scale(gram, groups, batch_size=4)[0])
    assert np.mean(cosines) == pytest.approx(0.3, abs=0.01)
    assert np.mean(naive) == pytest.approx(0.3 / (1 + 9 / 50), abs=0.01)
    assert np.mean(signals) == pytest.approx(1, abs=0.02)
    assert np.mean(noises) == pytest.approx(9, rel=0.01)
    assert np.median(scales) == pytest.approx(4 * 9, rel=0.03)


def test_signal_to_noise_is_the_inverse_of_the_noise_scale_in_batches():
    gram, groups = draw(np.random.default_rng(2))
    ratio, undefined = diagnostics.signal_to_noise(gram, groups)
    scale, _ = diagnostics.noise_scale(gram, groups)
    np.testing.assert_allclose(ratio * scale, 1, rtol=1e-12)
    assert not undefined.any()
    np.testing.assert_allclose(diagnostics.noise_scale(gram, groups, batch_size=8)[0], 8 * scale, rtol=1e-12)


def test_a_pooled_group_counts_what_sets_its_datasets_apart_as_noise():
    gradients = np.repeat([[1.0, 0], [0, 1.0]], [2, 6], axis=0)
    signal, noise = diagnostics.gradient_noise(gradients @ gradients.T, {"ab": range(8)}, ["a"] * 2 + ["b"] * 6)
    assert signal[0] == pytest.approx(0.5)
    assert noise[0] == pytest.approx(0.5)


def test_what_has_no_mean_gradient_is_reported():
    # Every two batches of "a" pull apart: the unbiased squared norm is negative.
    gradients = np.array([[1.0, 0], [-1, 0], [1, 1], [1, 2], [2, 1]])
    gram, groups = gradients @ gradients.T, {"a": [0, 1], "b": [2, 3, 4]}
    cosine, undefined = diagnostics.mean_gradient_cosine(gram, groups)
    assert undefined.tolist() == [True, False]
    assert np.isnan(cosine[0]).all()
    assert cosine[1, 1] == 1
    assert diagnostics.signal_to_noise(gram, groups)[1].tolist() == [True, False]
    equal = np.ones((4, 3))
    assert diagnostics.noise_scale(equal @ equal.T, {"a": range(4)})[1].tolist() == [True]


def test_conflicts_of_known_signs():
    line = np.array([[1.0], [2], [-1], [-1], [-3]])
    conflict = diagnostics.conflicting_pairs(line @ line.T, {"a": [0, 1, 2], "b": [3, 4]})
    np.testing.assert_allclose(conflict, [[2 / 3, 2 / 3], [2 / 3, 0]], rtol=1e-12)


def test_fisher_eigenvalues_are_those_of_the_explicit_matrix(gradients):
    spectra, overall = diagnostics.fisher_spectra(gradients @ gradients.T, GROUPS, 1, DATASETS)
    weights = np.array([1 / 8] * 4 + [1 / 10] * 5)
    explicit = (gradients[:9].T * weights) @ gradients[:9]
    np.testing.assert_allclose(spectra["ab"].eigenvalues[:6], np.linalg.eigvalsh(explicit)[::-1], rtol=1e-9)
    assert (spectra["ab"].eigenvalues[6:] == 0).all()
    assert spectra["ab"].eigenvalues.sum() == pytest.approx(weights @ (gradients[:9] ** 2).sum(axis=1))
    both = (explicit + gradients[9:].T @ gradients[9:] / 5) / 2
    np.testing.assert_allclose(overall.eigenvalues[:6], np.linalg.eigvalsh(both)[::-1], rtol=1e-9)
    plain = diagnostics.fisher_spectra(gradients @ gradients.T, {"c": GROUPS["c"]}, 1)[0]["c"]
    np.testing.assert_allclose(plain.eigenvalues, np.linalg.eigvalsh(gradients[9:] @ gradients[9:].T / 5)[::-1])


def test_spectra_in_closed_form():
    even = diagnostics.fisher_spectra(np.eye(8), {"a": range(8)}, 1)[1]
    assert even.entropy == pytest.approx(1)
    assert even.dominant_ratio == pytest.approx(1 / 8)
    assert even.effective_rank == pytest.approx(8)
    single = diagnostics.fisher_spectra(np.ones((8, 8)), {"a": range(8)}, 1)[1]
    assert single.entropy == pytest.approx(0, abs=1e-9)
    assert single.dominant_ratio == pytest.approx(1)
    assert single.effective_rank == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diagnostics.fisher_spectra(np.eye(4), {"a": range(4)}, 4), "batches hold 4"),
        (lambda: diagnostics.fisher_spectra(np.zeros((4, 4)), {"a": range(4)}, 1), "'a' has only zero"),
        (lambda: diagnostics.fisher_spectra(np.eye(4), {"a": [0]}, 1), "'a' has one batch"),
        (lambda: diagnostics.noise_scale(np.eye(4), {"a": range(4)}, batch_size=0), "whole number from 1; got 0"),
        (lambda: diagnostics.noise_scale(np.eye(4), {"a": range(4)}, batch_size=True), "got True"),
        (lambda: diagnostics.conflicting_pairs(np.eye(4), {"a": [0], "b": [1, 2]}), "'a' has one batch"),
        (lambda: diagnostics.mean_gradient_cosine(np.ones((2, 3)), {"a": [0, 1]}), "square"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def recording_of(gradients, datasets, **options):
    block = Block("layer", {"layer.weight": gradients.shape[1]})
    triangle = upper_triangle(gradients @ gradients.T)
    return Recording((block,), {"layer": triangle}, datasets, np.ones(len(datasets)), **options)


@pytest.fixture
def recording():
    """Datasets ``a`` and ``b`` share a direction, ``lost`` has none, ``idle`` has no gradient at all."""
    gradients = np.random.default_rng(3).normal(size=(80, 60))
    gradients[:40] += 1
    gradients[60:] = 0
    return recording_of(gradients, ["a"] * 20 + ["b"] * 20 + ["lost"] * 20 + ["idle"] * 20, metadata={"batch_size": 1})


def test_diagnose_labels_what_the_functions_say(recording):
    result = diagnostics.diagnose(recording, resamples=100)
    rows = {name: recording.rows[name] for name in ("a", "b", "lost")}
    assert result.undefined == ("lost",)
    assert result.batch_size == 1
    assert list(result.cosine.columns) == list(result.noise.index) == ["a", "b"]
    cosine, _ = diagnostics.mean_gradient_cosine(recording.gram, rows)
    assert result.cosine.loc["a", "b"] == pytest.approx(cosine[0, 1])
    np.testing.assert_allclose(result.conflict, diagnostics.conflicting_pairs(recording.gram, rows))
    scale, _ = diagnostics.noise_scale(recording.gram, rows)
    np.testing.assert_allclose(result.noise["noise_scale_samples"], scale[:2])
    assert list(result.spectra.index) == ["a", "b", "lost", "overall"]
    for table in (result.cosine, result.conflict, result.noise, result.spectra):
        assert np.isfinite(table.to_numpy()).all()
    for name, (low, high) in result.intervals.items():
        value = getattr(result, name)
        assert low.index.equals(value.index)
        assert ((low <= value) & (value <= high)).all(axis=None)


def test_diagnose_pools_and_takes_another_batch_size(recording):
    result = diagnostics.diagnose(recording, {"both": ["a", "b"]}, batch_size=4, resamples=0)
    assert result.intervals == {}
    assert result.spectra is None
    np.testing.assert_allclose(result.noise["noise_scale_samples"], 4 * result.noise["noise_scale_batches"])
    unknown = diagnostics.diagnose(recording_of(np.eye(4) + 1, ["a"] * 4), resamples=0)
    assert unknown.batch_size is None
    assert "noise_scale_samples" not in unknown.noise


def test_diagnose_where_nothing_has_a_mean_gradient():
    gradients = np.random.default_rng(4).normal(size=(12, 500))
    result = diagnostics.diagnose(recording_of(gradients, ["a"] * 6 + ["b"] * 6), resamples=50)
    assert result.undefined == ("a", "b")
    assert result.cosine.empty
    assert set(result.intervals) == {"conflict"}


def test_diagnose_refuses_what_is_no_batch_size():
    with pytest.raises(UserError, match="got 'four'"):
        diagnostics.diagnose(recording_of(np.eye(4) + 1, ["a"] * 4, metadata={"batch_size": "four"}))


def test_intervals_of_the_cosine_and_the_conflicts_cover():
    rng = np.random.default_rng(5)
    truth = np.mean([diagnostics.conflicting_pairs(*draw(rng, 0.2, batches=40))[0, 1] for _ in range(200)])
    cosine, conflict = [], []
    for _ in range(150):
        gram, _ = draw(rng, cosine=0.2, batches=40)
        recording = Recording(
            (Block("layer", {"layer.weight": 500}),),
            {"layer": upper_triangle(gram)},
            ["a"] * 40 + ["b"] * 40,
            np.ones(80),
        )
        intervals = diagnostics.diagnose(recording, resamples=200, level=0.9).intervals
        cosine.append(intervals["cosine"].low.iloc[0, 1] <= 0.3 <= intervals["cosine"].high.iloc[0, 1])
        conflict.append(intervals["conflict"].low.iloc[0, 1] <= truth <= intervals["conflict"].high.iloc[0, 1])
    assert 0.83 <= np.mean(cosine) <= 0.98
    assert 0.83 <= np.mean(conflict) <= 0.99
