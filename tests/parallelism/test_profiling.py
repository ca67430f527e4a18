"""A profile of some steps, from a real training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_the_steps_asked_for_are_profiled(start_training: Callable[..., Any], tmp_path: Path) -> None:
    attempt = start_training(tmp_path, world_size=2, train_iters=4, profile_steps=(2, 3))
    attempt.wait()
    folder = tmp_path / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["steps_2_3.json", "steps_2_3.txt"]
    assert f"profile of steps 2 to 3 of rank 0: {folder / 'steps_2_3.json'} and steps_2_3.txt" in attempt.notes()
    events = json.loads((folder / "steps_2_3.json").read_text())["traceEvents"]
    assert any("aten::" in event.get("name", "") for event in events)
    assert "aten::" in (folder / "steps_2_3.txt").read_text()
    assert list(attempt.values()) == [1, 2, 3, 4]
