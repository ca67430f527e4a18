"""What a stage asks of a site, and every way a site refuses."""

import pytest

from slurm.resources import Resources
from slurm.site import Site

SITE = Site(
    description="two nodes", executor="slurm", nodes=2, tasks_per_node=8, gpus_per_node=8, mem_gb=100, timeout_min=60
)


def test_sizes_follow_from_nodes_and_tasks() -> None:
    asked = Resources(nodes=32, tasks_per_node=8, gpus_per_node=8, timeout_min=90)
    assert asked.world_size == 256
    assert asked.gpu_hours == 384


def test_a_site_that_can_give_it_refuses_nothing() -> None:
    assert list(Resources(nodes=2, tasks_per_node=8, gpus_per_node=8).problems(SITE, parallel=True)) == []
    assert list(Resources(gpus_per_node=8).problems(SITE, parallel=False)) == []


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"nodes": 3}, "nodes: must be at most 2 on this site, but is 3; ask for less or choose another site"),
        ({"tasks_per_node": 9}, "tasks_per_node: must be at most 8 on this site, but is 9"),
        ({"timeout_min": 61}, "timeout_min: must be at most 60 on this site, but is 61"),
        ({"mem_gb": 101}, "mem_gb: must be at most 100 on this site, but is 101"),
        ({"gpus_per_node": 9, "tasks_per_node": 8}, "gpus_per_node: must be at most 8 on this site, but is 9"),
        ({"gpus_per_node": 8}, "tasks_per_node: must equal gpus_per_node (8), one process per GPU, but is 1"),
    ],
)
def test_what_a_site_cannot_give_is_one_line(asked: dict[str, int], line: str) -> None:
    assert any(problem.startswith(line) for problem in Resources.model_validate(asked).problems(SITE, parallel=True))


def test_all_refusals_come_at_once() -> None:
    assert len(list(Resources(nodes=9, tasks_per_node=99, timeout_min=999).problems(SITE, parallel=True))) == 3


def test_a_stage_that_is_not_parallel_is_one_process() -> None:
    (line,) = Resources(nodes=2).problems(SITE, parallel=False)
    assert line == (
        "tasks_per_node: must be 1 on 1 node, for this stage starts its own workers, but there would be 2 processes; "
        "leave both out"
    )
