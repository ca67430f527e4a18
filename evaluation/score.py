"""Scores items with Ray actors: each holds the model, takes a chunk at a time, and may die without loss.

A chunk is a fixed list of items, so its scores do not depend on how many workers there are or on who scored it. A
finished chunk is one line of an append-only journal; an evaluation that was killed begins after its last whole line.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import ray
from ray.exceptions import RayActorError, RayTaskError

from evaluation.cluster import places
from evaluation.items import Item
from parallelism.question import SCORER_VERSION, Question, Scored
from slurm.files import digest

CHUNK_ITEMS = 32
RETRIES = 3  # a chunk whose workers die more often is the reason, not bad luck

Scores = Mapping[str, Scored]
"""Scores by item id."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Items that are scored together; `id` is a digest of scorer, model and items, and so names their scores."""

    id: str
    items: tuple[Item, ...]

    @property
    def characters(self) -> int:
        """Returns the length of all prompts and choices: how long scoring takes, roughly."""
        return sum(map(_characters, self.items))


def make_chunks(items: Sequence[Item], *, model_digest: str) -> list[Chunk]:
    """Cuts items into chunks of like length, so that there is little padding."""
    ordered = sorted(items, key=lambda item: (-_characters(item), item.id))
    parts = [tuple(ordered[start : start + CHUNK_ITEMS]) for start in range(0, len(ordered), CHUNK_ITEMS)]
    return [
        Chunk(id=digest([SCORER_VERSION, model_digest, *(item.id for item in part)])[:16], items=part) for part in parts
    ]


def score_chunks(
    chunks: Sequence[Chunk],
    *,
    model: Path,
    journal: Path,
    workers: int,
    cluster: AbstractContextManager[None],
    progress: Callable[[int, int], None],
) -> Scores:
    """Scores every chunk that the journal does not hold yet and returns the scores of all items.

    Args:
        chunks: the longest are scored first, so that no worker is alone with a long one at the end.
        model: an exported model's folder; every node must see it at this path.
        journal: read first, then appended to, one line per chunk.
        workers: actors, one CPU each; fewer when the cluster has fewer CPUs.
        cluster: entered only when something is left to score; Ray runs within it.
        progress: told (items done, items in all) after each chunk.

    Raises:
        RuntimeError: workers died on one chunk more than RETRIES times, could not load the model, or find no CPU.
        ValueError: a prompt or a choice cannot be scored.
    """
    known = _read(journal)
    scores = {item: each for chunk in chunks for item, each in known.get(chunk.id, {}).items()}
    missing = sorted((chunk for chunk in chunks if chunk.id not in known), key=lambda chunk: chunk.characters)
    total = sum(len(chunk.items) for chunk in chunks)
    if missing:
        with cluster, _appended(journal) as file:
            for chunk, new in _run(missing, model=model, workers=min(workers, len(missing))):
                file.write(_line(chunk, new))
                file.flush()
                scores |= new
                progress(len(scores), total)
    return scores


class _Worker:
    """Holds one copy of the model in a process of its own."""

    def __init__(self, model: str) -> None:
        from parallelism import scoring

        self.scorer = scoring.load(Path(model))

    def score(self, questions: list[Question]) -> list[Scored]:
        from parallelism import scoring

        return scoring.score(self.scorer, questions)


def _run(waiting: list[Chunk], *, model: Path, workers: int) -> Iterator[tuple[Chunk, Scores]]:
    """Yields chunks as they are done, the last ones first; a worker gets its next chunk when it has returned one."""
    workers, gpus = places(workers, resources=ray.cluster_resources())
    actor: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=RETRIES)(_Worker)
    idle = [actor.remote(str(model.resolve())) for _ in range(workers)]
    running: dict[Any, tuple[Any, Chunk]] = {}
    while waiting or running:
        while idle and waiting:
            worker, chunk = idle.pop(), waiting.pop()
            running[worker.score.remote(_questions(chunk))] = worker, chunk
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        worker, chunk = running.pop(done)
        yield chunk, _result(done, chunk)
        idle.append(worker)


def _result(done: Any, chunk: Chunk) -> Scores:
    try:
        scored: list[Scored] = ray.get(done)
    except RayTaskError as error:
        raise error.cause from error  # what went wrong, not where in Ray
    except RayActorError as error:
        raise RuntimeError(
            f"a worker must load the model and score {len(chunk.items)} items, but none of {RETRIES + 1} lived to the "
            f"end of those from item {chunk.items[0].id} on; give each more memory, or see what Ray says: {error}"
        ) from error
    return {item.id: each for item, each in zip(chunk.items, scored, strict=True)}


def _characters(item: Item) -> int:
    return len(item.prompt) + sum(map(len, item.choices))


def _questions(chunk: Chunk) -> list[Question]:
    return [Question(prompt=item.prompt, choices=item.choices) for item in chunk.items]


def _line(chunk: Chunk, scores: Scores) -> str:
    return json.dumps({"chunk": chunk.id, "scores": {item: asdict(each) for item, each in scores.items()}}) + "\n"


@contextmanager
def _appended(journal: Path) -> Iterator[TextIO]:
    """Opens the journal for whole lines: a torn last line gets its end first, so that it spoils no other."""
    torn = journal.exists() and not journal.read_bytes().endswith(b"\n")
    with journal.open("a") as file:
        if torn:
            file.write("\n")
        yield file


def _read(journal: Path) -> dict[str, Scores]:
    """Returns the scores of every whole line; a line torn by a kill is not one, and its chunk is scored again."""
    found: dict[str, Scores] = {}
    for line in journal.read_text().splitlines() if journal.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry["chunk"]] = {
            item: Scored(logprobs=tuple(each["logprobs"]), truncated=each["truncated"])
            for item, each in entry["scores"].items()
        }
    return found
