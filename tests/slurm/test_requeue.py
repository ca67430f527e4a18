"""Jobs on a real Slurm that are stopped, killed, preempted, cancelled or lose their node: what goes on, and what stops.

The work is a module that counts: it saves where it is when it is asked to stop, and every step that it does is a line
of a file, so that a step done twice or never, or two jobs at once, would show.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from slurm import queue, requeue, state
from slurm.events import read_events
from slurm.files import read_json, write_json
from slurm.resources import Resources
from slurm.site import Policies, Site
from slurm.submit import Submission, SubmitError, refusal, submit

pytestmark = pytest.mark.timeout(240)

COUNTER = """
import json, os, signal, sys, time
from pathlib import Path

attempt, rank = Path(sys.argv[1]), int(os.environ["RANK"])
root = attempt.parent
plan = json.loads((root / "plan.json").read_text())
asked = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda *_: asked.append(True))
(root / f"pid.{rank}").write_text(str(os.getpid()))
if rank:
    while not (root / "done").exists() and not asked:
        time.sleep(0.05)
    sys.exit(0)
saved = root / "saved"
step = int(saved.read_text()) if saved.exists() else 0
print("from step", step, "restart", os.environ.get("SLURM_RESTART_COUNT", "0"), flush=True)
while step < plan["steps"]:
    if asked:
        saved.write_text(str(step))
        print("asked to stop, saved at", step, flush=True)
        sys.exit(85)
    if step == plan.get("fails_at"):
        failure = {"type": "OSError", "message": "no more paper", "host": "n1", "permanent": plan.get("permanent")}
        (attempt / "failure.rank0.json").write_text(json.dumps(failure))
        print("it went wrong here", flush=True)
        sys.exit(1)
    time.sleep(0.1)
    step += 1
    saved.write_text(str(step))
    with (root / "trace").open("a") as file:
        file.write(f"{step} {os.environ['SLURM_JOB_ID']}\\n")
    (attempt / "progress.json").write_text(json.dumps({"done": step, "total": plan["steps"], "note": ""}))
