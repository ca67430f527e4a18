"""Scores items with Ray actors: each holds the model, takes a chunk at a time, and may die without loss.

A chunk is a fixed list of items, so its scores do not depend on how many workers there are or on who scored it. A
finished chunk is one line of an append-only journal; an evaluation that was killed begins after its last whole line.
"""

import collections
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import ray
from ray.exceptions import RayError, RayTaskError

from evaluation.cluster import places
from evaluation.items import Item
from parallelism.question import SCORER_VERSION, Question, Scored
from slurm.files import digest

CHUNK_ITEMS = 32
RETRIES = 3  # a chunk whose workers die more often is the reason, not bad luck
_LOOK_S = 60.0

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
        RuntimeError: workers died on one chunk or while loading more than RETRIES times, or find no CPU.
        ValueError: the model cannot be loaded, or a prompt or a choice cannot be scored.
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

    scorer: Any

    def load(self, model: str) -> None:
        from parallelism import scoring

        self.scorer = scoring.load(Path(model))

    def score(self, questions: list[Question]) -> list[Scored]:
        from parallelism import scoring

        return scoring.score(self.scorer, questions)


class _Crew:
    """The workers: each loads the model, then takes chunk after chunk. One that dies is replaced if there is room.

    Ray neither restarts a worker nor repeats its work itself: when a node is gone for good, it would wait without end
    for room for the workers it had there, and so would the chunks that they had begun.
    """

    def __init__(self, *, model: Path, workers: int) -> None:
        self._model = str(model.resolve())
        self._wanted, gpus = places(workers, resources=ray.cluster_resources())
        self._new: Any = ray.remote(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")(_Worker)
        self._begun: dict[Any, tuple[Any, Chunk | None]] = {}  # None: a worker that loads the model
        self._idle: list[Any] = []
        self._deaths: collections.Counter[Chunk | None] = collections.Counter()

    @property
    def scoring(self) -> bool:
        """Whether a chunk has been given to a worker."""
        return any(chunk for _, chunk in self._begun.values())

    def assign(self, waiting: list[Chunk]) -> None:
        """Gives idle workers the last of the waiting chunks, and starts the workers that are missing."""
        while self._idle and waiting:
            worker, chunk = self._idle.pop(), waiting.pop()
            self._begun[worker.score.remote(_questions(chunk))] = worker, chunk
        for _ in range(min(self._wanted - len(self._begun) - len(self._idle), len(waiting))):
            worker = self._new.remote()
            self._begun[worker.load.remote(self._model)] = worker, None

    def next(self) -> tuple[Chunk, Scores] | Chunk | None:
        """Waits for a worker: returns a chunk with its scores, or without if its worker died; None if it has loaded."""
        while not (ended := ray.wait(list(self._begun), timeout=_LOOK_S)[0]):
            places(1, resources=ray.cluster_resources())  # the last CPU may have gone with its node
        worker, chunk = self._begun.pop(ended[0])
        try:
            scored: list[Scored] = ray.get(ended[0])
        except RayTaskError as error:
            raise error.cause from error  # what went wrong, not where in Ray
        except RayError as error:
            ray.kill(worker)  # perhaps it lives and only cannot be reached
            self._count(chunk, error)
            return chunk
        self._idle.append(worker)
        if chunk is None:
            del self._deaths[None]
            return None
        return chunk, {item.id: each for item, each in zip(chunk.items, scored, strict=True)}

    def _count(self, chunk: Chunk | None, error: RayError) -> None:
        self._deaths[chunk] += 1
        most = RETRIES + 1 if chunk else (RETRIES + 1) * self._wanted  # one node's death is that of all its workers
        if self._deaths[chunk] < most:
            return
        task = f"score {len(chunk.items)} items" if chunk else "load the model"
        which = f"those from item {chunk.items[0].id} on" if chunk else "it"
        raise RuntimeError(
            f"a worker must {task}, but none of {most} lived to the end of {which}; give each more memory, or see what "
            f"Ray says: {error}"
        ) from error


def _run(waiting: list[Chunk], *, model: Path, workers: int) -> Iterator[tuple[Chunk, Scores]]:
    """Yields chunks as they are done, the last ones first; a worker gets its next chunk when it has returned one."""
    crew = _Crew(model=model, workers=workers)
    while waiting or crew.scoring:
        crew.assign(waiting)
        found = crew.next()
        if isinstance(found, Chunk):
            waiting.append(found)
        elif found is not None:
            yield found


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
