"""What a batch script writes down of its executions, and how many in a row came to nothing."""

from pathlib import Path

import pytest

from slurm.events import NAME, Event, add, fruitless, read_events


def _begin(restart: int, step: float) -> Event:
    return Event(event="begin", job_id="7", restart=restart, step=step, nodes=["n1"])


def _end(restart: int, step: float, outcome: str) -> Event:
    return Event(event="end", job_id="7", restart=restart, step=step, outcome=outcome)


def test_events_are_read_as_they_were_written_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    first, second = _begin(0, 0), _end(0, 5, "stopped").told(reason="asked", nodes=[], node="n1", next="requeue")
    add(tmp_path, first)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"event": "end", "job_id"\n[1]\n')
    add(tmp_path, second)
    assert read_events(tmp_path) == [first, second]
    assert read_events(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("events", "step", "count"),
    [
        ([], 0, 0),
        ([_begin(0, 0), _end(0, 0, "crashed")], 0, 1),
        ([_begin(0, 0), _end(0, 9, "crashed")], 9, 0),
        ([_begin(0, 0), _end(0, 9, "crashed"), _begin(1, 9), _end(1, 9, "crashed")], 9, 1),
        ([_begin(0, 0), _end(0, 9, "crashed"), _begin(1, 9), _end(1, 12, "crashed")], 12, 0),
        ([_begin(0, 0), _begin(1, 0), _begin(2, 0)], 0, 3),
        ([_begin(0, 0), _begin(1, 20), _begin(2, 20)], 30, 0),
        ([_begin(0, 0), _end(0, 0, "preflight"), _begin(1, 0), _end(1, 0, "stopped")], 0, 0),
        ([_begin(0, 0), _begin(1, 8), _end(0, 8, "crashed"), _end(1, 8, "crashed")], 8, 1),
    ],
    ids=[
        "nothing yet",
        "a crash at the start",
        "a crash after some steps",
        "twice at the same step",
        "later each time",
        "power cuts, never further",
        "power cuts, further each time",
        "stopped on request",
        "a remnant that ends after the next began",
    ],
)
def test_tries_count_until_one_gets_further(events: list[Event], step: float, count: int) -> None:
    assert fruitless(events, step=step) == count
