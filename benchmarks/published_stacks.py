"""What sets each published suite apart from our trainer, and the step time that follows for a row.

`STACKS` says what is known of a suite's transfers and kernels. `FACTORS` has one number for what the null model has one
number for: how much slower a software is on a kind of device than the roofline says. Both are fitted on the rows of
`fitted`, by `benchmarks/planner_time.py --fit`; everything else is the same for all suites.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.published import Case, by_suite
from parallelism.cost.devices import Family
from parallelism.cost.roofline import SPEEDS, Speed
from parallelism.cost.time import MEGATRON, Stack, step_time

STACKS: Mapping[str, Stack] = {
    # Waits for tensor parallel exchanges, unless the row says that they are asynchronous.
    "torchtitan": replace(MEGATRON, tensor=1.0, attention=2.107),
    # Waits for all exchanges; on AWS, whose network is not InfiniBand.
    "nanotron": replace(MEGATRON, tensor=1.0, data=0.0, links=replace(MEGATRON.links, network=0.499)),
    # The first Triton flash attention, with ALiBi.
    "LLM-Foundry": replace(MEGATRON, attention=1.637),
    # Attention without a flash kernel: the square of the sequence goes through memory.
    "Megatron-LM (Narayanan": replace(MEGATRON, tensor=1.0, attention=6.5),
    "BigScience": replace(MEGATRON, tensor=1.0, attention=6.5),
    "Korthikanti": replace(MEGATRON, attention=6.5),
    # Split tensor parallel exchanges hidden behind matmuls; keys and values travel around a ring behind attention.
    "Megatron-LM": replace(MEGATRON, tensor=0.3),
    "NeMo long-sequence": replace(MEGATRON, tensor=0.3, context=0.3, attention=0.797),
    "NeMo": replace(MEGATRON, tensor=0.3, context=0.3),
    "Megatron-Bridge": replace(MEGATRON, tensor=0.3, context=0.3),
}
"""By how the suite's name begins, the first that fits; others as our trainer."""

FACTORS: Mapping[tuple[str, ...], float] = {
    ("Megatron-LM", "H100-80GB", "bf16"): 0.923,
    ("Korthikanti 2022 (Table 5)", "A100-80GB", "fp16"): 1.012,
    ("torchtitan", "H100-96GB-HBM2e-500W", "fp8"): 0.954,
    ("torchtitan", "H100-96GB-HBM2e-500W", "bf16"): 1.137,
    ("torchtitan", "H100-96GB-HBM2e-500W", "fp8-tensorwise"): 1.005,
    ("torchtitan", "H100-96GB-HBM2e-500W", "fp8-rowwise"): 1.434,
    ("torchtitan", "H200-141GB", "fp8"): 0.967,
    ("LLM-Foundry", "H100-80GB", "amp_bf16"): 1.201,
    ("LLM-Foundry", "H100-80GB", "amp_fp8"): 1.196,
    ("LLM-Foundry", "A100-80GB", "bf16"): 1.000,
    ("LLM-Foundry", "A100-80GB", "amp_bf16"): 1.068,
    ("LLM-Foundry", "A100-40GB", "bf16"): 1.000,
    ("Megatron-Bridge", "blackwell", "fp8", "experts", "since 26.06"): 0.795,
    ("Megatron-Bridge", "blackwell", "fp8", "dense"): 1.068,
    ("Megatron-Bridge", "hopper", "fp8", "experts", "since 26.06"): 0.737,
    ("Megatron-Bridge", "blackwell", "fp4", "dense"): 1.000,
    ("Megatron-Bridge", "blackwell", "fp8", "experts", "26.02.01"): 0.954,
    ("Megatron-Bridge", "hopper", "fp8", "experts", "26.02.01"): 0.731,
    ("Megatron-Bridge", "blackwell", "fp8", "experts", "until 26.02"): 1.000,
    ("Megatron-Bridge", "hopper", "fp8", "experts", "until 26.02"): 0.981,
    ("Megatron-Bridge", "blackwell", "bf16", "experts", "until 26.02"): 0.792,
    ("NeMo 24.07", "DGX-H100", "fp8"): 0.993,
    ("NeMo long-sequence", "DGX-B200", "fp8"): 1.332,
    ("NeMo long-sequence", "DGX-H100", "fp8"): 1.227,
    ("nanotron v0.5", "H100-80GB", "bf16"): 1.025,
    ("BigScience Megatron-DeepSpeed", "A100-80GB", "bf16"): 1.016,
    ("SimuMax B200 (real)", "B200", "bf16"): 1.140,
}
"""By `Case.software`; a software that is not here has the median of its suite, and a new suite 1."""


def fitted(case: Case) -> bool:
    """Says whether the constants are fitted on a row: half of the configurations, by their digest."""
    layout = case.layout
    key = f"{case.suite}|{case.model}|{case.gpu}|{case.dtype}|{layout.seq_length}|{layout.describe()}"
    return not case.recalled and hashlib.sha256(key.encode()).digest()[0] % 2 == 0


def predict(
    case: Case,
    *,
    factor: float = 1.0,
    speeds: Mapping[Family, Speed] = SPEEDS,
    stacks: Mapping[str, Stack] = STACKS,
    stack: Stack = MEGATRON,
) -> float:
    """Returns the seconds of a step of a row; `stack` is of suites that `stacks` does not name."""
    stack = by_suite(stacks, case.suite, stack)
    stack = replace(stack, tensor=0.3) if case.asynchronous else stack
    found = step_time(
        case.even_shape,
        layout=case.layout,
        vocab_size=case.vocab_size,
        device=case.device,
        matmul=case.matmul,
        stack=stack,
        speed=speeds[case.device.family],
        shard_parameters=case.shard_parameters,
    )
    return factor * found.step


def committed_factor(case: Case) -> float:
    """Returns the factor of a row's software."""
    if case.software in FACTORS:
        return FACTORS[case.software]
    same = sorted(factor for software, factor in FACTORS.items() if software[0] == case.suite)
    return same[len(same) // 2] if same else 1.0
