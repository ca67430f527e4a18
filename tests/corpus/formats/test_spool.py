"""A spool gives back rows by owner, whether they stayed in memory or went to disk."""

import random

import pytest

from corpus.formats.spool import Spool


@pytest.mark.parametrize(("rows", "owners"), [(10_000, 512), (7, 3), (1, 1)])
def test_rows_come_back_by_owner_in_order(rows: int, owners: int) -> None:
    chance = random.Random(1)
    given = [(f"p{chance.randrange(40)}", number) for number in range(500)]
    expected: dict[str, list[int]] = {}
    with Spool(rows=rows, owners=owners) as spool:
        for owner, number in given:
            spool.add(owner, number)
            expected.setdefault(owner, []).append(number)
        assert list(spool.owners()) == list(expected.items())


def test_what_went_to_disk_is_removed() -> None:
    with Spool(rows=1) as spool:
        spool.add("a", "한")
        assert spool._folder is not None
        folder = spool._path(0).parent
        assert folder.exists()
    assert not folder.exists()
