"""Intervals and verdicts, checked against closed forms and against scipy's own bootstrap."""

import math

import numpy as np
import pytest
from scipy import stats

from evaluation import statistics


def own_groups(n: int) -> list[str]:
    return [str(index) for index in range(n)]


def test_a_proportion_has_the_interval_of_the_normal_approximation() -> None:
    n, share = 400, 0.7
    values = [1.0] * int(n * share) + [0.0] * (n - int(n * share))
    found = statistics.estimate(values, groups=own_groups(n), seed=1)
    half = 1.959964 * math.sqrt(share * (1 - share) / n)
    assert found.value == pytest.approx(share)
    assert found.n == n
    assert found.low == pytest.approx(share - half, abs=0.006)
    assert found.high == pytest.approx(share + half, abs=0.006)


def test_agrees_with_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(3).random(60)
    expected = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=0)
    found = statistics.estimate(values.tolist(), groups=own_groups(60), seed=2)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.005)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.005)


def test_items_of_one_group_do_not_count_as_independent() -> None:
    values = [float(index % 2) for index in range(40)]
    alone = statistics.estimate(values, groups=own_groups(40), seed=0)
    ten_times = statistics.estimate(values * 10, groups=own_groups(40) * 10, seed=0)
    assert ten_times.n == 400
    assert (ten_times.low, ten_times.high) == pytest.approx((alone.low, alone.high))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(5).random((200, 100)) < 0.3
    intervals = [
        statistics.estimate(row.astype(float).tolist(), groups=own_groups(100), seed=seed)
        for seed, row in enumerate(draws)
    ]
    covered = sum(interval.low <= 0.3 <= interval.high for interval in intervals)
    assert 0.89 <= covered / 200 <= 0.99


def test_same_seed_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).random(30).tolist()
    first = statistics.estimate(values, groups=own_groups(30), seed=7)
    assert first == statistics.estimate(values, groups=own_groups(30), seed=7)
    assert first != statistics.estimate(values, groups=own_groups(30), seed=8)


def test_pairing_makes_a_small_but_steady_gain_certain() -> None:
    baseline = [float(index % 2) for index in range(200)]
    model = [1.0 if index % 10 == 0 else value for index, value in enumerate(baseline)]
    found = statistics.compare(model, baseline, groups=own_groups(200), seed=0)
    assert found.difference.value == pytest.approx(0.1)
    assert found.model.low < found.baseline.high, "the two intervals overlap, unlike the paired difference and 0"
    assert found.verdict == "better"


@pytest.mark.parametrize(("right", "verdict"), [(90, "better"), (50, "tie"), (10, "worse")])
def test_verdicts(right: int, verdict: str) -> None:
    model = [1.0] * right + [0.0] * (100 - right)
    assert statistics.compare(model, [0.5] * 100, groups=own_groups(100), seed=0).verdict == verdict


@pytest.mark.parametrize(("groups", "verdict"), [(9, "tie"), (10, "better")])
def test_few_groups_allow_no_verdict(groups: int, verdict: str) -> None:
    names = [str(index % groups) for index in range(90)]
    assert statistics.few_groups(names) == (groups == 9)
    found = statistics.compare([1.0] * 90, [0.0] * 90, groups=names, seed=0)
    assert found.difference.low == 1
    assert found.verdict == verdict


def test_refuses_no_items_and_unpaired_lists() -> None:
    with pytest.raises(ValueError, match="at least 1 value, but got 0 values and 0 groups"):
        statistics.estimate([], groups=[], seed=0)
    with pytest.raises(ValueError, match="the model has 2 and the baseline 1; score both on one list"):
        statistics.compare([1.0, 0.0], [1.0], groups=["a", "b"], seed=0)
