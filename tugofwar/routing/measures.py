"""How a router divides the work between experts: measures on arrays of routing weights (Fig. 4c of arXiv 2409.17508).

Every function works on the last axes of its arrays, so that all resamples of a bootstrap are one call.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tugofwar.errors import UserError

Array = NDArray[np.float64]

FAIR_SHARE = 0.01
"""An expert that carries less than this part of ``1 / experts`` of the weight is dead."""


def entropy(weights: ArrayLike) -> Array:
    """Entropy ``H = -sum_e w_e log2 w_e`` of distributions over experts, in bits; 0 for one expert alone.

    Args:
        weights: ``(..., experts)``, not negative, summing to 1 over experts.

    Returns:
        ``(...)``, from 0 (all weight on one expert) to ``log2(experts)`` (the same weight on each).

    Raises:
        UserError: rows that are no distributions.
    """
    return _entropy(_distributions(weights))


def share_of_largest_entropy(weights: ArrayLike) -> Array:
    """Entropy divided by its largest value, ``H / log2(experts)``: 1 when every expert carries the same weight.

    Of mean weights this is the utilisation entropy; its mean over single tokens' weights is the token entropy.

    Args:
        weights: ``(..., experts)``, at least two experts.

    Raises:
        UserError: rows that are no distributions, or a single expert, which can be used in one way only.
    """
    array = _distributions(weights)
    if array.shape[-1] < 2:
        raise UserError("A router with one expert has no entropy of use; there is nothing to divide.")
    return _entropy(array) / np.log2(array.shape[-1])


def mutual_information(weights: ArrayLike) -> Array:
    """Mutual information of task and expert, ``I = H(mean_t p_t) - mean_t H(p_t)``, in bits, each task as likely.

    How much the expert that a token goes to tells about its task: 0 when all tasks are routed alike, at most
    ``log2(min(tasks, experts))``, when each task has experts of its own.

    Args:
        weights: ``(..., tasks, experts)``, the mean weights ``p_t`` of each task.

    Returns:
        ``(...)``.

    Raises:
        UserError: rows that are no distributions.
    """
    array = _distributions(weights)
    # the difference of two entropies may be -1e-17
    return np.maximum(_entropy(array.mean(axis=-2)) - _entropy(array).mean(axis=-1), 0.0)


def jensen_shannon(weights: ArrayLike) -> Array:
    """Jensen-Shannon divergence between tasks, ``H((p + q) / 2) - (H(p) + H(q)) / 2``, in bits.

    Args:
        weights: ``(..., tasks, experts)``, the mean weights of each task.

    Returns:
        ``(..., tasks, tasks)``, symmetric, diagonal 0, from 0 (routed alike) to 1 (no expert in common).

    Raises:
        UserError: rows that are no distributions.
    """
    array = _distributions(weights)
    own = _entropy(array)
    middle = _entropy((array[..., :, np.newaxis, :] + array[..., np.newaxis, :, :]) / 2)
    divergence = np.clip(middle - (own[..., :, np.newaxis] + own[..., np.newaxis, :]) / 2, 0.0, 1.0)
    diagonal = np.arange(array.shape[-2])
    divergence[..., diagonal, diagonal] = 0.0
    return divergence


def dead_experts(weights: ArrayLike) -> NDArray[np.bool_]:
    """Whether each expert carries less than ``FAIR_SHARE`` of its fair share ``1 / experts`` of the weight.

    Args:
        weights: ``(..., experts)``, mean weights.

    Raises:
        UserError: rows that are no distributions.
    """
    array = _distributions(weights)
    return array < FAIR_SHARE / array.shape[-1]


def _distributions(weights: ArrayLike) -> Array:
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim < 1 or array.shape[-1] < 1:
        raise UserError(f"Routing weights have the experts as last axis; got the shape {array.shape}.")
    if not (np.isfinite(array).all() and (array >= -1e-9).all() and np.allclose(array.sum(axis=-1), 1, atol=1e-6)):
        raise UserError("Routing weights must not be negative and must sum to 1 over the experts, the last axis.")
    return np.maximum(array, 0.0)


def _entropy(weights: Array) -> Array:
    logarithms = np.log2(weights, out=np.zeros_like(weights), where=weights > 0)
    # + 0.0, because -0.0 is printed as such
    return -(weights * logarithms).sum(axis=-1) + 0.0
