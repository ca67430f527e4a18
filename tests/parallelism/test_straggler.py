"""The slow rank: every rank learns the same name."""

import socket
from pathlib import Path

import pytest
import torch

from parallelism import launch, straggler
from tests.parallelism.conftest import start_ranks


def test_the_slowest_of_real_ranks_is_named(tmp_path: Path) -> None:
    answers = torch.multiprocessing.get_context("fork").SimpleQueue()

    def work(rank: int) -> None:
        here = launch.Place(rank=rank, world_size=3, local_rank=rank, rendezvous=f"file://{tmp_path}/meet")
        with launch.joined(here):
            answers.put(straggler.slowest((0.1, 0.3, 0.1)[rank]))

    handle = start_ranks(work, 3)
    while not handle.join():
        pass
    first, *others = [answers.get() for _ in range(3)]
    assert (first.rank, first.host, first.seconds) == (1, socket.gethostname(), 0.3)
    assert first.ratio == pytest.approx(3)
    assert others == [first, first]
    assert str(first) == (
        f"slowest rank: 1 on {socket.gethostname()}, 300.00 ms for the test piece, 3.00 x the median rank"
    )


def test_the_test_piece_takes_time() -> None:
    assert 0 < straggler.time_piece(torch.float32) < 1
