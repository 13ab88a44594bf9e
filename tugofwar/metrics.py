"""The paper's measures of interference as pure functions of a Gram matrix (arXiv 2409.17508, eq. 1 to 5).

Throughout, ``gram[a, b]`` is the inner product of the gradients of batches ``a`` and ``b`` with respect to
the selected parameters, and ``groups`` maps the name of a dataset or task to its rows. With ``datasets``
(the dataset of each row) every mean over a group is taken per dataset first and then over the group's
datasets, so that pooled tasks give their datasets equal weight; the paper leaves this open.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tugofwar.errors import UserError
from tugofwar.strata import Group, build_groups

Estimator = Literal["plugin", "leave_one_out", "ratio_of_means"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
DEFAULT_ESTIMATOR: Estimator = "ratio_of_means"

# A denominator whose mean is under four of its standard deviations: see ``unstable_groups``.
_UNSTABLE_SPREAD = 0.25

Groups = Mapping[str, Sequence[int]]
Array = NDArray[np.float64]


def gradient_direction(
    gram: ArrayLike,
    groups: Groups,
    estimator: str = DEFAULT_ESTIMATOR,
    datasets: Sequence[str] | None = None,
) -> Array:
    """Gradient-direction interference GD (eq. 2), from first-order loss changes along unit gradients (eq. 1).

    With ``U_aj = mean_{b in S_j} K_ab / sqrt(K_bb)``, what the loss of batch ``a`` gains along the mean unit
    gradient of ``j``:

    * ``plugin``: ``GD_ij = mean_{a in S_i} U_aj / U_ai``, the paper's equation as printed. ``U_ai`` contains
      the batch itself, which biases it by ``|g_a| / |S_i|``.
    * ``leave_one_out``: the same, each batch left out of the mean unit gradient of its own group.
    * ``ratio_of_means``: ``mean_{a in S_i} U_aj`` over the leave-one-out ``mean_{a in S_i} U_ai``.

    In a task that pools datasets a batch is left out of its own dataset's mean; the other datasets of the
    task keep all of theirs. Where groups overlap, a batch is left out of every group that it belongs to. A
    batch whose gradient is exactly zero counts as the zero vector among the unit gradients, and its ratio
    0/0 is left out of the mean of ratios.

    Args:
        gram: inner products of batch gradients, ``(batches, batches)``, symmetric.
        groups: rows of each of the ``T`` datasets or tasks.
        estimator: one of ``plugin``, ``leave_one_out``, ``ratio_of_means``.
        datasets: dataset of each row, for equal weight per dataset.

    Returns:
        ``(T, T)`` in the mapping's order, dimensionless; row ``i`` is interfered with, column ``j``
        interferes. The diagonal is exactly 1; the matrix is not symmetric.

    Raises:
        UserError: invalid input; a dataset with one batch (not for ``plugin``); a group whose own denominator
            is exactly zero, so that the ratio does not exist.
    """
    check_estimator(estimator)
    matrix = check_gram(gram)
    members = build_groups(groups, len(matrix), datasets)
    unit = unit_products(matrix)
    leave_out = estimator != "plugin"
    along = np.stack([along_group(unit, group, leave_out) for group in members], axis=1)
    if estimator == "ratio_of_means":
        direction = _ratio_of_means(along, members)
    else:
        direction = _mean_of_ratios(along, members, np.diagonal(matrix) > 0)
    np.fill_diagonal(direction, 1.0)
    return direction


def gradient_magnitude_similarity(gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None) -> Array:
    """Gradient-magnitude similarity GM (eq. 3): ``2 m_i m_j / (m_i^2 + m_j^2)``, ``m_i`` the mean norm.

    Args:
        gram: inner products of batch gradients, ``(batches, batches)``.
        groups: rows of each of the ``T`` datasets or tasks.
        datasets: dataset of each row, for equal weight per dataset.

    Returns:
        ``(T, T)`` in the mapping's order, symmetric, in (0, 1], diagonal exactly 1.

    Raises:
        UserError: invalid input, or a group whose gradients are all zero.
    """
    matrix = check_gram(gram)
    members = build_groups(groups, len(matrix), datasets)
    norms = np.sqrt(np.diagonal(matrix))
    means = np.array([group.weights(len(matrix)) @ norms for group in members])
    for group, mean in zip(members, means, strict=True):
        if mean == 0:
            raise UserError(f"Group {group.name!r} has only zero gradients on the selected parameters; leave it out.")
    means = means / means.max()
    return 2 * np.outer(means, means) / np.add.outer(means**2, means**2)


def tug_of_war_index(gradient_direction: ArrayLike, gradient_magnitude: ArrayLike) -> Array:
    """Tug-of-war index (eq. 4): ``I_i = sum_j GD_ij GM_ij``, the sum including ``j = i``.

    Args:
        gradient_direction: GD, ``(T, T)``.
        gradient_magnitude: GM, ``(T, T)``.

    Returns:
        ``(T,)``, dimensionless; ``T`` means that all pull alike, below 1 that others pull against ``i``.

    Raises:
        UserError: shapes that are not equal and square.
    """
    gd = np.asarray(gradient_direction, dtype=np.float64)
    gm = np.asarray(gradient_magnitude, dtype=np.float64)
    if gd.ndim != 2 or gd.shape[0] != gd.shape[1] or gd.shape != gm.shape:
        raise UserError(f"GD and GM must be square and of one shape; got {gd.shape} and {gm.shape}.")
    return (gd * gm).sum(axis=1)


def unstable_groups(gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None) -> tuple[str, ...]:
    """Groups for which the mean of ratios of ``leave_one_out`` (eq. 2) is heavy-tailed, in the mapping's order.

    A ratio ``U_aj / U_ai`` has no mean where its denominator can be 0; in a sample this shows as single
    batches that decide the result. The relative spread of the denominators says how near 0 they come: a group
    is named when their standard deviation exceeds a quarter of their mean, or when one of them is not
    positive. Below a quarter, 0 is four standard deviations off, the smallest of 100 denominators is around
    0.4 of their mean, and no batch counts much more than twice; at a third (gradients of 200 parameters,
    within-task cosine 0.05, 100 batches) one dataset in seven has a denominator of the wrong sign. Lengths that
    differ between batches cancel in the ratio, so that the spread is the smaller of that of ``U_ai`` and that
    of ``U_ai / |g_a|``.

    Args:
        gram: inner products of batch gradients, ``(batches, batches)``.
        groups: rows of each of the ``T`` datasets or tasks.
        datasets: dataset of each row; the spread is judged within each dataset of a group.

    Raises:
        UserError: invalid input, or a dataset with one batch.
    """
    matrix = check_gram(gram)
    unit = unit_products(matrix)
    norms = np.sqrt(np.diagonal(matrix))
    return tuple(
        group.name
        for group in build_groups(groups, len(matrix), datasets)
        if _is_unstable(along_group(unit, group, leave_out=True), norms, group)
    )


def maximum_normalised(index: ArrayLike) -> Array:
    """Tug-of-war indexes divided by the largest of them, as in the paper's Figure 4a; the largest becomes 1.

    Raises:
        ValueError: the largest index is not positive, so that the quotient would say nothing.
    """
    values = np.asarray(index, dtype=np.float64)
    if not values.max() > 0:
        raise ValueError(f"The largest tug-of-war index is {values.max():.3g}: not positive, nothing to divide by.")
    return values / values.max()


def statistics_score(gradients: Sequence[Any]) -> tuple[Array, NDArray[np.bool_]]:
    """Statistics score of every parameter (eq. 5): ``|sum_i gbar_i| / sum_i |gbar_i|``.

    Args:
        gradients: mean gradient of each dataset or task, all of one shape.

    Returns:
        ``(score, undefined)``, both of the gradients' shape. The score is in [0, 1]: 1 where all pull the
        same way, 0 where they cancel. Where no gradient reaches a parameter the score is 0/0: ``undefined``
        is true and the score is NaN, to be counted and left out.

    Raises:
        UserError: no gradients, different shapes, or values that are not finite.
    """
    arrays = [np.asarray(gradient, dtype=np.float64) for gradient in gradients]
    if not arrays:
        raise UserError("A statistics score needs the mean gradient of at least one dataset; got none.")
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise UserError(f"The mean gradients must have one shape; got {sorted(shapes)}.")
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError("A mean gradient holds values that are not finite; a statistics score needs finite ones.")
    total = np.abs(np.sum(arrays, axis=0))
    absolute = np.sum(np.abs(arrays), axis=0)
    undefined = absolute == 0
    score = np.full(absolute.shape, np.nan)
    np.divide(total, absolute, out=score, where=~undefined)
    return score, undefined


def check_estimator(estimator: str) -> None:
    """Raise a UserError unless ``estimator`` is one of ``ESTIMATORS``."""
    if estimator not in ESTIMATORS:
        raise UserError(f"There is no estimator {estimator!r}; choose one of {', '.join(ESTIMATORS)}.")


def check_gram(gram: ArrayLike) -> Array:
    """Return ``gram`` as a float64 matrix, or raise a UserError unless it is square, finite and symmetric."""
    matrix = np.asarray(gram, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UserError(f"A Gram matrix is square, (batches, batches); got shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise UserError("The Gram matrix holds values that are not finite; a gradient overflowed or is NaN.")
    norms = np.diagonal(matrix)
    if (norms < 0).any():
        raise UserError(f"The Gram matrix has a negative diagonal entry at row {int(norms.argmin())}.")
    # A recording's matrix is symmetric to the bit, which is seen sooner.
    near = np.array_equal(matrix, matrix.T) or np.allclose(
        matrix, matrix.T, rtol=1e-5, atol=1e-5 * float(norms.max(initial=0.0))
    )
    if not near:
        raise UserError("The Gram matrix is not symmetric; entry (a, b) must equal entry (b, a).")
    return matrix


def unit_products(gram: Array) -> Array:
    """``V_ab = K_ab / sqrt(K_bb)``: batch ``a`` along the unit gradient of ``b``; 0 where ``b`` has none."""
    norms = np.sqrt(np.diagonal(gram))
    return np.divide(gram, norms, out=np.zeros_like(gram), where=norms > 0)


def check_leave_one_out(groups: Sequence[Group]) -> None:
    """Raise a UserError for a dataset with a single batch, which has nothing left once it is left out."""
    for group in groups:
        for stratum in group.strata:
            if len(stratum.rows) < 2:
                raise UserError(
                    f"Dataset {stratum.name!r} has one batch, but leaving a batch out needs at "
                    "least two; record "
                    "more batches or use estimator='plugin'."
                )


def along_group(unit: Array, group: Group, leave_out: bool) -> Array:
    """``U_aj`` of every batch ``a`` for one group ``j``, ``(batches,)``; members left out if asked."""
    if leave_out:
        check_leave_one_out([group])
    along = np.zeros(len(unit))
    for stratum in group.strata:
        sums = unit[:, stratum.rows].sum(axis=1)
        means = sums / len(stratum.rows)
        if leave_out:
            own = unit[stratum.rows, stratum.rows]
            means[stratum.rows] = (sums[stratum.rows] - own) / (len(stratum.rows) - 1)
        along += means / len(group.strata)
    return along


def _is_unstable(own: Array, norms: Array, group: Group) -> bool:
    for stratum in group.strata:
        rows = stratum.rows[norms[stratum.rows] > 0]
        denominators = own[rows]
        if (denominators <= 0).any():
            return True
        if len(rows) > 1 and min(_relative_spread(denominators), _relative_spread(denominators / norms[rows])) > (
            _UNSTABLE_SPREAD
        ):
            return True
    return False


def _relative_spread(values: Array) -> float:
    return float(values.std(ddof=1) / values.mean())


def _ratio_of_means(along: Array, groups: Sequence[Group]) -> Array:
    means = np.stack([group.weights(len(along)) @ along for group in groups])
    own = np.diagonal(means)
    for group, denominator in zip(groups, own, strict=True):
        if denominator == 0:
            raise UserError(
                f"GD of {group.name!r} does not exist: its batches share no direction (their mean "
                "product with "
                "each other is exactly zero); record more batches."
            )
    return means / own[:, np.newaxis]


def _mean_of_ratios(along: Array, groups: Sequence[Group], has_gradient: NDArray[np.bool_]) -> Array:
    direction = np.zeros((len(groups), len(groups)))
    for i, group in enumerate(groups):
        for stratum in group.strata:
            rows = stratum.rows[has_gradient[stratum.rows]]
            if len(rows) == 0:
                raise UserError(
                    f"Dataset {stratum.name!r} has only zero gradients on the selected parameters; leave it out."
                )
            denominators = along[rows, i]
            if (denominators == 0).any():
                raise UserError(
                    f"GD of {group.name!r} does not exist as a mean of ratios: batch "
                    f"{int(rows[denominators == 0][0])} "
                    "gains exactly nothing along its own group; use estimator='ratio_of_means'."
                )
            ratios = along[rows] / denominators[:, np.newaxis]
            direction[i] += ratios.mean(axis=0) / len(group.strata)
    return direction
