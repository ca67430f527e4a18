"""A keeper ends all that its node started, whoever it belongs to by then, when its owner closes the pipe or dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from evaluation import keeper

# A node as Ray's are: it has a child in a session of its own, a grandchild without a parent, and shields none of them.
NODE = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
subprocess.Popen(["sh", "-c", "sleep 600 & exit"], start_new_session=True).wait()
open(sys.argv[1] + "/ready", "w").close()
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "node").mkdir()
    return tmp_path / "node"


def start(folder: Path, *command: str) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-I", "-S", keeper.__file__, str(folder), *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def ready(folder: Path, process: "subprocess.Popen[str]") -> list[psutil.Process]:
    until = time.monotonic() + 20
    while not (folder / "ready").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    return psutil.Process(process.pid).children(recursive=True)


def test_the_end_of_the_pipe_ends_every_descendant_and_the_folder(folder: Path) -> None:
    process = start(folder, sys.executable, "-c", NODE, str(folder))
    descendants = ready(folder, process)
    assert len(descendants) == 3
    said, _ = process.communicate(timeout=20)
    assert said == ""
    assert not [each for each in descendants if each.is_running()]
    assert not folder.exists()


def test_stop_signals_are_for_the_owner(folder: Path) -> None:
    process = start(folder, sys.executable, "-c", NODE, str(folder))
    descendants = ready(folder, process)
    for stop in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        for each in (process.pid, *(each.pid for each in descendants)):
            os.kill(each, stop)
    time.sleep(0.2)
    assert process.poll() is None
    assert all(each.status() != psutil.STATUS_ZOMBIE for each in descendants)
    process.communicate(timeout=20)


def test_a_node_that_ends_by_itself_is_reported(folder: Path) -> None:
    process = start(folder, "sh", "-c", "echo first; echo the reason; exit 3")
    process.wait(timeout=20)
    said, log = process.communicate(timeout=20)
    assert (said, log) == ("the reason", "first\nthe reason\n")
    assert not folder.exists()


def test_a_keeper_that_is_killed_takes_its_node_along(folder: Path) -> None:
    process = start(folder, sys.executable, "-c", NODE, str(folder))
    node, *others = ready(folder, process)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs([node], timeout=20)[1]
    for each in others:
        each.kill()
