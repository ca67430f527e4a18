"""A profile of some steps: a trace for chrome://tracing or Perfetto, and a table of where the time went."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from parallelism import device

_ROWS = 40


@dataclass(kw_only=True)
class Profiler:
    """Profiles the steps from the first of `steps` to the last, on the rank that has it, into `folder`."""

    steps: tuple[int, int] | None
    folder: Path
    _running: Any = None

    def before(self, step: int) -> None:
        """Starts when `step` is the first."""
        if self.steps and step == self.steps[0] and self._running is None:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if device.has_gpu():
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self._running = torch.profiler.profile(activities=kinds)
            self._running.start()

    def after(self, step: int) -> str | None:
        """Ends when `step` is the last, and returns a line that says where the profile lies."""
        if self._running is None or not self.steps or step != self.steps[1]:
            return None
        device.synchronize()
        self._running.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        trace = self.folder / f"steps_{self.steps[0]}_{self.steps[1]}.json"
        self._running.export_chrome_trace(str(trace))
        order = "self_cuda_time_total" if device.has_gpu() else "self_cpu_time_total"
        table = self._running.key_averages().table(sort_by=order, row_limit=_ROWS)
        trace.with_suffix(".txt").write_text(table)
        self._running = None
        return f"profile of steps {self.steps[0]} to {self.steps[1]} of rank 0: {trace} and {trace.stem}.txt"
