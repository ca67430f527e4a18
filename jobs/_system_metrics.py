"""System metrics: how busy this machine is while a stage runs, sampled into its journal.

The names are MLflow's own, so that its System metrics tab shows them. A GPU shows when NVIDIA's `pynvml` is installed
and finds one.
"""

import importlib
import importlib.util
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from jobs._journal import Journal, now_ms

_MEGABYTE = 1e6


class SystemMetrics:
    """Samples the machine every `period_s` seconds, in a thread, between entering and leaving the `with` block.

    The step of a sample is the number of seconds since the run began, so that a resumed stage goes on where it was.
    """

    def __init__(self, journal: Journal, *, period_s: float = 10.0) -> None:
        self._journal = journal
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        samplers = [_machine(str(self._journal.path.parent)), *_gpus()]
        ended = False
        while not ended:
            ended = self._stop.wait(self._period_s)  # a stage shorter than a period has its one sample at its end
            values = {f"system/{key}": value for sampler in samplers for key, value in sampler().items()}
            self._journal.metrics((now_ms() - self._journal.started_ms) // 1000, values)


def _machine(folder: str) -> Callable[[], dict[str, float]]:
    """Returns a sampler of processors, memory, network, and the disk that holds `folder`."""
    psutil = importlib.import_module("psutil")
    before = psutil.net_io_counters()
    psutil.cpu_percent()  # the first call only sets the mark that the next one measures from

    def sample() -> dict[str, float]:
        memory, disk, network = psutil.virtual_memory(), psutil.disk_usage(folder), psutil.net_io_counters()
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_megabytes": disk.used / _MEGABYTE,
            "disk_usage_percentage": disk.percent,
            "disk_available_megabytes": disk.free / _MEGABYTE,
            "network_receive_megabytes": (network.bytes_recv - before.bytes_recv) / _MEGABYTE,
            "network_transmit_megabytes": (network.bytes_sent - before.bytes_sent) / _MEGABYTE,
        }

    return sample


def _gpus() -> list[Callable[[], dict[str, float]]]:
    """Returns a sampler for each NVIDIA GPU of this machine: none without one, or without `pynvml`."""
    if importlib.util.find_spec("pynvml") is None:
        return []
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:  # installed, but this machine has no driver
        return []
    return [_gpu(nvml, handle, prefix=f"gpu_{index}_") for index, handle in enumerate(handles)]


def _gpu(nvml: Any, handle: Any, *, prefix: str) -> Callable[[], dict[str, float]]:
    readings: dict[str, Callable[[], float]] = {
        "utilization_percentage": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_usage_megabytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / _MEGABYTE,
        "power_usage_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    }

    def sample() -> dict[str, float]:
        values: dict[str, float] = {}
        for key, read in readings.items():
            try:
                values[prefix + key] = read()
            except nvml.NVMLError:  # this card does not tell: MIG slices have no utilization of their own
                continue
        return values

    return sample
