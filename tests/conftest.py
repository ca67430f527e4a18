"""Fixtures for all tests."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def in_child() -> Callable[..., Any]:
    """Returns a function that calls work(*arguments) in a forked process and gives back its result or its error.

    For what joins a process group: its threads stay, and a process that has them can never fork ranks again.
    """
    import multiprocessing

    context = multiprocessing.get_context("fork")

    def guarded(results: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        warnings.simplefilter("ignore")  # the engines call each other's deprecated parts; ours are seen elsewhere
        try:
            results.send((work(*arguments), None))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            results.send((None, error))

    def run(work: Callable[..., Any], *arguments: Any) -> Any:
        receiving, sending = context.Pipe(duplex=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            child = context.Process(target=guarded, args=(sending, work, arguments))
            child.start()
        sending.close()
        result, error = receiving.recv()
        child.join()
        if error is not None:
            raise error
        return result

    return run
