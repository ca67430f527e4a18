"""Scoring with Ray: the same bits from one worker and from two, from a resumed journal, and when workers are killed."""

import collections
import contextlib
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray

from evaluation import score
from evaluation.cluster import cluster, gpus_per_worker, places
from evaluation.items import Item, make_item

ITEMS = 300
CHUNKS = 10


def items(count: int) -> list[Item]:
    generator = random.Random(4)
    return [
        make_item(
            group=str(index),
            stream="molecule",
            prompt=f"{index}" + "".join(generator.choices("CNO=()", k=generator.randint(3, 60))),
            choices=(" low", " medium", " high"),
            answer=index % 3,
            guess=None,
        )
        for index in range(count)
    ]


def worker_processes() -> list[int]:
    """The living workers of this process's own cluster."""
    processes = psutil.Process().children(recursive=True)
    alive = [each for each in processes if each.status() != psutil.STATUS_ZOMBIE]
    return [each.pid for each in alive if each.name().startswith("ray::_Worker")]


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[None]:
    with cluster(workers=2):
        yield


@pytest.fixture(scope="module")
def undisturbed_journal(running_cluster: None, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of an evaluation by two workers that nothing befell."""
    journal = tmp_path_factory.mktemp("undisturbed") / "journal.jsonl"
    run(items(ITEMS), model_folder, journal, workers=2)
    return journal


@pytest.fixture(scope="module")
def undisturbed(undisturbed_journal: Path, model_folder: Path) -> score.Scores:
    return run(items(ITEMS), model_folder, undisturbed_journal, workers=2)


def run(
    questions: list[Item],
    model: Path,
    journal: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> score.Scores:
    return score.score_chunks(
        score.make_chunks(questions, model_digest="m"),
        model=model,
        journal=journal,
        workers=workers,
        cluster=contextlib.nullcontext(),
        progress=progress,
    )


def times_scored(journal: Path) -> collections.Counter[str]:
    """Counts the items of all whole lines; a torn one ends early."""
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}}")]
    return collections.Counter(item for line in lines for item in line["scores"])


def test_chunks_hold_each_item_once_and_do_not_depend_on_the_order() -> None:
    questions = items(100)
    chunks = score.make_chunks(questions, model_digest="m")
    assert [len(chunk.items) for chunk in chunks] == [32, 32, 32, 4]
    assert collections.Counter(item for chunk in chunks for item in chunk.items) == collections.Counter(questions)
    assert score.make_chunks(questions[::-1], model_digest="m") == chunks
    assert not {chunk.id for chunk in chunks} & {chunk.id for chunk in score.make_chunks(questions, model_digest="n")}


@pytest.mark.usefixtures("running_cluster")
def test_one_worker_and_two_give_the_same_bits(model_folder: Path, tmp_path: Path, undisturbed: score.Scores) -> None:
    assert run(items(ITEMS), model_folder, tmp_path / "alone.jsonl", workers=1) == undisturbed


@pytest.mark.usefixtures("running_cluster")
def test_after_a_kill_of_the_evaluation_and_of_workers_each_item_is_scored_once(
    model_folder: Path, tmp_path: Path, undisturbed_journal: Path, undisturbed: score.Scores
) -> None:
    """The journal is torn in the middle of a line; then two workers die while the rest is scored."""
    whole = undisturbed_journal.read_text()
    journal = tmp_path / "torn.jsonl"
    journal.write_text(whole[: len(whole) // 3])
    kept = journal.read_text().count("\n")
    told: list[int] = []

    def kill_one(done: int, total: int) -> None:
        told.append(done)
        if len(told) <= 2:
            os.kill(worker_processes()[0], signal.SIGKILL)

    assert run(items(ITEMS), model_folder, journal, workers=2, progress=kill_one) == undisturbed
    assert kept > 0
    assert len(told) == CHUNKS - kept, "a chunk that was in the journal was scored again"
    assert told[-1] == ITEMS
    assert times_scored(journal) == collections.Counter(item.id for item in items(ITEMS))


@pytest.mark.parametrize(
    ("gpus", "workers", "share"), [(2, 3, 0.5), (3, 4, 0.5), (3, 8, 1 / 3), (8, 8, 1.0), (8, 2, 1.0), (0, 2, 0.0)]
)
def test_whole_workers_fit_on_a_gpu(gpus: int, workers: int, share: float) -> None:
    assert gpus_per_worker(workers, gpus=gpus) == share
    assert not share or gpus * int(1 / share) >= workers


def test_no_more_workers_than_the_cluster_has_cpus(caplog: pytest.LogCaptureFixture) -> None:
    assert places(2, resources={"CPU": 2.0}) == (2, 0.0)
    assert not caplog.messages
    assert places(5, resources={"CPU": 2.0, "GPU": 1.0}) == (2, 0.5)
    assert caplog.messages == ["5 workers were asked for, but the cluster has 2 CPUs: so many score"]
    with pytest.raises(
        RuntimeError, match="must have a CPU for a worker, but has none; start its nodes with --num-cpus"
    ):
        places(1, resources={"GPU": 1.0})


def test_a_new_way_of_scoring_takes_nothing_from_an_old_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    (old,) = score.make_chunks(items(1), model_digest="m")
    monkeypatch.setattr("evaluation.score.SCORER_VERSION", -1)
    (new,) = score.make_chunks(items(1), model_digest="m")
    assert new.items == old.items
    assert new.id != old.id


def test_a_finished_journal_needs_no_ray_and_no_model(tmp_path: Path) -> None:
    (question,) = items(1)
    (chunk,) = score.make_chunks([question], model_digest="m")
    scored = {"logprobs": [-1.0, -2.0, -3.0], "truncated": False}
    journal = tmp_path / "journal.jsonl"
    journal.write_text(json.dumps({"chunk": chunk.id, "scores": {question.id: scored}}) + "\n")
    found = run([question], tmp_path / "absent", journal, workers=1)
    assert found[question.id].logprobs == (-1.0, -2.0, -3.0)


@pytest.mark.usefixtures("running_cluster")
def test_a_model_that_no_worker_can_load_is_reported_with_its_reason(tmp_path: Path) -> None:
    (question,) = items(1)
    with pytest.raises(FileNotFoundError, match=r"must be an exported model, but holds no config.json; run the export"):
        run([question], tmp_path, tmp_path / "journal.jsonl", workers=1)


@pytest.mark.usefixtures("running_cluster")
def test_an_item_that_cannot_be_scored_is_reported_as_such(model_folder: Path, tmp_path: Path) -> None:
    question = make_item(group="g", stream="s", prompt="p", choices=("y" * 300, "n"), answer=0, guess=None)
    with pytest.raises(ValueError, match=r"^a choice must fit the model's context of 256 tokens, but one has 300"):
        run([question], model_folder, tmp_path / "journal.jsonl", workers=1)


def test_leaves_no_process_and_no_folder_behind() -> None:
    if ray.is_initialized():
        ray.shutdown()
    earlier = {each.pid for each in psutil.Process().children(recursive=True)}
    with cluster(workers=1):
        (keeper,) = (each for each in psutil.Process().children() if each.pid not in earlier)
        folder = Path(keeper.cmdline()[4])
        assert folder.is_dir()
    assert not folder.exists()
    assert not [each.name() for each in psutil.Process().children(recursive=True) if each.pid not in earlier]