(root / "done").touch()
"""


@dataclass
class Work:
    """One stage that counts to `steps`."""

    root: Path
    submission: Submission

    @property
    def attempt(self) -> Path:
        return self.submission.attempt

    def start(self) -> str:
        requeue.remember(self.attempt, str(submit(self.submission).job_id))
        return state.job_ids(self.attempt)[0]

    def steps(self) -> list[int]:
        path = self.root / "trace"
        return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []

    def until(self, step: int) -> None:
        """Waits until the work has done `step`."""
        deadline = time.monotonic() + 60
        while step not in self.steps():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def wait(self) -> state.Ended:
        return state.wait(self.attempt, poll_s=0.5, cache=self.root / "squeue.json", tell=lambda _: None)

    def log(self) -> str:
        return "".join(path.read_text() for path in self.attempt.glob("submitit/*.out"))

    def outcomes(self) -> list[str]:
        return [event.outcome for event in read_events(self.attempt) if event.event == "end"]


@pytest.fixture
def counting(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Work]:
    """Returns a function that makes a Work on the test cluster; settings are those of the site or of the plan."""
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "medscale_counter.py").write_text(COUNTER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(
        steps: int = 20, *, resources: Resources | None = None, plan: dict[str, Any] | None = None, **site: Any
    ) -> Work:
        write_json(tmp_path / "plan.json", {"steps": steps, **(plan or {})})
        place = Site(
            description="the test cluster",
            executor="slurm",
            nodes=4,
            tasks_per_node=8,
            gpus_per_node=8,
            mem_gb=16,
            timeout_min=60,
            partition="train",
            signal_lead_s=30,
            poll_s=0.5,
            policies=Policies(requeue_delay_s=2, max_tries=2),
            **site,
        )
        number = len(list(tmp_path.glob("attempt*"))) + 1
        submission = Submission(
            module="medscale_counter",
            attempt=tmp_path / f"attempt{number}",
            name=f"{tmp_path.name}.count",
            token=f"{tmp_path.name}-{number}",
            digest="0" * 64,
            done=tmp_path / "done",
            held=tmp_path / "held.json",
            results=tmp_path,
            resources=resources or Resources(timeout_min=5),
            site=place,
            purpose="train",
            spread="ranks",
        )
        return Work(root=tmp_path, submission=submission)

    return make


def test_a_job_tells_how_it_ended_and_leaves_nothing_in_the_queue(counting: Callable[..., Work]) -> None:
    work = counting(5, resources=Resources(nodes=2, tasks_per_node=2, timeout_min=5))
    job = work.start()
    assert work.wait().state == "finished"
    assert work.steps() == [1, 2, 3, 4, 5]
    (begin, end) = read_events(work.attempt)
    assert (len(begin.nodes), begin.tasks, end.outcome, end.step) == (2, 4, "finished", 5)
    found = queue.ending(job)
    assert found is not None
    assert found.state in ("COMPLETED", "COMPLETING", "RUNNING")


@pytest.mark.parametrize("continuation", ["requeue", "chain"])
def test_a_job_near_its_time_limit_saves_and_goes_on(counting: Callable[..., Work], continuation: str) -> None:
    work = counting(continuation=continuation)
    job = work.start()
    work.until(5)
    queue.ask("scancel", "--signal=USR2", job)  # what Slurm sends the ranks before the limit
    assert work.wait().state == "finished"
    assert work.steps() == list(range(1, 21)), "no step is done twice, none is left out"
    assert work.outcomes() == ["stopped", "finished"]
    assert len(state.job_ids(work.attempt)) == (1 if continuation == "requeue" else 3)
    _nothing_queued(work)


def test_a_killed_rank_costs_a_retry_and_the_right_node_is_named(counting: Callable[..., Work]) -> None:
    work = counting(resources=Resources(nodes=2, tasks_per_node=1, timeout_min=5))
    work.start()
    work.until(5)
    _kill_rank(work, 1)
    assert work.wait().state == "finished"
    assert work.outcomes() == ["crashed", "finished"]
    crash = next(event for event in read_events(work.attempt) if event.outcome == "crashed")
    (begin, *_) = read_events(work.attempt)
    assert crash.node == begin.nodes[1]
    assert f"a process on {crash.node} ended without a word" in crash.reason


def test_a_job_that_fails_the_same_way_stops_with_the_reason_and_the_end_of_its_log(
    counting: Callable[..., Work],
) -> None:
    work = counting(plan={"fails_at": 3})
    work.start()
    ended = work.wait()
    assert ended.state == "failed"
    assert ended.reason == "OSError: no more paper; failed 2 times without getting beyond step 3"
    assert any("it went wrong here" in line for line in ended.tail)
    assert work.outcomes() == ["crashed", "crashed", "crashed"], "the first got further than nothing"
    _nothing_queued(work)


def test_what_would_fail_again_is_not_tried_again(counting: Callable[..., Work]) -> None:
    work = counting(plan={"fails_at": 0, "permanent": True})
    work.start()
    assert (work.wait().reason, work.outcomes()) == ("OSError: no more paper", ["crashed"])


@pytest.mark.parametrize("continuation", ["requeue", "chain"])
def test_scancel_is_never_undone(counting: Callable[..., Work], continuation: str) -> None:
    work = counting(100, continuation=continuation)
    job = work.start()
    work.until(5)
    queue.cancel(job)
    ended = work.wait()
    assert ended.state == "cancelled"
    assert read_json(work.root / "held.json")["by"].startswith("scancel")
    _nothing_queued(work)
    again = replace(work.submission, attempt=work.root / "attempt2", token="again")
    other = Work(root=work.root, submission=again)
    other.start()
    assert other.wait().state == "cancelled", "a stage that is held does not start"
    done = len(work.steps())
    time.sleep(1)
    assert len(work.steps()) == done


def test_a_job_cancelled_while_it_waits_is_held(counting: Callable[..., Work], cluster: Any) -> None:
    cluster.run("sbatch", "-p", "train", "-J", "blocker", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=sleep 60")
    work = counting()
    queue.cancel(work.start())
    assert work.wait().state == "cancelled"
    cluster.run("scancel", "--name=blocker")
    assert "was cancelled by scancel" in read_json(work.root / "held.json")["reason"]


def test_a_preempted_job_saves_and_comes_back(counting: Callable[..., Work], cluster: Any) -> None:
    work = counting(30, exclude="n[1-3]")
    work.start()
    work.until(5)
    cluster.run("sbatch", "-p", "urgent", "-w", "n4", "--exclusive", "-t", "1", "-o", "/dev/null", "--wrap=sleep 2")
    assert work.wait().state == "finished"
    assert work.steps() == list(range(1, 31))
    assert work.outcomes() == ["stopped", "finished"]


def test_a_job_whose_node_loses_its_power_goes_on_elsewhere(counting: Callable[..., Work], cluster: Any) -> None:
    if not cluster.own_machines:
        pytest.skip("needs nodes that are machines of their own")
    work = counting(30)
    work.start()
    work.until(5)
    (begin,) = read_events(work.attempt)
    number = int(begin.nodes[0][1:])
    try:
        cluster.power_cut(number)
        assert work.wait().state == "finished"
    finally:
        cluster.start_node(number)
    after = [event for event in read_events(work.attempt) if event.event == "begin"][1]
    assert after.nodes != begin.nodes
    assert work.steps() == list(range(1, 31))


def test_a_job_is_found_again_when_its_submitter_died_before_it_wrote_down_the_id(
    counting: Callable[..., Work],
) -> None:
    work = counting(30)
    job = work.start()
    (work.attempt / "job.json").unlink()
    assert state.attach(work.attempt, poll_s=0.5, tell=lambda _: None)
    assert state.job_ids(work.attempt) == [job]
    assert work.wait().state == "finished"


def test_an_attempt_that_was_never_submitted_is_not_waited_for(counting: Callable[..., Work]) -> None:
    work = counting()
    work.attempt.mkdir()
    write_json(work.attempt / "spec.json", work.submission.spec())
    assert not state.attach(work.attempt, poll_s=0.2, tell=lambda _: None)


def test_of_two_submissions_of_one_stage_only_one_works(counting: Callable[..., Work]) -> None:
    work = counting(10)
    other = Work(root=work.root, submission=replace(work.submission, attempt=work.root / "other", token="other"))
    work.start()
    other.start()
    assert (work.wait().state, other.wait().state) == ("finished", "finished")
    assert work.steps() == list(range(1, 11))
    assert other.outcomes() == []


def test_what_the_cluster_cannot_give_is_refused_at_once(counting: Callable[..., Work]) -> None:
    work = counting(resources=Resources(nodes=4, timeout_min=5), constraint="no-such-feature")
    with pytest.raises(SubmitError, match="nvalid feature"):
        work.start()
    assert "nvalid feature" in (refusal(work.submission) or "")
    assert refusal(counting().submission) is None


def test_a_planted_pickle_is_not_run(counting: Callable[..., Work]) -> None:
    work = counting(3)
    job = work.start()
    bomb = b"cos\nsystem\n(S'touch " + str(work.root / "planted").encode() + b"'\ntR."
    for name in (f"{job}_submitted.pkl", f"{job}_0_result.pkl"):
        (work.attempt / "submitit" / name).write_bytes(bomb)
    assert work.wait().state == "finished"
    assert not (work.root / "planted").exists()


# The last test of this file: nodes take their time to come back to a controller that was killed.
def test_a_controller_that_is_away_changes_nothing(counting: Callable[..., Work], cluster: Any) -> None:
    work = counting(30)
    work.start()
    work.until(3)
    told: list[bool] = []
    cluster.kill_controller()
    try:
        assert queue.jobs() is None
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            told.append(state.verdict(work.attempt) is None)
            time.sleep(0.2)
    finally:
        cluster.start_controller()
    assert work.wait().state == "finished"
    assert work.steps() == list(range(1, 31))


def _nothing_queued(work: Work) -> None:
    deadline = time.monotonic() + 15
    while any(job.live for job in state.find(work.attempt, queue.jobs() or [])):
        assert time.monotonic() < deadline, "a job was left in the queue"
        time.sleep(0.3)


def _kill_rank(work: Work, rank: int) -> None:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "slurm.rank" in words and str(work.attempt) in words and process.environ()["SLURM_PROCID"] == str(rank):
            process.send_signal(signal.SIGKILL)
            return
    pytest.fail(f"rank {rank} must run, but no such process was found")
