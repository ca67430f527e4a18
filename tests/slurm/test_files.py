"""Atomic writes, strict JSON and digests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurm.files import digest, read_json, sha256_file, sha256_files, write_atomic, write_json


def test_a_written_file_has_its_content_and_the_usual_mode(tmp_path: Path) -> None:
    os.umask(0o022)
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"value": "a" * 200_000})
    code = f"""
from pathlib import Path
from slurm.files import write_json
while True:
    for letter in "ab":
        write_json(Path({str(path)!r}), {{"value": letter * 200_000}})
"""
    for attempt in range(5):
        writer = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.3 + 0.05 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        value = read_json(path)["value"]
        assert value in ("a" * 200_000, "b" * 200_000)


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError, match="taken"):
        write_atomic(tmp_path / "taken", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("text", "says"), [('{"a": 1, "a": 2}', "'a' occurs twice"), ('{"a": NaN}', "NaN is not"), ("{", "strict JSON")]
)
def test_json_that_is_not_strict_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))


def test_a_digest_depends_on_the_value_and_not_on_its_order() -> None:
    assert digest({"a": 1, "b": "ㄱ"}) == digest(json.loads('{"b": "ㄱ", "a": 1}'))
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_digests_of_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "empty").touch()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_file(tmp_path / "b" / "empty") == empty
    assert sha256_files(tmp_path) == {"b/empty": empty}
