"""A lock that ends with its process: who submits a stage, and who works on it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds the lock file `path`; yields whether it could be had. Waits for it when `wait`.

    The kernel frees the lock when the process ends, however it ends, so nothing has to be unlocked by hand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
