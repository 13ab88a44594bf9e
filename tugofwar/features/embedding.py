"""Pictures of features: t-SNE in two or three dimensions of the first principal components.

Features are centred and not standardised, so that a picture shows the distances that ``separation.py`` measures,
and a direction in which nothing varies is not blown up. The first picture starts from the principal components, which
keeps the arrangement at large; others with further seeds start at random, because from the same start every seed
gives nearly the same picture and says nothing about how far to trust it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tugofwar.features.distances import centred

COMPONENTS = 50
PERPLEXITY = 30.0
LIMITS = {2: 10_000, 3: 2_000}
"""Dimensions of a picture -> the most points that are drawn in it."""

_SMALL, _SMALL_ITERATIONS, _ITERATIONS = 1000, 500, 1000
_TINY = 300


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components.

    Attributes:
        scores: (samples, components) in float32, in units of the first one's standard deviation.
        share: what part of the variance they have together.
    """

    scores: NDArray[np.float32]
    share: float


def principal_components(features: NDArray[np.floating], seed: int = 0) -> Components:
    """The first principal components of features, at most ``COMPONENTS``.

    Args:
        features: (samples, width), finite and not all the same.
        seed: of the randomised decomposition of large matrices.
    """
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, features.shape[0] - 1, features.shape[1])
    points = centred(features)
    pca = PCA(count, random_state=seed)
    scores = pca.fit_transform(points / np.abs(points).max())
    return Components((scores / scores[:, 0].std()).astype(np.float32), float(pca.explained_variance_ratio_.sum()))


def perplexity_for(samples: int) -> float:
    """Perplexity of a picture: 30, or a third of the other points where that is less."""
    return min(PERPLEXITY, (samples - 1) / 3)


def iterations_for(samples: int) -> int:
    """Steps of t-SNE's descent: few points have settled (their neighbours do not change) after half as many."""
    return _SMALL_ITERATIONS if samples <= _SMALL else _ITERATIONS


def learning_rate_for(samples: int) -> float | str:
    """Step of t-SNE's descent: scikit-learn's own, 50 or more, throws few points about in 3-D and never settles."""
    return "auto" if samples >= _TINY else max(5.0, samples / 24)


def embed(scores: NDArray[np.float32], dimensions: int, seed: int, start: str = "pca") -> NDArray[np.float32]:
    """t-SNE of principal components.

    Args:
        scores: (samples, components), at least as many components as ``dimensions``.
        dimensions: 2 or 3.
        seed: of the start and of the approximations.
        start: ``pca`` or ``random``.

    Returns:
        (samples, dimensions).
    """
    from sklearn.manifold import TSNE

    samples = len(scores)
    model = TSNE(
        dimensions,
        perplexity=perplexity_for(samples),
        init=start,
        learning_rate=learning_rate_for(samples),
        random_state=seed,
        max_iter=iterations_for(samples),
    )
    picture: NDArray[np.float32] = model.fit_transform(scores)
    return picture


def stratified(datasets: Sequence[str], limit: int, seed: int = 0) -> NDArray[np.intp]:
    """Rows to draw when there are more than ``limit``: of every dataset its share, at least one.

    Args:
        datasets: dataset of every row.
        limit: rows to keep, at least the number of datasets.
        seed: of the draw.

    Returns:
        Ascending rows; all of them where they are no more than ``limit``.
    """
    if len(datasets) <= limit:
        return np.arange(len(datasets))
    names = np.asarray(datasets)
    rows = [np.flatnonzero(names == name) for name in dict.fromkeys(datasets)]
    sizes = np.array([len(each) for each in rows])
    shares = sizes * limit / sizes.sum()
    kept = np.maximum(1, np.floor(shares).astype(int))
    # what rounding left over goes to those that it cost most; what a lone row took too much, to the largest
    while kept.sum() < limit:
        kept[np.argmax(np.where(kept < sizes, shares - kept, -np.inf))] += 1
    while kept.sum() > limit:
        kept[np.argmax(kept)] -= 1
    rng = np.random.default_rng(seed)
    return np.sort(
        np.concatenate([rng.choice(each, count, replace=False) for each, count in zip(rows, kept, strict=True)])
    )
