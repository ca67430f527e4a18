"""How sure a score is: accuracy with a bootstrap interval, and the paired difference to a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "tie", "worse"]
RESAMPLES = 10_000
MIN_GROUPS = 10  # an interval from fewer resampled groups is far too short to stand for 95 %
CONFIDENCE = 0.95
RESAMPLES_AT_A_TIME = 100  # bounds the memory: 100 resamples of 100,000 groups are 80 MB


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over n items with its 95 % interval, all in the unit of the values."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model beside a baseline on the same items; `difference` is model minus baseline."""

    model: Estimate
    baseline: Estimate
    difference: Estimate
    verdict: Verdict


def estimate(values: Sequence[float], *, groups: Sequence[str], seed: int) -> Estimate:
    """Returns the mean of `values` with a percentile bootstrap interval.

    Items of one group (a document and its translation, say) are not independent, so whole groups are resampled
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). With one item a group this is the
    ordinary bootstrap.

    Args:
        values: shape (n,), one score an item, 0 to 1 for accuracy.
        groups: shape (n,), the group of each item.
        seed: the resamples are a pure function of it and of the groups.

    Raises:
        ValueError: there is no item, or the lengths differ.
    """
    if not values or len(values) != len(groups):
        raise ValueError(
            f"an estimate needs one group for each of at least 1 value, but got {len(values)} values and "
            f"{len(groups)} groups; give every item its group"
        )
    means = _resampled_means(np.asarray(values, dtype=np.float64), groups=groups, seed=seed)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(value=float(np.mean(values)), low=float(low), high=float(high), n=len(values))


def compare(model: Sequence[float], baseline: Sequence[float], *, groups: Sequence[str], seed: int) -> Comparison:
    """Compares two scores item by item on the same items, shape (n,) each; a tie when there are few groups.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    if len(model) != len(baseline):
        raise ValueError(
            f"a paired comparison needs both scores on the same items, but the model has {len(model)} and the "
            f"baseline {len(baseline)}; score both on one list"
        )
    differences = [mine - theirs for mine, theirs in zip(model, baseline, strict=True)]
    difference = estimate(differences, groups=groups, seed=seed)
    return Comparison(
        model=estimate(model, groups=groups, seed=seed),
        baseline=estimate(baseline, groups=groups, seed=seed),
        difference=difference,
        verdict="tie" if few_groups(groups) else verdict(difference),
    )


def few_groups(groups: Sequence[str]) -> bool:
    """Returns whether there are too few independent groups, fewer than MIN_GROUPS, for a verdict."""
    return len(set(groups)) < MIN_GROUPS


def verdict(difference: Estimate) -> Verdict:
    """Returns 'better' or 'worse' only when the interval of the difference leaves out 0; else 'tie'."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "tie"


def _resampled_means(values: NDArray[np.float64], *, groups: Sequence[str], seed: int) -> NDArray[np.float64]:
    _, group_of_item = np.unique(np.asarray(groups), return_inverse=True)
    totals = np.bincount(group_of_item, weights=values)
    sizes = np.bincount(group_of_item).astype(np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, RESAMPLES_AT_A_TIME):
        chosen = generator.integers(0, len(totals), size=(RESAMPLES_AT_A_TIME, len(totals)))
        means[start : start + RESAMPLES_AT_A_TIME] = totals[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    return means
