"""Cell matrices of any format, read in a process of their own, because a damaged file can kill its reader."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from corpus.modality import SourceError

_VALUES_PER_BLOCK = 1 << 20
_ROWS_PER_BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to read of a file.

    Attributes:
        matrix: auto, X, raw or a layer.
        genes: a column of var with the genes' names.
        columns: those wanted of obs.
        features: feature types to keep, in a file that has several.
        counts: whether a cell with fractions is refused.
        same_names: whether cells may share a name.
        cellxgene: whether the file must follow the CELLxGENE schema.
        rows: first row and the one behind the last; all when not given.
        memory_gb: what the reading process may hold.
    """

    path: Path
    matrix: str = "auto"
    genes: str | None = None
    columns: tuple[str, ...] = ()
    features: tuple[str, ...] = ("Gene Expression",)
    counts: bool = False
    same_names: bool = False
    cellxgene: bool = False
    rows: tuple[int, int] | None = None
    memory_gb: float = 16.0


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What was found: a sentence for people, the genes in alphabetical order, and how many rows the file has."""

    told: str
    genes: list[str]
    rows: int
    by_rows: bool


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows, in file order.

    Attributes:
        start: number of the first row.
        names: of the cells.
        columns: of obs, as they were asked for; a list as long as names each.
        indptr: (rows + 1,) int64.
        genes: (values,) int32, positions in Opened.genes, ascending within a row.
        values: (values,) float32 or float64, never 0.
        problems: for each row the code of what is wrong with it, or None.
    """

    start: int
    names: list[str]
    columns: dict[str, list[Any]]
    indptr: Any
    genes: Any
    values: Any
    problems: list[str | None]


def read_cells(request: Request, *, timeout_s: float, apart: bool = True) -> Iterator[Opened | Block]:
    """Yields what was found, then the cells in blocks.

    Args:
        request: what to read.
        timeout_s: seconds that the reader may be silent.
        apart: whether a process of its own reads; without it, this one must be one that may die, and is watched.

    Raises:
        SourceError: the file is damaged, kills its reader, keeps it busy for `timeout_s`, needs more than `memory_gb`,
            or lacks what is wanted.
    """
    if not apart:
        yield from _explained(request)
        return
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = _start(request, sender)
    sender.close()
    try:
        yield from _receive(receiver, timeout_s)
    except (EOFError, OSError) as error:  # between two messages, or within one
        raise _explain_end(child.wait(timeout=10)) from error
    finally:
        receiver.close()
        child.kill()
        child.wait()


def serve() -> None:
    """Runs in the child: sends what was found, blocks of cells, then None; or the code and reason of a SourceError."""
    request = _request(sys.argv[2])
    _limit(request.memory_gb)
    with Connection(int(sys.argv[1])) as sender, suppress(BrokenPipeError):  # broken: the parent has enough cells
        try:
            for message in _explained(request):
                sender.send(message)
            sender.send(None)
        except SourceError as error:
            sender.send((error.code, error.reason))
        except MemoryError:
            told = f"must be read within memory_gb = {request.memory_gb:g}, but needs more; raise it or split the file"
            sender.send(("too_large", told))


def _explained(request: Request) -> Iterator[Opened | Block]:
    """Yields the messages; whatever a parser says about damage becomes a SourceError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files make anndata warn about where it moves their parts
            yield from _messages(request)
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        told = f"must be a cell matrix, but {type(error).__name__}: {str(error)[:200]}; fetch it again"
        raise SourceError("damaged", told) from error


def _request(written: str) -> Request:
    found = json.loads(written)
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Request(**{**found, **lists, "path": Path(found["path"])})


def _limit(memory_gb: float) -> None:
    """Limits this process: what a file claims to hold may be more than any machine has."""
    wanted, (_, most) = int(memory_gb * 1e9), resource.getrlimit(resource.RLIMIT_DATA)
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold whatever was read


def _start(request: Request, sender: Connection) -> subprocess.Popen[bytes]:
    """Starts a fresh interpreter: multiprocessing would run the main module again, whatever that is."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    code = "from corpus.formats.cellmatrix import serve; serve()"
    written = json.dumps({**asdict(request), "path": str(request.path)})
    command = [sys.executable, "-c", code, str(sender.fileno()), written]
    return subprocess.Popen(command, pass_fds=[sender.fileno()], env={**os.environ, "PYTHONPATH": path})


def _receive(receiver: Connection, timeout_s: float) -> Iterator[Opened | Block]:
    while True:
        if not receiver.poll(timeout_s):
            told = f"must be read, but its reader was silent for {timeout_s:g} s; raise timeout_s or fetch it again"
            raise SourceError("damaged", told)
        message = receiver.recv()
        if message is None:
            return
        if isinstance(message, tuple):
            raise SourceError(*message)
        yield message


def _explain_end(code: int) -> SourceError:
    if code < 0:
        name = signal.Signals(-code).name
        told = f"must be a cell matrix, but its reader died of {name}; fetch it again, or give it more memory"
        return SourceError("damaged", told)
    return SourceError("no_reader", f"must be read, but its reader ended with code {code}; mend what the log says")


def _messages(request: Request) -> Iterator[Opened | Block]:
    from corpus.formats.cellfile import reopened

    matrix = reopened(replace(request, rows=None))
    yield Opened(told=matrix.told, genes=matrix.names, rows=len(matrix), by_rows=matrix.by_rows)
    first, last = request.rows or (0, len(matrix))
    step = max(1, min(_ROWS_PER_BLOCK, int(_VALUES_PER_BLOCK / max(1.0, matrix.values_per_row))))
    for start in range(first, min(last, len(matrix)), step):
        yield matrix.block(start, min(start + step, last, len(matrix)))
