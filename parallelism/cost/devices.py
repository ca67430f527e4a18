"""Accelerators as their vendors describe them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Matmul = Literal["bf16", "fp8", "fp4"]
"""Number format of the layers' matmuls; attention and the output layer stay bf16."""

Family = Literal["ampere", "hopper", "blackwell"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator as its vendor's data sheet describes it.

    Attributes:
        family: generation; how much of a peak is reached differs between generations.
        memory_gib: memory a process can use, in GiB, before the context of the driver.
        peak_tflops: dense bf16 matmul peak.
        fp8_tflops: dense fp8 peak; None where there is none.
        fp4_tflops: dense fp4 peak; None where there is none.
        hbm_gb_per_s: bandwidth of its memory, in 1e9 bytes per second.
        node_gb_per_s: bandwidth between two devices of one node, one direction, in 1e9 bytes per second.
        network_gb_per_s: a device's share of its node's network, one direction, in 1e9 bytes per second.
        node_gpus: devices that reach each other at node_gb_per_s; 72 in an NVL72 rack, whatever a host holds.
        watts: most power of the device (TDP); of the whole module for GB200, GB300 and GH200.
    """

    family: Family
    memory_gib: float
    peak_tflops: float
    fp8_tflops: float | None = None
    fp4_tflops: float | None = None
    hbm_gb_per_s: float
    node_gb_per_s: float
    network_gb_per_s: float
    node_gpus: int = 8
    watts: float

    def matmul_tflops(self, matmul: Matmul) -> float:
        """Returns the dense peak of a number format.

        Raises:
            ValueError: the device has no such matmul.
        """
        peak = {"bf16": self.peak_tflops, "fp8": self.fp8_tflops, "fp4": self.fp4_tflops}[matmul]
        if peak is None:
            raise ValueError(f"matmul must be a format that the device computes in, but it has no {matmul}; use bf16")
        return peak


_A100 = Device(
    family="ampere",
    memory_gib=79.2,
    peak_tflops=312,
    hbm_gb_per_s=2039,
    node_gb_per_s=300,
    network_gb_per_s=25,
    watts=400,
)
_H100 = Device(
    family="hopper",
    memory_gib=79.1,
    peak_tflops=989,
    fp8_tflops=1979,
    hbm_gb_per_s=3350,
    node_gb_per_s=450,
    network_gb_per_s=50,
    watts=700,
)
_B200 = Device(
    family="blackwell",
    memory_gib=178.0,
    peak_tflops=2250,
    fp8_tflops=4500,
    fp4_tflops=9000,
    hbm_gb_per_s=7700,
    node_gb_per_s=900,
    network_gb_per_s=50,
    watts=1000,
)
_GB200 = replace(
    _B200,
    memory_gib=184.0,
    peak_tflops=2500,
    fp8_tflops=5000,
    fp4_tflops=10_000,
    hbm_gb_per_s=8000,
    node_gpus=72,
    watts=1200,
)

DEVICES: Mapping[str, Device] = {
    "a100_40gb": replace(_A100, memory_gib=39.4, hbm_gb_per_s=1555),
    "a100_80gb": _A100,
    # Cards without a switch: PCIe 4.0 x16 between them.
    "a100_40gb_pcie": replace(_A100, memory_gib=39.4, hbm_gb_per_s=1555, node_gb_per_s=32, watts=250),
    "a100_80gb_pcie": replace(_A100, hbm_gb_per_s=1935, node_gb_per_s=32, watts=300),
    "h100": _H100,
    "h100_pcie": replace(
        _H100, peak_tflops=756, fp8_tflops=1513, hbm_gb_per_s=2000, node_gb_per_s=64, network_gb_per_s=50, watts=350
    ),
    # Meta's variant: 96 GB of HBM2e, held at 500 W.
    "h100_96gb": replace(_H100, memory_gib=94.0, hbm_gb_per_s=2400, watts=500),
    "h200": replace(_H100, memory_gib=139.0, hbm_gb_per_s=4800),
    # As in a Grace Hopper node of four; its network is one 200 Gb/s adapter each.
    "gh200": replace(_H100, memory_gib=94.5, hbm_gb_per_s=4000, network_gb_per_s=25, node_gpus=4, watts=1000),
    "b200": _B200,
    "b300": replace(_B200, memory_gib=268.0, fp4_tflops=13_500, hbm_gb_per_s=8000, network_gb_per_s=100, watts=1100),
    "gb200": _GB200,
    "gb300": replace(_GB200, memory_gib=277.0, fp4_tflops=15_000, network_gb_per_s=100, watts=1400),
}
"""Peaks and bandwidths: NVIDIA's data sheets, dense (half of the figures with sparsity)."""
