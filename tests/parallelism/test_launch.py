"""How a process finds its place, and how it is told to stop."""

import os
import signal

import pytest
import torch.distributed as dist

from parallelism import launch
from parallelism.launch import Place, place, stoppable

ENVIRONMENT = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "12345"}


def test_a_place_is_read_from_the_launchers_environment() -> None:
    assert place(ENVIRONMENT) == Place(rank=3, world_size=4, local_rank=1, rendezvous="env://")


def test_a_process_without_a_launcher_is_alone() -> None:
    assert place({}) == Place(rank=0, world_size=1, local_rank=0, rendezvous=None)
    assert place({"RANK": "0", "WORLD_SIZE": "1"}).rendezvous is None


@pytest.mark.parametrize("name", list(ENVIRONMENT))
def test_what_a_launcher_forgot_is_named(name: str) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != name}
    with pytest.raises(ValueError, match=f"a launcher must set RANK, .* but {name} is not set; start the job through"):
        place(environment)


def test_a_rank_outside_the_job_is_refused() -> None:
    with pytest.raises(ValueError, match="RANK must be below WORLD_SIZE 4, but is 4; correct the launcher"):
        place({**ENVIRONMENT, "RANK": "4"})


def test_one_process_joins_itself() -> None:
    with launch.joined(place({})):
        assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
    assert not dist.is_initialized()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_becomes_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable() as request:
        assert not request.asked
        os.kill(os.getpid(), number)
        assert request.asked
    assert signal.getsignal(number) == before
