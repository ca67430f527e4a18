"""What people see before anything is queued: sizes, budget, deadline, and the options of each job."""

import dataclasses
import shlex
from datetime import UTC, date, datetime

import pytest

from jobs._planning import describe
from jobs._run import Run, load, stages
from slurm.site import Policies, Site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _planned(site: str) -> tuple[Run, Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # a machine without Slurm
        return load("demo", site)


@pytest.mark.parametrize("site", ["cluster-test", "b200-cloud", "university", "hospital"])
def test_each_stage_has_a_line_that_sbatch_understands(site: str) -> None:
    run, place = _planned(site)
    lines = [line for line in describe(run, place, site_name=site).splitlines() if line.startswith("sbatch ")]
    assert len(lines) == len(stages())
    for stage, line in zip(stages(), lines, strict=True):
        words = shlex.split(line)
        assert words[1] == f"--job-name=demo.{stage}"
        assert all(word.startswith("--") for word in words[1:])


def test_options_are_those_of_the_stages_purpose() -> None:
    run, place = _planned("university")
    lines = describe(run, place, site_name="university").splitlines()
    (training,) = [line for line in lines if "demo.pretrain" in line]
    assert "--partition=gpu --account=p0123 --qos=normal" in training
    assert "'--constraint=a100_80gb&infiniband'" in training, "what a shell would read must be quoted"
    assert "--no-requeue" in training
    (preparing,) = [line for line in lines if "demo.prepare" in line]
    assert "--partition=standard" in preparing
    assert "constraint" not in preparing


def test_nothing_is_said_of_sbatch_where_there_is_none() -> None:
    run, place = _planned("laptop")
    assert "sbatch" not in describe(run, place, site_name="laptop")


def test_gpu_hours_are_shown_beside_the_sites_budget() -> None:
    run, place = _planned("hospital")
    text = describe(run, place, site_name="hospital")
    assert "GPU-hours: at most 0 of the site's 200 for one run, where no stage goes on after its time limit" in text
    unlimited = place.model_copy(update={"policies": Policies()})
    assert "GPU-hours:" not in describe(run, unlimited, site_name="hospital")


@pytest.mark.parametrize(
    ("deadline", "verdict"),
    [
        (date(2026, 3, 1), "in time"),
        (date(2026, 2, 28), "too late; give stages more nodes or the run more days"),
    ],
)
def test_a_deadline_is_held_against_the_longest_times(deadline: date, verdict: str) -> None:
    run, place = _planned("laptop")
    text = describe(dataclasses.replace(run, deadline=deadline), place, site_name="laptop", now=NOW)
    assert text.endswith(
        f"deadline {deadline}: stages that take all of their time and never queue end on 2026-03-01, {verdict}"
    )


def test_without_a_deadline_none_is_shown() -> None:
    run, place = _planned("laptop")
    assert "deadline" not in describe(run, place, site_name="laptop")
