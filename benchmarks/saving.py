"""What saving costs a training: the loop's stall with and without a thread that writes, on this machine.

    python -m benchmarks.saving [--ranks 2] [--update-docs]

The same small decoder is trained twice from the same weights, and saved every few steps. Times are rank 0's. A stall is
what the loop lost to one checkpoint; steps meanwhile are those between a save's beginning and its end.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks share the cores

from parallelism import device

device.prepare()

from jobs._run import ROOT  # noqa: E402 - Megatron is prepared above
from tests.parallelism.conftest import SHAPE, starter  # noqa: E402

DOC = ROOT / "docs" / "benchmarks" / "saving.md"
MARK = "<!-- table -->"
STEPS, EVERY = 30, 5
WIDE = replace(
    SHAPE, hidden_size=320, ffn_hidden_size=864, num_attention_heads=5, num_query_groups=5, kv_channels=64, num_layers=8
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Seconds of each step, and of each checkpoint by its step."""

    steps: Mapping[int, float]
    stalls: Mapping[int, float] = field(default_factory=dict)
    saves: Mapping[int, float] = field(default_factory=dict)
    bytes: int = 0

    @property
    def meanwhile(self) -> list[float]:
        """Seconds of the step right after each save began."""
        return [self.steps[saved + 1] for saved in self.saves if saved + 1 in self.steps]

    @property
    def apart(self) -> list[float]:
        """Seconds of the steps that no checkpoint was written beside."""
        return [seconds for step, seconds in self.steps.items() if step > EVERY and step % EVERY in (0, EVERY - 1)]


def measure(folder: Path, *, ranks: int, background: bool) -> Figures:
    settings: dict[str, Any] = {"train_iters": STEPS, "save_interval": EVERY, "async_save": background}
    attempt = starter()(folder, world_size=ranks, shape=WIDE, precision="bf16", vocab_size=8192, **settings)
    result = attempt.wait()
    found = {name: attempt.values(f"train/{name}") for name in ("step_time_s", "save_stall_s", "save_time_s")}
    size = sum(path.stat().st_size for path in result.checkpoint.path.iterdir())
    middle = {name: {step: value for step, value in values.items() if step < STEPS} for name, values in found.items()}
    return Figures(steps=found["step_time_s"], stalls=middle["save_stall_s"], saves=middle["save_time_s"], bytes=size)


def row(name: str, figures: Figures) -> str:
    def ms(values: Any) -> str:
        return f"{statistics.median(values) * 1e3:,.0f}"

    cells = [ms(figures.stalls.values()), ms(figures.saves.values()), ms(figures.apart), ms(figures.meanwhile)]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2, help="data-parallel processes")
    parser.add_argument("--update-docs", action="store_true", help=f"write the table into {DOC.relative_to(ROOT)}")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        modes = {"async_save: false": False, "async_save: true": True}
        found = {
            name: measure(Path(folder) / str(background), ranks=given.ranks, background=background)
            for name, background in modes.items()
        }
    size = next(iter(found.values())).bytes / 1e6
    table = "\n".join(
        [
            f"{given.ranks} data-parallel ranks, {size:,.0f} MB a checkpoint, {os.cpu_count()} cores; medians, ms.",
            "",
            "| | stall of a checkpoint | until it is there | a step without | the step beside it |",
            "|---|---|---|---|---|",
            *(row(name, figures) for name, figures in found.items()),
        ]
    )
    print(table)
    if given.update_docs:
        before, _, _ = DOC.read_text().partition(MARK)
        DOC.write_text(f"{before}{MARK}\n\n{table}\n")


if __name__ == "__main__":
    main()
