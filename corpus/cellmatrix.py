"""Cell matrices: AnnData files read in a process of their own, because a damaged one can kill its reader."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from corpus.modality import SourceError

_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to read: `matrix` is auto, X, raw or a layer; `genes` a column of var; `columns` those wanted of obs."""

    path: Path
    matrix: str
    genes: str | None
    top_genes: int
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: its name, the obs columns wanted, and its highest genes or the reason why there are none."""

    name: str
    columns: dict[str, Any]
    genes: list[str]
    problem: str | None


def read_cells(request: Request, *, timeout_s: float) -> Iterator[str | Cell]:
    """Yields a sentence about what is read, then the cells.

    Raises:
        SourceError: the file is damaged, kills its reader, keeps it busy for `timeout_s`, or lacks what is wanted.
    """
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
    """Runs in the child: sends blocks of cells, then None; or the code and reason of a SourceError."""
    warnings.simplefilter("ignore")  # old files make anndata warn about where it moves their parts
    request = json.loads(sys.argv[2])
    request = Request(**{**request, "path": Path(request["path"])})
    with Connection(int(sys.argv[1])) as sender, suppress(BrokenPipeError):  # broken: the parent has enough cells
        try:
            for block in _blocks(request):
                sender.send(block)
            sender.send(None)
        except SourceError as error:
            sender.send((error.code, error.reason))
        except Exception as error:  # noqa: BLE001 - whatever a parser says about damage belongs in the message
            told = f"must be an AnnData file, but {type(error).__name__}: {str(error)[:200]}; fetch it again"
            sender.send(("damaged", told))


def _start(request: Request, sender: Connection) -> subprocess.Popen[bytes]:
    """Starts a fresh interpreter: multiprocessing would run the main module again, whatever that is."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    code = "from corpus.cellmatrix import serve; serve()"
    written = json.dumps({**asdict(request), "path": str(request.path)})
    command = [sys.executable, "-c", code, str(sender.fileno()), written]
    return subprocess.Popen(command, pass_fds=[sender.fileno()], env={**os.environ, "PYTHONPATH": path})


def _receive(receiver: Connection, timeout_s: float) -> Iterator[str | Cell]:
    while True:
        if not receiver.poll(timeout_s):
            told = f"must be read, but its reader was silent for {timeout_s:g} s; raise timeout_s or fetch it again"
            raise SourceError("damaged", told)
        message = receiver.recv()
        if message is None:
            return
        if isinstance(message, tuple):
            raise SourceError(*message)
        yield from message


def _explain_end(code: int) -> SourceError:
    if code < 0:
        name = signal.Signals(-code).name
        told = f"must be an AnnData file, but its reader died of {name}; fetch it again, or give it more memory"
        return SourceError("damaged", told)
    return SourceError("no_reader", f"must be read, but its reader ended with code {code}; mend what the log says")


def _blocks(request: Request) -> Iterator[list[str | Cell]]:
    from corpus.anndata_file import open_matrix

    matrix = open_matrix(request.path, matrix=request.matrix, genes=request.genes, columns=request.columns)
    yield [matrix.told]
    for start in range(0, len(matrix), _BLOCK):
        yield [
            Cell(name=row.name, columns=row.columns, genes=row.top(request.top_genes), problem=row.problem())
            for row in matrix.rows(start, start + _BLOCK)
        ]
