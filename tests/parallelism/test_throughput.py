"""Rates of training beside the measured peak."""

import pytest
import torch

from parallelism import launch
from parallelism.throughput import Meter, matmul_peak


def test_rates_are_per_second_and_of_the_peak() -> None:
    meter = Meter(tokens=100, flops=4 * 10**12, peak=8e12)
    assert meter.typical() == {}
    assert meter.add(10.0)["train/mfu"] == pytest.approx(0.05)
    for seconds in (5.0, 1.0, 2.0, 4.0):
        rates = meter.add(seconds)
    assert rates == pytest.approx(
        {"train/step_time_s": 4.0, "train/tokens_per_s": 25.0, "train/tflops_per_s": 1.0, "train/mfu": 0.125}
    )
    assert meter.typical()["train/step_time_s"] == 2.0  # the first two steps warm up


def test_the_peak_is_what_a_matmul_reaches() -> None:
    with launch.joined(launch.place({})):
        peak = matmul_peak(torch.float32)
    assert 1e9 < peak < 1e14
