"""A k-means start for the emissions of a hidden Markov model."""

from __future__ import annotations

import numpy as np

__all__ = ["clusters"]


def clusters(x: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster of each row of ``x`` (N, C), features scaled to unit variance, by k-means.

    The first centres are rows drawn with probability proportional to their squared distance from the centres
    before (k-means++).

    Raises:
        ValueError: If there are fewer different rows than clusters.

    Source: Arthur & Vassilvitskii (2007) for the first centres.
    """
    from scipy.cluster.vq import kmeans2

    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
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
    _, labels = kmeans2(x, np.stack(centres), iter=20, minit="matrix")
    return np.asarray(labels)
