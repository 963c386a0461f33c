"""A k-means start for the emissions of a hidden Markov model."""

from __future__ import annotations

import numpy as np

__all__ = ["clusters"]


def clusters(x: np.ndarray, num_clusters: int, rng: np.random.Generator, max_iters: int = 20) -> np.ndarray:
    """Cluster of each row of ``x`` (N, C), features scaled to unit variance, by k-means; none is empty.

    The first centres are rows drawn with probability proportional to their squared distance from the centres
    before (k-means++). A start need not converge: it stops early where a cluster would lose its last row.

    Raises:
        ValueError: If there are fewer different rows than clusters.

    Source: Arthur & Vassilvitskii (2007) for the first centres.
    """
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    labels = _nearest(x, _first_centres(x, num_clusters, rng))
    for _ in range(max_iters):
        centres = np.stack([x[labels == k].mean(axis=0) for k in range(num_clusters)])
        new = _nearest(x, centres)
        if len(np.unique(new)) < num_clusters or (new == labels).all():
            break
        labels = new
    return labels


def _first_centres(x: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    centres = [x[rng.integers(len(x))]]
    distance = ((x - centres[0]) ** 2).sum(axis=1)
    while len(centres) < num_clusters:
        if not distance.any():
            raise ValueError(
                f"the data hold only {len(centres)} different observation(s), fewer than num_states="
                f"{num_clusters}; ask for at most that many states."
            )
        centres.append(x[rng.choice(len(x), p=distance / distance.sum())])
        distance = np.minimum(distance, ((x - centres[-1]) ** 2).sum(axis=1))
    return np.stack(centres)


def _nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    squares = np.stack([((x - centre) ** 2).sum(axis=1) for centre in centres], axis=1)
    return squares.argmin(axis=1)
