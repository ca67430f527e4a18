"""Jobs through submitit's local executor: real processes, their environment, logs and privacy."""

import json
import time
from pathlib import Path

import pytest

from slurm.resources import Resources
from slurm.site import Site
from slurm.submit import Submission, log_paths, submit

SITE = Site(
    description="here",
    executor="local",
    nodes=1,
    tasks_per_node=4,
    mem_gb=1,
    timeout_min=5,
    environment={"GLOO_SOCKET_IFNAME": "lo"},
)
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that writes down what its process was given."""
    (tmp_path / "medscale_probe.py").write_text(
        "import json, os, sys\n"
        "from pathlib import Path\n"
        f"seen = {{name: os.environ[name] for name in {NAMES}}}\n"
        "print('rank', seen['RANK'])\n"
        "Path(sys.argv[1], seen['RANK'] + '.json').write_text(json.dumps(seen))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "medscale_probe"


def test_every_process_knows_its_rank_and_the_meeting_point(module: str, tmp_path: Path) -> None:
    attempt = tmp_path / "attempt"
    job = submit(
        Submission(
            module=module,
            attempt=attempt,
            name="t.probe",
            token="t",
            digest="d" * 64,
            done=tmp_path / "done",
            held=tmp_path / "held",
            results=tmp_path,
            resources=Resources(tasks_per_node=3),
            site=SITE,
            purpose="cpu",
            spread="ranks",
        )
    )
    deadline = time.monotonic() + 60
    while not job.done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    seen = [json.loads((attempt / f"{rank}.json").read_text()) for rank in range(3)]
    assert [one["RANK"] for one in seen] == ["0", "1", "2"]
    assert {one["WORLD_SIZE"] for one in seen} == {"3"}
    assert {one["GLOO_SOCKET_IFNAME"] for one in seen} == {"lo"}
    assert len({(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in seen}) == 1
    assert "rank 0" in log_paths(attempt)[0].read_text()
    assert attempt.stat().st_mode & 0o077 == 0, "a folder that holds a pickle must be private"
