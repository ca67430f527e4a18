"""The exact batch script of each shipped Slurm site, kept in tests/slurm/golden: a change to it is a readable diff."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs._run import ROOT, config_type, load_site
from slurm.resources import Resources
from slurm.site import Site
from slurm.submit import Submission, flags, submit

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

GOLDEN = Path(__file__).parent / "golden"
SITES = sorted(path.stem for path in (ROOT / "slurm/sites").glob("*.yaml") if load_site(path.stem).executor == "slurm")
STAGES = ("pretrain", "evaluate")
SBATCH = "#!/bin/sh\necho Submitted batch job 12\n"


def _largest(site: Site, stage: str) -> Resources:
    """Returns the largest job of a stage at a site."""
    config = config_type(stage)
    options = site.options(config.purpose)
    tasks = site.gpus_per_node if config.spread == "ranks" else 1
    return Resources(
        nodes=options.nodes or 1,
        tasks_per_node=tasks,
        gpus_per_node=site.gpus_per_node,
        cpus_per_task=(site.cpus_per_node or 1) // tasks,
        timeout_min=options.timeout_min or 1,
    )


def _script(site: Site, stage: str, folder: Path) -> str:
    """Submits to an sbatch that only says a number, and returns the script without the paths of this machine."""
    config, attempt = config_type(stage), folder / "attempt"
    submit(
        Submission(
            module="jobs._task",
            attempt=attempt,
            name=f"run.{stage}",
            token="0123456789ab",
            digest="f" * 64,
            done=folder / "record.json",
            held=folder / "held.json",
            results=folder,
            resources=_largest(site, stage),
            site=site,
            purpose=config.purpose,
            spread=config.spread,
        )
    )
    text = (attempt / "submitit/12_submission.sh").read_text()
    for path, name in ((attempt, "$ATTEMPT"), (sys.executable, "$PYTHON"), (ROOT, "$ROOT")):
        text = text.replace(str(path), name)
    return text


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("sbatch", "srun"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(SBATCH)
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("site", SITES)
def test_the_batch_script_is_the_one_that_was_read(site: str, stage: str, no_cluster: Path) -> None:
    path, text = GOLDEN / f"{site}-{stage}.sbatch", _script(load_site(site), stage, no_cluster)
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, (
        "read the difference, then run `UPDATE_GOLDEN=1 .venv/bin/pytest tests/slurm/test_golden.py`"
    )


def test_no_path_of_a_machine_is_in_a_golden_script() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {f"{site}-{stage}" for site in SITES for stage in STAGES}
    for path in GOLDEN.iterdir():
        assert not [word for word in (str(ROOT), "/tmp", str(Path.home())) if word in path.read_text()]  # noqa: S108


def test_the_options_that_planning_shows_are_those_of_the_script(no_cluster: Path) -> None:
    site = load_site("university")
    shown = _largest(site, "pretrain").sbatch_options(site, name="run.pretrain", purpose="train")
    given = [line for line in _script(site, "pretrain", no_cluster).splitlines() if line.startswith("#SBATCH --")]
    names = {line.removeprefix("#SBATCH --").partition("=")[0] for line in given}
    assert names == {*shown, "comment", "output"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gpu_request": "gres"},
        {"gpu_request": "gpus-per-task"},
        {"gpu_request": "none", "exclusive": True},
        {"continuation": "chain", "sbatch": {"nice": 5, "spread-job": True}},
    ],
    ids=["gpus-per-node", "gres", "gpus-per-task", "whole nodes", "chain"],
)
@pytest.mark.parametrize("stage", STAGES)
def test_slurm_itself_takes_what_a_site_can_say(stage: str, settings: dict[str, Any], cluster: "Cluster") -> None:
    site = load_site("cluster-test").model_copy(update=settings)
    purpose = config_type(stage).purpose
    options = _largest(site, stage).sbatch_options(site, name=f"run.{stage}", purpose=purpose, comment="a b=c")
    told = cluster.run("sbatch", "--test-only", *flags(options), "--wrap=true")
    assert "on nodes n[1-4] in partition train" in told.stderr
