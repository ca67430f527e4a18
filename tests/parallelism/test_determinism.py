"""Deterministic kernels: what is switched on, and that a training runs with it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from parallelism import determinism
from tests.parallelism.conftest import start_ranks


def test_everything_is_switched_on_and_told() -> None:
    answers = torch.multiprocessing.get_context("fork").SimpleQueue()

    def work(_: int) -> None:
        told = determinism.demand()
        set_too = {name: os.environ[name] for name in determinism.ENVIRONMENT}
        answers.put((told, set_too, torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic))

    handle = start_ranks(work, 1)
    while not handle.join():
        pass
    told, set_too, algorithms, cudnn = answers.get()
    assert algorithms
    assert cudnn
    assert told.items() >= set_too.items()
    assert set_too == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring"}


def test_a_training_runs_with_it_and_has_the_same_losses(
    start_training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = start_training(tmp_path / "plain", train_iters=3)
    plain.wait()
    for name in determinism.ENVIRONMENT:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    try:
        determinism.demand()
        forced = start_training(tmp_path / "forced", train_iters=3)
    finally:
        torch.use_deterministic_algorithms(False)
    forced.wait()
    assert forced.values() == plain.values()
