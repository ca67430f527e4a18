"""Fixtures for all tests."""

import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster


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


@pytest.fixture
def shipped_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes MEDSCALE_DATA a folder where an empty file lies for every one that a shipped run names."""
    monkeypatch.setenv("MEDSCALE_DATA", str(tmp_path))
    for run in (ROOT / "workflows/runs").glob("*.yaml"):
        for name in re.findall(r"\$\{MEDSCALE_DATA\}/([^\s\",}]+)", run.read_text()):
            path = tmp_path / name.replace("*", "some")
            path = path if path.suffix else path / "some.txt"  # a folder of tables
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.fixture(scope="session")
def cluster_module() -> ModuleType:
    """tests/slurm/cluster.py, for a test that starts a cluster of its own."""
    spec = importlib.util.spec_from_file_location("cluster", Path(__file__).parent / "slurm/cluster.py")
    assert spec
    assert spec.loader
    sys.modules["cluster"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start_cluster(cluster_module: ModuleType) -> Callable[..., "Cluster"]:
    """Returns Cluster.start, which skips where Slurm cannot be had; continuous integration must have it."""

    def start(base: Path, **options: Any) -> "Cluster":
        try:
            started: Cluster = cluster_module.Cluster.start(base, **options)
        except cluster_module.machines.UnavailableError as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))
        return started

    return start


@pytest.fixture(scope="session")
def cluster(start_cluster: Callable[..., "Cluster"], tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Cluster]":
    """A real Slurm cluster of 4 nodes; a test hands cluster.env to what it starts, and leaves every node idle."""
    started = start_cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    started.stop()
