"""Archives: what could write elsewhere, never end or explode is refused before anything is written."""

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.formats.archive import Limits, extracted, is_archive, matching, members
from corpus.modality import SourceError

PATH = "must hold names below one folder, but holds"


def _zip(path: Path, files: dict[str, bytes], *, mode: int = 0, **settings: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **settings) as file:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def _tar(path: Path, *infos: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as file:
        for info, content in infos:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def _info(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "../../etc/passwd"
    return info


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def test_files_are_extracted_and_archives_within_stay_packed(tmp_path: Path, name: str) -> None:
    files = {"one.csv": b"1", "below/two.csv": b"22", "inner.zip": b"PK\x03\x04"}
    path = tmp_path / name
    if name == "a.zip":
        _zip(path, files)
    else:
        _tar(path, *((_info(inner), content) for inner, content in files.items()))
    assert [(member.name, member.bytes) for member in members(path)] == [(k, len(v)) for k, v in files.items()]
    with extracted(path, into=tmp_path) as folder:
        assert _content(folder) == files
    assert not folder.exists()
    with extracted(path, wanted=matching("*.csv")) as folder:
        assert sorted(_content(folder)) == ["below/two.csv", "one.csv"]
    assert is_archive(path)
    assert not is_archive(Path("a.csv.gz"))


@pytest.mark.parametrize("name", ["../a", "b/../../a", "/etc/a", "C:\\a", "\\a", "b\\..\\a", "..", "/", "a\0.csv"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "a.zip", {"good": b"", "x" * len(name): b"x"})
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))  # zipfile would mend it
    with pytest.raises(SourceError, match=re.escape(PATH)), extracted(path, into=tmp_path):
        pytest.fail("must not be entered")
    if "\0" not in name:
        packed = _tar(tmp_path / "a.tar", (_info(name), b"x"))
        with pytest.raises(SourceError, match=re.escape(PATH)):
            members(packed)
    assert sorted(child.name for child in tmp_path.iterdir() if child.is_dir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    told = "must hold files and folders only, but 'a' is a link, a device or sparse; do not trust it"
    with pytest.raises(SourceError, match=told):
        members(_tar(tmp_path / "a.tar", (_info("a", kind), b"")))
    with pytest.raises(SourceError, match=told):
        members(_zip(tmp_path / "a.zip", {"a": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"members": 2}, "must hold at most 2 files, but has more; do not trust it"),
        ({"bytes": 5}, "must hold at most 5 bytes when unpacked, but has more; do not trust it"),
    ],
)
def test_too_much_is_refused(tmp_path: Path, limits: dict[str, int], told: str) -> None:
    path = _zip(tmp_path / "a.zip", {f"{number}": b"123" for number in range(3)})
    with pytest.raises(SourceError, match=told):
        members(path, limits=Limits(**limits))


def test_bombs_are_refused_before_they_are_written(tmp_path: Path) -> None:
    bomb = _zip(tmp_path / "a.zip", {"zeros": bytes(9 << 20)})
    many = _zip(tmp_path / "b.zip", {f"{number}": bytes(1 << 20) for number in range(9)})
    packed = _tar(tmp_path / "c.tar.gz", (_info("zeros"), bytes(9 << 20)))
    for path, told in ((bomb, "has [0-9]+ in 'zeros'"), (many, "has [0-9]+"), (packed, "has [0-9]+")):
        with pytest.raises(SourceError, match=f"must hold at most 200 bytes for each packed byte, but {told}; do not"):
            members(path)


def _flipped(raw: bytes) -> bytes:
    place = raw.index(b"123456789")
    return raw[:place] + b"x" + raw[place + 1 :]


def _encrypted(raw: bytes) -> bytes:
    place = raw.index(b"PK\x01\x02") + 8  # the flags in the table of contents
    return raw[:place] + b"\x01" + raw[place + 1 :]


def _cut(raw: bytes) -> bytes:
    return raw[:-30]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_cut, r"a\.zip must be a whole archive, but File is not a zip file; fetch it again"),
        (_flipped, r"a\.zip must be a whole archive, but Bad CRC-32 for file 'a\.csv'; fetch it again"),
        (_encrypted, r"must be readable, but 'a\.csv' is encrypted; decrypt it"),
    ],
)
def test_damaged_archives_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes], told: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(zipfile.ZipInfo("a.csv"), b"123456789" * 3)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=told), extracted(path):
        pytest.fail("must not be entered")


def test_a_name_twice_is_refused_and_so_is_one_that_cannot_be_written(tmp_path: Path) -> None:
    twice = _tar(tmp_path / "a.tar", (_info("a"), b"1"), (_info("./a"), b"2"))
    with pytest.raises(SourceError, match="must hold each name once, but holds 'a' twice; pack it again"):
        members(twice)
    for names in (["a", "a/b"], ["a/b", "a"], ["x" * 300]):
        path = _zip(tmp_path / "b.zip", dict.fromkeys(names, b"1"))
        with pytest.raises(SourceError, match="must hold names that can be written, but holds"), extracted(path):
            pytest.fail("must not be entered")


def test_korean_names_come_back(tmp_path: Path) -> None:
    name = "환자.csv"
    path = _zip(tmp_path / "a.zip", {"x" * len(name.encode("cp949")): b"1"})
    path.write_bytes(path.read_bytes().replace(b"x" * len(name.encode("cp949")), name.encode("cp949")))
    assert [member.name for member in members(path)] == [name]
    decomposed = _zip(tmp_path / "b.zip", {"\u1100\u1161.csv": b"1"})
    assert [member.name for member in members(decomposed)] == ["\uac00.csv"]
    assert matching("\u1100\u1161*")("\uac00.csv")
