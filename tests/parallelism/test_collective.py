"""The first all-reduce, between real ranks: what they measure, and how a rank that is wrong or silent is named."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parallelism import collective, launch
from parallelism.collective import Report, _report, _Told
from tests.parallelism.conftest import start_ranks

RANKS = 4
FINE = _Told(host="n1", number=0, sum_is_wrong=False, received_is_wrong=False, sum_s=0.01, receive_s=0.01)


def checked(
    folder: Path, *, spoil: Callable[[int], None] = lambda _: None, within_s: float = 60.0
) -> Mapping[int, Any]:
    """Returns what the check says on each of four ranks of two pretended hosts: a report, or the text of its error."""
    told = torch.multiprocessing.get_context("fork").SimpleQueue()

    def work(rank: int) -> None:
        collective.socket.gethostname = lambda: f"n{rank // 2 + 1}"  # type: ignore[attr-defined]
        spoil(rank)
        here = launch.Place(rank=rank, world_size=RANKS, local_rank=rank, rendezvous=f"file://{folder / 'meet'}")
        with launch.joined(here):
            try:
                told.put((rank, collective.check(within_s=within_s)))
            except RuntimeError as error:
                told.put((rank, str(error)))

    handle = start_ranks(work, RANKS)
    while not handle.join():
        pass
    return dict(told.get() for _ in range(RANKS))


def refusal(*found: str) -> set[str]:
    return {f"every rank must get the exact sum of all, but {'; '.join(found)}; leave the node out and start again"}


def test_ranks_agree_on_exact_sums_and_on_what_they_measured(tmp_path: Path) -> None:
    reports = checked(tmp_path)
    report = reports[0]
    assert isinstance(report, Report)
    assert all(reports[rank] == report for rank in range(RANKS))
    assert set(report.metrics) == {"job/allreduce_gb_per_s", "job/slowest_link_gb_per_s"}
    assert all(0.001 < figure < 1000 for figure in report.metrics.values())
    assert str(report).startswith("all-reduce: exact, ")


def test_a_rank_that_puts_in_another_number_is_named_everywhere(tmp_path: Path) -> None:
    def spoil(rank: int) -> None:
        if rank == 2:
            collective._number = lambda rank: 7  # noqa: ARG005 - named as what it replaces

    assert set(checked(tmp_path, spoil=spoil).values()) == refusal(
        "rank 2 on n2 put in 7",
        "rank 3 on n2 received something else from rank 2 on n2",
        "the sum is wrong on every rank",
    )


def test_a_link_that_changes_data_is_named_with_both_ends(tmp_path: Path) -> None:
    kept = collective._pass_on

    def flipped(sent: Tensor, received: Tensor) -> None:
        kept(sent, received)
        received[12345] += 1

    def spoil(rank: int) -> None:
        collective._pass_on = flipped if rank == 2 else kept

    assert set(checked(tmp_path, spoil=spoil).values()) == refusal(
        "rank 2 on n2 received something else from rank 1 on n1"
    )


def test_a_rank_with_another_sum_is_named(tmp_path: Path) -> None:
    kept = collective._sum

    def drifted(numbers: Tensor) -> None:
        kept(numbers)
        numbers[-1] += 1

    def spoil(rank: int) -> None:
        collective._sum = drifted if rank == 3 else kept

    assert set(checked(tmp_path, spoil=spoil).values()) == refusal("the sum is wrong on rank 3 on n2")


def test_a_silent_rank_is_the_one_that_does_not_complain(tmp_path: Path) -> None:
    kept = collective._meet

    def late(within_s: float) -> None:
        time.sleep(3)
        kept(within_s)

    def spoil(rank: int) -> None:
        collective._meet = late if rank == 1 else kept

    told = checked(tmp_path, spoil=spoil, within_s=1.0)
    for rank in (0, 2, 3):
        assert told[rank].startswith(f"all ranks must meet within 1 s, but rank {rank} on n{rank // 2 + 1} waits: ")
        assert told[rank].endswith("look at the rank that does not say so, or at network_interface of the site")


def test_one_process_has_nobody_to_ask(in_child: Callable[..., Any]) -> None:
    def alone() -> Report | None:
        with launch.joined(launch.place({})):
            return collective.check()

    assert in_child(alone) is None


@pytest.mark.parametrize(
    ("slow", "names"),
    [(2, "rank 1 on n1 to rank 2 on n2"), (0, "rank 3 on n2 to rank 0 on n1")],
    ids=["middle", "ring"],
)
def test_the_slowest_link_is_the_one_that_was_waited_for(slow: int, names: str) -> None:
    told = [replace(FINE, number=rank, host=f"n{rank // 2 + 1}") for rank in range(RANKS)]
    told[slow] = replace(told[slow], receive_s=0.1, sum_s=0.02)
    report = _report(told)
    size = collective._bytes()
    assert report.slowest == names
    assert report.slowest_gb_per_s == pytest.approx(size / 0.1 / 1e9)
    assert report.gb_per_s == pytest.approx(size * 1.5 / 0.02 / 1e9)  # 2 (n - 1) / n is 1.5 of four ranks
