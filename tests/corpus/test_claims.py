"""Claims: a node that fails or dies is noticed, and nobody waits for it for ever."""

import re
from pathlib import Path

import pytest

from corpus.claims import Claims, Nodes


def _nodes(folder: Path, rank: int, *, silence_s: float = 60) -> Nodes:
    return Nodes(rank=rank, world_size=2, meeting=folder, silence_s=silence_s)


def _claims(nodes: Nodes, *committed: int) -> Claims:
    return Claims(3, committed=lambda unit: unit in committed, nodes=nodes, name="test")


def test_a_unit_belongs_to_one_node(tmp_path: Path) -> None:
    first, second = (_claims(_nodes(tmp_path, rank), 2) for rank in (0, 1))
    assert (first.take(), second.take(), first.take(), second.take()) == (0, 1, None, None)


def test_a_node_that_fails_ends_the_others(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space"), _nodes(tmp_path, 1).together():
        raise OSError("no space")
    wanted = "every node must do its part, but rank1 failed: OSError: no space; start the stage again: what is done is"
    with pytest.raises(RuntimeError, match=re.escape(wanted)):
        _claims(_nodes(tmp_path, 0)).take()
    with pytest.raises(RuntimeError, match=re.escape(wanted)):
        _nodes(tmp_path, 0).wait_for(tmp_path / "never")


def test_a_node_that_dies_is_silent(tmp_path: Path) -> None:
    other, mine = _claims(_nodes(tmp_path, 1)), _claims(_nodes(tmp_path, 0, silence_s=0.2), 1, 2)
    assert other.take() == 0
    assert mine.take() is None
    with pytest.raises(
        RuntimeError, match=re.escape("every node must live, but rank1 has been silent for 0.2 s; start")
    ):
        mine.wait()


def test_what_a_node_could_not_do_is_known_to_all(tmp_path: Path) -> None:
    other, mine = _claims(_nodes(tmp_path, 1)), _claims(_nodes(tmp_path, 0), 1, 2)
    assert other.take() == 0
    other.bury(0, "its worker died of SIGSEGV")
    assert mine.take() is None
    mine.wait()
    assert mine.died == {0: "its worker died of SIGSEGV"}


def test_waiting_ends_when_the_file_is_there(tmp_path: Path) -> None:
    with _nodes(tmp_path, 0).together():
        (tmp_path / "made").touch()
        _nodes(tmp_path, 1).wait_for(tmp_path / "made")
