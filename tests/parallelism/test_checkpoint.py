"""Checkpoints that were damaged: whatever was done to whichever file, it is seen, and the one before is used."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from parallelism import device

device.prepare()

from parallelism import checkpoint, launch  # noqa: E402 - prepared above
from slurm.files import digest  # noqa: E402

Start = Callable[..., Any]
NEWEST, BEFORE = "step_00000008", "step_00000004"
FILES = ("__0_0.distcp", "__1_0.distcp", ".metadata", "metadata.json", "manifest.json")


def flip(place: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return damage


def keep(share: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def half_written(path: Path) -> None:
    """As a file whose last pages never reached the disk: its size is right, its end is zeros."""
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size)


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "first bit flipped": flip(0),
    "middle bit flipped": flip(0.5),
    "last bit flipped": flip(1),
    "half of it": keep(0.5),
    "emptied": keep(0),
    "half written": half_written,
    "a byte longer": longer,
    "deleted": Path.unlink,
}


def swap(folder: Path) -> None:
    one, two = folder / "__0_0.distcp", folder / "__1_0.distcp"
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


def replace_by(folder: Path, other: Path | None) -> None:
    shutil.rmtree(folder)
    if other:
        shutil.copytree(other, folder)
    else:
        folder.mkdir()


def edit(**changes: Any) -> Callable[[Path], None]:
    """Returns an edit of the manifest by someone who knows nothing of its digest."""

    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def forget(folder: Path) -> None:
    """Leaves a file out of the manifest, whose digest is made to fit."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["__1_0.distcp"], manifest["digest"]
    path.write_text(json.dumps({**manifest, "digest": digest(manifest)}))


WHOLE: dict[str, Callable[[Path], Any]] = {
    "two files swapped": swap,
    "a pickle planted": lambda folder: (folder / "common.pt").write_bytes(b"planted"),
    "a shard planted": lambda folder: (folder / "__9_0.distcp").write_bytes(b"planted"),
    "a folder planted": lambda folder: (folder / "more").mkdir(),
    "a file renamed": lambda folder: (folder / "__1_0.distcp").rename(folder / "__2_0.distcp"),
    "a file of the checkpoint before": lambda folder: shutil.copy(folder.parent / BEFORE / "__0_0.distcp", folder),
    "the manifest of the checkpoint before": lambda folder: shutil.copy(
        folder.parent / BEFORE / "manifest.json", folder
    ),
    "another step in the manifest": edit(step=9),
    "another format in the manifest": edit(format=0),
    "another digest in the manifest": edit(digest="0" * 64),
    "no files in the manifest": edit(files={}),
    "a file left out of the manifest": forget,
    "a manifest that is no JSON": lambda folder: (folder / "manifest.json").write_text("{"),
    "a manifest that is no object": lambda folder: (folder / "manifest.json").write_text("[]"),
    "the checkpoint before under its name": lambda folder: replace_by(folder, folder.parent / BEFORE),
    "nothing in it": lambda folder: replace_by(folder, None),
}
CASES = {
    f"{file}: {name}": (lambda folder, file=file, do=do: do(folder / file))
    for file in FILES
    for name, do in DAMAGES.items()
} | WHOLE


@pytest.fixture
def alone() -> Iterator[None]:
    with launch.joined(launch.place({})):
        yield


