"""What a stage asks of a site: every way a site refuses, and the options of sbatch that come out."""

import re
from typing import Any

import pytest

from slurm.resources import Resources
from slurm.site import Options, Site

SITE = Site(
    description="two nodes",
    executor="slurm",
    nodes=2,
    tasks_per_node=8,
    gpus_per_node=8,
    cpus_per_node=16,
    mem_gb=100,
    timeout_min=60,
    partition="batch",
    purposes={"train": Options(partition="gpu", qos="long"), "cpu": Options(nodes=1, timeout_min=30)},
)
FULL = Resources(nodes=2, tasks_per_node=8, gpus_per_node=8, cpus_per_task=2, mem_gb=64, timeout_min=50)


def _site(**changes: Any) -> Site:
    return Site.model_validate({**SITE.model_dump(exclude_unset=True), **changes})


def _options(site: Site, size: Resources = FULL) -> dict[str, Any]:
    return size.sbatch_options(site, name="demo.pretrain", purpose="train")


def test_sizes_follow_from_nodes_and_tasks() -> None:
    asked = Resources(nodes=32, tasks_per_node=8, gpus_per_node=8, timeout_min=90)
    assert asked.world_size == 256
    assert asked.gpu_hours == 384


def test_a_site_that_can_give_it_refuses_nothing() -> None:
    assert list(FULL.problems(SITE, spread="ranks", purpose="train")) == []
    assert list(Resources(nodes=2, gpus_per_node=8).problems(SITE, spread="nodes", purpose="evaluate")) == []
    assert list(Resources(gpus_per_node=8).problems(SITE, spread="one", purpose="evaluate")) == []


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"nodes": 3}, "nodes: must be at most 2 on this site, but is 3; ask for less or choose another site"),
        ({"tasks_per_node": 9}, "tasks_per_node: must be at most 8 on this site, but is 9"),
        (
            {"tasks_per_node": 4, "cpus_per_task": 5},
            "cpus_per_task: must be at most 16 CPUs a node on this site, but is 20",
        ),
        ({"timeout_min": 61}, "timeout_min: must be at most 60 on this site, but is 61"),
        ({"timeout_min": 2}, "timeout_min: must be more than the site's signal_lead_s 120 s, when a job is told"),
        ({"mem_gb": 101}, "mem_gb: must be at most 100 on this site, but is 101"),
        ({"gpus_per_node": 9, "tasks_per_node": 8}, "gpus_per_node: must be at most 8 on this site, but is 9"),
        ({"gpus_per_node": 8}, "tasks_per_node: must equal gpus_per_node (8), one process per GPU, but is 1"),
    ],
)
def test_what_a_site_cannot_give_is_one_line(asked: dict[str, int], line: str) -> None:
    lines = Resources.model_validate(asked).problems(SITE, spread="ranks", purpose="train")
    assert [problem for problem in lines if problem.startswith(line)]


def test_all_refusals_come_at_once() -> None:
    asked = Resources(nodes=9, tasks_per_node=99, timeout_min=999)
    assert len(list(asked.problems(SITE, spread="ranks", purpose="train"))) == 4


def test_a_purpose_has_limits_of_its_own() -> None:
    asked = Resources(nodes=2, tasks_per_node=2, timeout_min=60)
    assert list(asked.problems(SITE, spread="ranks", purpose="train")) == []
    assert [line.split(",")[0] for line in asked.problems(SITE, spread="ranks", purpose="cpu")] == [
        "nodes: must be at most 1 on this site",
        "timeout_min: must be at most 30 on this site",
    ]


def test_a_stage_that_is_one_process_is_not_started_twice() -> None:
    (line,) = Resources(nodes=2).problems(SITE, spread="one", purpose="train")
    assert line == (
        "tasks_per_node: must be 1 on 1 node, for this stage starts its own workers, but there would be 2 processes; "
        "leave both out"
    )


def test_a_stage_with_a_process_on_each_node_has_no_more_of_them() -> None:
    (line,) = Resources(nodes=2, tasks_per_node=2).problems(SITE, spread="nodes", purpose="train")
    assert line == (
        "tasks_per_node: must be 1, for this stage starts its own workers on each node, but is 2; leave it out"
    )


def test_what_is_set_for_a_purpose_replaces_what_is_set_for_the_site() -> None:
    options = _options(SITE)
    assert (options["partition"], options["qos"]) == ("gpu", "long")
    assert FULL.sbatch_options(SITE, name="demo.export", purpose="evaluate")["partition"] == "batch"


def test_sizes_are_said_in_the_words_of_sbatch() -> None:
    options = _options(SITE)
    sizes = {name: options[name] for name in ("nodes", "ntasks-per-node", "cpus-per-task", "mem", "time", "signal")}
    assert sizes == {
        "nodes": 2,
        "ntasks-per-node": 8,
        "cpus-per-task": 2,
        "mem": "64000M",
        "time": 50,
        "signal": "USR2@120",
    }
    assert options["dependency"] == "singleton"
    assert options["open-mode"] == "append"


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({}, "gpus-per-node", "8"),
        ({"gpu_type": "h100"}, "gpus-per-node", "h100:8"),
        ({"gpu_request": "gres"}, "gres", "gpu:8"),
        ({"gpu_request": "gres", "gpu_type": "h100"}, "gres", "gpu:h100:8"),
        ({"gpu_request": "gpus-per-task"}, "gpus-per-task", "1"),
        ({"gpu_request": "gpus-per-task", "gpu_type": "h100"}, "gpus-per-task", "h100:1"),
        ({"gpu_request": "none"}, None, None),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants(changes: dict[str, str], name: str | None, value: str | None) -> None:
    options = _options(_site(**changes))
    found = {option: value for option, value in options.items() if re.match("gpu|gres", option)}
    assert found == ({name: value} if name else {})


def test_no_gpus_are_asked_for_where_none_are_needed() -> None:
    assert not [name for name in _options(SITE, Resources()) if re.match("gpu|gres|mem", name)]


def test_a_site_that_forbids_requeuing_is_never_asked_for_it() -> None:
    assert _options(SITE)["requeue"] is True
    chained = _options(_site(continuation="chain"))
    assert chained["no-requeue"] is True
    assert "requeue" not in chained


def test_further_options_of_the_site_come_last() -> None:
    assert list(_options(_site(sbatch={"nice": 5, "spread-job": True})).items())[-2:] == [
        ("nice", 5),
        ("spread-job", True),
    ]
