"""The true shape: a pretraining of 256 ranks as planned, submitted to a cluster of 32 nodes with 8 pretended GPUs each.

The ranks are real processes, each named and placed by Slurm, after every node was checked. Each writes down where it
stands; 256 that train would need 256 GPUs.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs._planning import describe
from jobs._run import ROOT, load
from slurm import queue, requeue, state
from slurm.events import read_events
from slurm.files import read_json
from slurm.submit import Submission, submit

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES")
WHERE = f"""
import json, os, socket, sys
from pathlib import Path

seen = {{name: os.environ[name] for name in {NAMES}}} | {{"host": socket.gethostname()}}
Path(sys.argv[1], "seen", f"{{seen['RANK']}}.json").write_text(json.dumps(seen))
if seen["RANK"] == "0":
    Path(sys.argv[1]).with_name("done").touch()
"""


@pytest.mark.timeout(300)
def test_256_ranks_start_where_the_plan_says(
    start_cluster: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = start_cluster(tmp_path / "cluster", nodes=32, gpus=8)
    try:
        for name, value in {**cluster.env, "PYTHONPATH": str(tmp_path), "MEDSCALE_DATA": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        submission, plan = _planned(tmp_path)
        requeue.remember(submission.attempt, str(submit(submission).job_id))
        ended = state.wait(submission.attempt, poll_s=1, cache=tmp_path / "squeue.json", tell=lambda _: None)
        assert ended.state == "finished", f"{ended.reason}: {ended.tail}"
        _require_places(submission, plan)
    finally:
        cluster.stop()


def _planned(folder: Path) -> tuple[Submission, str]:
    """Returns dense_32b's pretraining on a site like the test cluster, with 32 nodes, and what a plan shows of it."""
    site_values = yaml.safe_load((ROOT / "slurm/sites/cluster-test.yaml").read_text()) | {"nodes": 32}
    run_values = yaml.safe_load((ROOT / "workflows/runs/dense_32b.yaml").read_text())
    for name, section in run_values.items():
        if isinstance(section, dict) and "resources" in section:
            section["resources"] = {**section["resources"], "timeout_min": 10, "cpus_per_task": 1}
            section["resources"].pop("mem_gb", None)
            if name == "evaluate":
                section["resources"]["gpus_per_node"] = 8
    for file in ("molecules.smi", "proteins.fasta", "cells.h5ad", "papers.jsonl"):
        (folder / file).touch()
    (folder / "big.yaml").write_text(yaml.safe_dump(run_values))
    (folder / "thirty-two.yaml").write_text(yaml.safe_dump(site_values))
    run, site = load(str(folder / "big.yaml"), str(folder / "thirty-two.yaml"))
    (folder / "medscale_where.py").write_text(WHERE)
    attempt = folder / "attempt"
    (attempt / "seen").mkdir(parents=True)
    section = run.sections["pretrain"]
    submission = Submission(
        module="medscale_where",
        attempt=attempt,
        name="big.pretrain",
        token="big",
        digest="0" * 64,
        done=folder / "done",
        held=folder / "held.json",
        results=folder,
        resources=section.resources,
        site=site,
        purpose=section.purpose,
        spread=section.spread,
    )
    return submission, describe(run, site, site_name="thirty-two")


def _require_places(submission: Submission, plan: str) -> None:
    (line,) = [line for line in plan.splitlines() if "--job-name=big.pretrain" in line]
    script = next(submission.attempt.glob("submitit/*_submission.sh")).read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    planned = dict(re.findall(r"--([\w-]+)(?:=(\S+))?", line))
    assert planned["nodes"] == asked["nodes"] == "32"
    assert {name: asked[name] for name in planned} == planned, "what is submitted is what the plan shows"
    seen = [read_json(path) for path in (submission.attempt / "seen").iterdir()]
    assert sorted(int(one["RANK"]) for one in seen) == list(range(256))
    assert {one["WORLD_SIZE"] for one in seen} == {"256"}
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in seen} == {("n1", seen[0]["MASTER_PORT"])}
    by_host = {host: sorted(int(one["LOCAL_RANK"]) for one in seen if one["host"] == host) for host in _hosts(seen)}
    assert by_host == {f"n{number}": list(range(8)) for number in range(1, 33)}
    assert all(one["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7" for one in seen)
    (begin, *_) = read_events(submission.attempt)
    assert (begin.gpus, begin.tasks, len(begin.nodes)) == (256, 256, 32)
    assert len(list((submission.attempt / "preflight").glob("n*.json"))) == 32
    accounted = queue.ask("sacct", "--jobs", begin.job_id, "-X", "-n", "-P", "--format=AllocTRES") or ""
    assert "gres/gpu=256" in accounted


def _hosts(seen: list[dict[str, Any]]) -> set[str]:
    return {one["host"] for one in seen}
