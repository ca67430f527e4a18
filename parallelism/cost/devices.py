"""Accelerators as their vendors describe them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator as its vendor describes it.

    Attributes:
        memory_gib: memory a process can use, in GiB, before the context of the driver.
        peak_tflops: dense bf16 matmul peak.
        node_gb_per_s: bandwidth between two devices of one node, one direction, in 1e9 bytes per second.
        network_gb_per_s: a device's share of its node's network, one direction, in 1e9 bytes per second.
    """

    memory_gib: float
    peak_tflops: float
    node_gb_per_s: float
    network_gb_per_s: float


DEVICES: Mapping[str, Device] = {
    "a100_40gb": Device(memory_gib=39.4, peak_tflops=312, node_gb_per_s=300, network_gb_per_s=25),
    "a100_80gb": Device(memory_gib=79.2, peak_tflops=312, node_gb_per_s=300, network_gb_per_s=25),
    "h100": Device(memory_gib=79.1, peak_tflops=989, node_gb_per_s=450, network_gb_per_s=50),
    "h200": Device(memory_gib=139.0, peak_tflops=989, node_gb_per_s=450, network_gb_per_s=50),
    "b200": Device(memory_gib=178.0, peak_tflops=2250, node_gb_per_s=900, network_gb_per_s=50),
}