@pytest.fixture(scope="module")
def saved(start_training: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks' checkpoints after 4 and 8 steps."""
    folder = tmp_path_factory.mktemp("saved")
    start_training(folder, world_size=2, save_interval=4).wait()
    return folder


def copied(saved: Path, to: Path) -> Path:
    shutil.copytree(saved, to / "run")
    (folder,) = (to / "run" / "checkpoints").iterdir()
    return folder


def wait_for(done: Callable[[], Any]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert time.monotonic() < until, "waited 120 s"
        time.sleep(0.01)


@pytest.mark.parametrize("name", list(CASES))
def test_every_damage_is_seen(name: str, alone: None, saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path)
    assert {path.name for path in (folder / NEWEST).iterdir()} == set(FILES)
    CASES[name](folder / NEWEST)
    found = checkpoint.newest(folder)
    assert found.checkpoint is not None
    assert (found.checkpoint.path.name, found.checkpoint.step) == (BEFORE, 4)
    assert len(found.refused) == 1
    assert found.refused[0].startswith(f"{folder / NEWEST}: ")
    assert sorted(path.name.split("-")[0] for path in folder.iterdir()) == ["bad", BEFORE]


def test_what_is_whole_is_used(alone: None, saved: Path, tmp_path: Path) -> None:
    found = checkpoint.newest(copied(saved, tmp_path))
    assert (found.checkpoint and found.checkpoint.step, found.refused) == (8, ())


@pytest.mark.parametrize(
    "name", ["__1_0.distcp: half written", "two files swapped", "another step in the manifest", ".metadata: deleted"]
)
def test_training_goes_on_from_the_one_before(name: str, start_training: Start, saved: Path, tmp_path: Path) -> None:
    whole = start_training(tmp_path / "whole", world_size=2, train_iters=6)
    whole.wait()
    CASES[name](copied(saved, tmp_path) / NEWEST)
    again = start_training(tmp_path / "run", world_size=2, train_iters=6)
    result = again.wait()
    assert result.resumed_from == 4
    assert len(result.refused) == 1
    assert f"checkpoint set aside: {result.refused[0]}" in again.notes()
    assert again.values() == {step: whole.values()[step] for step in (5, 6)}


def test_a_rank_that_is_slow_to_write_holds_up_nobody_and_all_commit_in_one_step(
    start_training: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint._write

    def slowly(folder: Path, **options: Any) -> Any:
        written = write(folder, **options)
        (folder.parent / f"written-{options['rank']}").touch()
        while options["rank"] == 1 and not (tmp_path / "go").exists():
            time.sleep(0.01)
        return written

    monkeypatch.setattr(checkpoint, "_write", slowly)
    attempt = start_training(tmp_path, world_size=2, train_iters=2000, save_interval=4, eval_interval=5000)
    wait_for(lambda: len(attempt.values()) >= 7 and list(tmp_path.glob("checkpoints/*/written-*")))
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert not list(folder.glob("step_*")), "rank 1 has not written, so there is no checkpoint"
    assert max(attempt.values()) == 7 or max(attempt.values()) == 8, "it was waited for only when the next one was due"
    (tmp_path / "go").touch()
    wait_for((folder / BEFORE).exists)
    os.kill(attempt.pids[0], signal.SIGTERM)
    assert attempt.wait().stopped
    stalls, times = attempt.values("train/save_stall_s"), attempt.values("train/save_time_s")
    assert list(stalls) == list(times)
    assert all(0 < stalls[step] <= times[step] for step in stalls)


@pytest.mark.parametrize("background", [False, True])
def test_what_is_saved_is_what_was_there_when_saving_began(
    background: bool, start_training: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training changes every weight while files are written; the checkpoint holds those of its step."""
    write = checkpoint._write

    def late(folder: Path, **options: Any) -> Any:
        time.sleep(0.5 if background else 0)
        return write(folder, **options)

    monkeypatch.setattr(checkpoint, "_write", late)
    settings: dict[str, Any] = {"world_size": 2, "save_interval": 4, "async_save": background, "precision": "bf16"}
    whole = start_training(tmp_path / "whole", train_iters=7, **settings)
    whole.wait()
    (folder,) = (tmp_path / "whole" / "checkpoints").iterdir()
    shutil.rmtree(folder / "step_00000007")
    again = start_training(tmp_path / "whole", train_iters=7, **settings)
    assert again.wait().resumed_from == 4
    assert again.values() == {step: whole.values()[step] for step in (5, 6, 7)}


def test_a_save_that_was_cut_short_leaves_the_one_before(start_training: Start, tmp_path: Path) -> None:
    """The kill comes while files are written: between two steps of saving, whichever the clock hits."""
    attempt = start_training(tmp_path, world_size=2, train_iters=2000, save_interval=2)
    wait_for(lambda: list(tmp_path.glob("checkpoints/*/step_00000004")))
    for pid in attempt.pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(Exception, match="SIGKILL"):
        attempt.wait()
    again = start_training(tmp_path, world_size=2, train_iters=max(attempt.values()) + 1, save_interval=2)
    result = again.wait()
    assert result.resumed_from >= 4
    assert result.refused == ()


def test_a_commit_that_fails_is_told_on_every_rank(
    start_training: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = checkpoint.commit

    def no_room(path: Path, _: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    def telling(writing: checkpoint.Writing, **options: Any) -> checkpoint.Checkpoint:
        try:
            return commit(writing, **options)
        except OSError as error:
            (tmp_path / f"told-{dist.get_rank()}").write_text(str(error))
            raise

    monkeypatch.setattr(checkpoint, "write_json", no_room)
    monkeypatch.setattr(checkpoint, "commit", telling)
    attempt = start_training(tmp_path, world_size=2, save_interval=4)
    wait_for(lambda: all((tmp_path / f"told-{rank}").exists() for rank in (0, 1)))
    with pytest.raises(Exception, match=r"step_00000004: must appear under that name, but rank 0 could not commit it"):
        attempt.wait()
    assert (tmp_path / "told-1").read_text() == (tmp_path / "told-0").read_text()
    assert not list(tmp_path.glob("checkpoints/*/step_*"))


def test_the_watcher_is_told_before_a_checkpoint_appears(start_training: Start, tmp_path: Path) -> None:
    attempt = start_training(tmp_path, world_size=2, save_interval=4)
    attempt.wait()
    told = [line for line in attempt.notes().splitlines() if line.startswith("saving")]
    assert told == ["saving 4 after []", "saving 8 after ['step_00000004']"]
