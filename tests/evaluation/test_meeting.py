"""How the ranks of a job find rank 0, notice its end however it ends, and say what is wrong when they do not meet."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from evaluation.meeting import Nodes, following, leading, wait_for_head
from slurm.files import write_json

HOST = socket.gethostname()


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    (tmp_path / "meeting").mkdir(mode=0o700)
    return Nodes(count=2, meeting=tmp_path / "meeting", cpus=1, interface="lo", patience_s=0.1)


def test_a_rank_sees_that_rank_0_lives_and_that_it_has_ended(nodes: Nodes) -> None:
    with contextlib.ExitStack() as rank_0, contextlib.ExitStack() as others:
        rank_0.enter_context(leading(nodes))
        first, second = (others.enter_context(following(nodes)) for _ in range(2))
        assert first.host == HOST
        assert first.lives(0.05)
        assert second.lives(0)
        rank_0.close()
        assert not first.lives(5)
        assert not second.lives(5)


def test_a_rank_sees_that_rank_0_was_killed(nodes: Nodes) -> None:
    code = """if True:
        import pathlib, sys, time
        from evaluation.meeting import Nodes, leading
        with leading(Nodes(count=2, meeting=pathlib.Path(sys.argv[1]), cpus=1, interface="lo")):
            print(flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", code, str(nodes.meeting)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with following(nodes) as driver:
            assert driver.lives(0)
            process.send_signal(signal.SIGKILL)
            assert not driver.lives(5)


def test_the_token_is_private_and_there_before_the_address(nodes: Nodes) -> None:
    nodes.announce("10.0.0.1:6379", token="secret")
    assert wait_for_head(nodes.meeting) == "10.0.0.1:6379"
    assert nodes.token.read_text() == "secret"
    assert stat.S_IMODE(nodes.token.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError, match="token"):
        nodes.announce("10.0.0.1:6379", token="of another execution")


def test_what_keeps_a_node_away_and_that_all_came_is_told(nodes: Nodes) -> None:
    assert (nodes.failures, nodes.complete) == ([], False)
    nodes.note_failure("no memory")
    nodes.note_complete(["n1", "n2"])
    assert (nodes.failures, nodes.complete) == (["no memory"], True)


def test_a_meeting_that_others_can_read_is_refused(nodes: Nodes) -> None:
    nodes.meeting.chmod(0o750)
    message = f"must be a folder of user {os.getuid()} with mode 0700.*of user {os.getuid()} with mode 0750; remove it"
    with pytest.raises(RuntimeError, match=message), leading(nodes):
        pass
    with pytest.raises(RuntimeError, match=message), following(nodes):
        pass


def test_a_rank_0_that_does_not_come_is_named(nodes: Nodes) -> None:
    message = f"node {HOST} must learn within 0.1 s where rank 0 is, but {nodes.meeting} does not say; see the log of"
    with pytest.raises(TimeoutError, match=message), following(nodes):
        pass


def test_a_rank_0_that_cannot_be_reached_is_named(nodes: Nodes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    write_json(nodes.meeting / "driver.json", {"host": "n7", "address": "127.0.0.1", "port": port})
    message = f"node {HOST} must reach rank 0 on node n7 at 127.0.0.1:{port}, but .*refused; set network_interface"
    with pytest.raises(ConnectionError, match=message), following(nodes):
        pass


@pytest.mark.parametrize(
    ("wanted", "address"),
    [
        ("lo", "127.0.0.1"),
        ("=lo", "127.0.0.1"),
        ("ib", "10.0.0.5"),
        ("eth,ib", "192.168.0.5"),
        ("^lo,eth", "10.0.0.5"),
    ],
)
def test_an_interface_is_named_as_nccl_does(wanted: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"lo": "127.0.0.1", "eth0": "192.168.0.5", "ib0": "10.0.0.5"}
    found = {name: [psutil._ntuples.snicaddr(socket.AF_INET, each, None, None, None)] for name, each in own.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    assert Nodes(count=2, meeting=Path(), cpus=1, interface=wanted).own_address() == address


@pytest.mark.parametrize("wanted", ["hsn", "=l", "^"])
def test_an_interface_that_is_not_there_is_named(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"lo": [], "eth0": []})
    message = rf"node {HOST} must have the network interface {re.escape(wanted)} with an IPv4 address, but has eth0, lo"
    with pytest.raises(RuntimeError, match=message):
        Nodes(count=2, meeting=Path(), cpus=1, interface=wanted).own_address()


def test_a_host_name_must_not_mean_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(count=2, meeting=Path(), cpus=1)
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "10.0.0.5")
    assert nodes.own_address() == "10.0.0.5"
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    message = f"node {HOST} must have an address that other nodes reach, but its name means 127.0.1.1; set network_"
    with pytest.raises(RuntimeError, match=message):
        nodes.own_address()
