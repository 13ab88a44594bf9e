"""Linear CKA between two representations of the same samples, without the bias of few samples, with an interval.

``CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` of the linear kernels ``K = X X^T`` and ``L = Y Y^T`` (S. Kornblith
et al. 2019), with the unbiased estimator of HSIC (L. Song et al. 2012, eq. 5; T. Nguyen et al. 2021, eq. 3):

``n (n - 3) HSIC = tr(K L) + (1'K 1)(1'L 1) / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K L 1``, both diagonals set to 0.

The plain estimator approaches 1 for unrelated features that are wider than the samples are many; this one is 0 there
on average, and may be negative. The interval is a jackknife's (``tugofwar.jackknife``) on Fisher's scale, ``atanh``, so
that it ends at 1; a bootstrap would count copies of a sample as perfectly aligned.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tugofwar.features.distances import centred, row_blocks
from tugofwar.features.jackknife import Estimate, jackknife_interval

FEWEST = 5
"""Samples that a value with an interval needs: the estimator needs four, and one is left out."""

_ROUNDING = 1e-9
_SAME = 1e-6
"""Part of the largest feature that samples may differ by when they are the same but for rounding in float32."""

Floats = NDArray[np.float64]


def linear_cka(
    before: NDArray[np.floating], after: NDArray[np.floating], datasets: Sequence[str], level: float = 0.95
) -> Estimate | None:
    """Debiased linear CKA and its interval.

    Kernels are formed a block of rows at a time, never whole.

    Args:
        before: (samples, width), finite.
        after: (samples, another width), finite.
        datasets: dataset of every sample: samples are left out within these.
        level: probability of the interval.

    Returns:
        The estimate; None with fewer than ``FEWEST`` samples, or where CKA does not exist because on a side all samples
        (or all but one) have the same features, or all are equally far apart.
    """
    samples = len(before)
    if samples < FEWEST:
        return None
    first, second = _scaled(before), _scaled(after)
    if first is None or second is None:
        return None
    points = {"x": first, "y": second}
    row_sums = {side: _row_sums(each) for side, each in points.items()}
    products = {pair: _Products(samples) for pair in (("x", "y"), ("x", "x"), ("y", "y"))}
    for rows in row_blocks(samples):
        kernels = {side: _kernel(each, rows) for side, each in points.items()}
        for (one, other), product in products.items():
            product.add(rows, kernels[one], kernels[other], row_sums[one], row_sums[other])
    shared, own, others = (product.hsic(row_sums[pair[0]], row_sums[pair[1]]) for pair, product in products.items())
    # of features scaled so, each is at least about 1 / width unless there is nothing to align
    if min(own.min(), others.min()) <= _ROUNDING:
        return None
    values = np.clip(shared / np.sqrt(own * others), -1, 1)
    return _on_fishers_scale(float(values[-1]), values[:-1], datasets, level)


def _on_fishers_scale(value: float, left_out: Floats, datasets: Sequence[str], level: float) -> Estimate:
    edge = 1 - _ROUNDING
    if abs(value) > edge:
        return Estimate(value, value, value)
    strata = np.unique(np.asarray(datasets), return_inverse=True)[1]
    spread = np.arctanh(np.clip(left_out, -edge, edge))
    scale = jackknife_interval(float(np.arctanh(value)), spread, strata, level, (-np.inf, np.inf))
    return Estimate(value, float(np.tanh(scale.low)), float(np.tanh(scale.high)))


def _scaled(features: NDArray[np.floating]) -> Floats | None:
    """Centred features with squares of mean 1 per sample; None where all samples are the same."""
    points = centred(features)
    if np.abs(points).max() <= _SAME * np.abs(features).max():
        return None
    points /= np.abs(points).max()
    points /= np.sqrt((points**2).sum() / len(points))
    return points


def _kernel(points: Floats, rows: slice) -> Floats:
    """Some rows (rows, samples) of the kernel with its diagonal set to 0."""
    block = points[rows] @ points.T
    block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = 0
    return block


def _row_sums(points: Floats) -> Floats:
    """Sums of the kernel's rows without the diagonal, (samples,)."""
    sums: Floats = points @ points.sum(axis=0) - np.einsum("ij,ij->i", points, points)
    return sums


class _Products:
    """What HSIC of all samples, and of all but each one, needs of two kernels.

    Attributes:
        shared: (samples,) ``sum_j K_ij L_ij``.
        through: (samples,) ``(K L 1)_i + (L K 1)_i``.
    """

    def __init__(self, samples: int) -> None:
        self.shared = np.zeros(samples)
        self.through = np.zeros(samples)

    def add(self, rows: slice, one: Floats, other: Floats, one_sums: Floats, other_sums: Floats) -> None:
        """Take in some rows of both kernels, whose row sums over all samples are given."""
        self.shared[rows] = np.einsum("ij,ij->i", one, other)
        self.through[rows] = one @ other_sums + other @ one_sums

    def hsic(self, one_sums: Floats, other_sums: Floats) -> Floats:
        """HSIC without each of the samples, and last that of all, (samples + 1,)."""
        samples = len(one_sums)
        trace, path = self.shared.sum(), one_sums @ other_sums
        one, other = one_sums.sum(), other_sums.sum()
        left_out = _hsic(
            samples - 1,
            trace - 2 * self.shared,
            one - 2 * one_sums,
            other - 2 * other_sums,
            path - one_sums * other_sums - self.through + self.shared,
        )
        return np.append(left_out, _hsic(samples, trace, one, other, path))


def _hsic(samples: int, trace: Floats, one: Floats, other: Floats, path: Floats) -> Floats:
    """Song et al.'s equation 5 from ``tr(K L)``, ``1'K 1``, ``1'L 1`` and ``1'K L 1``."""
    corrected = trace + one * other / ((samples - 1) * (samples - 2)) - 2 * path / (samples - 2)
    return corrected / (samples * (samples - 3))
