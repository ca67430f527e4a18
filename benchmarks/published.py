"""Rows of published training throughput, read as models, layouts and devices; or why a row cannot be.

What a row leaves out takes a default, which is told here and nowhere else: sizes of parallelism 1; data parallel size
what is left of the GPUs (a printed one that contradicts them is not used); pipeline stages, where the field is empty,
the fewest that hold parameters, gradients and optimizer in half of the memory; micro batch 1; global batch one
microbatch for each copy of the model, with pipeline stages eight for each stage; one chunk of the model on each stage,
but two where neither micro batch nor chunks are printed; the distributed optimizer; no recomputation.
Layers that stages do not divide are rounded up, since the fullest stage decides.
"""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.published_models import KNOWN
from parallelism.cost.devices import DEVICES, Device, Matmul
from parallelism.cost.flops import CAUSAL, HARDWARE_SQUARE, SQUARE, Convention, flops_per_token
from parallelism.layout import Layout, divisors
from parallelism.presets import ModelShape

Row = Mapping[str, str]

COLUMNS = (
    *("id", "source_suite", "model", "kind", "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "gated_mlp"),
    *("seq", "gbs", "mbs", "n_gpus", "gpu", "tp", "pp", "vp", "cp", "ep", "fsdp_zero", "recompute", "dtype"),
    *("iter_time_s", "tokens_per_s_per_gpu", "tflops_per_gpu", "mfu_pct", "notes", "evidence"),
)
"""What is read of a row; a missing column is as an empty field."""

GPUS = (
    ("GB300", "gb300"),
    ("GB200", "gb200"),
    ("GH200", "gh200"),
    ("B300", "b300"),
    ("B200", "b200"),
    ("H200", "h200"),
    ("H100-96GB", "h100_96gb"),
    ("H100-PCIE", "h100_pcie"),
    ("H100", "h100"),
    ("A100-40GB-PCIE", "a100_40gb_pcie"),
    ("A100-PCIE-40GB", "a100_40gb_pcie"),
    ("A100-80GB-PCIE", "a100_80gb_pcie"),
    ("A100-PCIE", "a100_80gb_pcie"),
    ("A100-40GB", "a100_40gb"),
    ("A100", "a100_80gb"),
)
"""First part that a row's GPU contains decides."""

CONVENTIONS: Mapping[str, Convention] = {
    "Megatron-Bridge": CAUSAL,
    "MaxText": CAUSAL,
    "NeMo": SQUARE,
    "LLM-Foundry": SQUARE,
    "nanotron": SQUARE,
    "Megatron-LM (Narayanan": HARDWARE_SQUARE,
    "Megatron-LM": SQUARE,
    "BigScience": HARDWARE_SQUARE,
}
"""How each suite counts FLOPs, by how its name begins (the first that fits); others: full square."""

PLAIN_TENSOR = ("Megatron-LM (Narayanan", "BigScience")
"""Suites from before sequence parallelism."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row that can be predicted.

    Attributes:
        shape: as printed; `layout` may need more layers (`even_shape`).
        measured: seconds of one step.
        asynchronous: its tensor parallel exchanges are split and hidden, which the row says.
        printed_tflops: per GPU, by `convention`; 0 where none is printed.
        tokens_per_s: per GPU, where printed; else 0.
        recalled: the row was written down from memory, at least in part: shown, never a gate.
        release: of the container, such as 26.02.01; empty where none is named.
    """

    id: str
    suite: str
    model: str
    gpu: str
    dtype: str
    shape: ModelShape
    vocab_size: int
    layout: Layout
    device: Device
    matmul: Matmul
    asynchronous: bool
    shard_parameters: bool
    convention: Convention
    measured: float
    printed_tflops: float
    tokens_per_s: float
    recalled: bool
    release: str

    @property
    def group(self) -> tuple[str, str, str]:
        """What the null model has one number for."""
        return (self.suite, self.gpu, self.dtype)

    @property
    def software(self) -> tuple[str, ...]:
        """What the fitted model has one factor for: as the null model, but one for a whole generation of devices.

        Megatron-Bridge prints its releases on six devices in ten number formats; its factors are by generation of
        devices, format of matmuls, experts or none, and release (experts became faster in 26.02.01 and in 26.06).
        """
        if not self.suite.startswith("Megatron-Bridge"):
            return self.group
        if not self.shape.experts:
            return (self.suite, self.device.family, self.matmul, "dense")
        release = "since 26.06" if self.release >= "26.06" else "26.02.01" if self.release > "26.02" else "until 26.02"
        return (self.suite, self.device.family, self.matmul, "experts", release)

    @property
    def even_shape(self) -> ModelShape:
        """The model with as many layers as its stages divide."""
        parts = self.layout.pipeline_model_parallel_size * self.layout.num_model_chunks
        return replace(self.shape, num_layers=-(-self.shape.num_layers // parts) * parts)

    @property
    def flops(self) -> int:
        """FLOPs per token by the suite's convention."""
        return flops_per_token(
            self.shape, seq_length=self.layout.seq_length, vocab_size=self.vocab_size, convention=self.convention
        )

    @property
    def tflops(self) -> float:
        """Measured TFLOP/s per GPU by the suite's convention."""
        tokens = self.layout.global_batch_size * self.layout.seq_length / self.layout.world_size
        return tokens * self.flops / self.measured / 1e12


class Unpredictable(Exception):  # noqa: N818 - a row's fate, not a mistake
    """Why a row cannot be predicted."""


def read(path: Path) -> tuple[list[Case], list[tuple[Row, str]]]:
    """Returns the rows of a file that can be predicted, and the others with the reason."""
    cases: list[Case] = []
    left: list[tuple[Row, str]] = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                cases.append(case(row))
            except Unpredictable as reason:
                left.append((row, str(reason)))
    return cases, left


def case(row: Row) -> Case:
    """Returns a row as a case.

    Raises:
        Unpredictable: the row lacks something that has no default, or is of a kind that is not modelled.
    """
    row = {name: row.get(name) or "" for name in COLUMNS}
    _refuse_kinds(row)
    device, matmul = _device(row), _matmul(row)
    if matmul != "bf16" and getattr(device, f"{matmul}_tflops") is None:
        raise Unpredictable("the device has no matmul of that number format")
    shape, vocab_size = _shape(row)
    suite = row["source_suite"]
    convention = by_suite(CONVENTIONS, suite, SQUARE)
    layout = _layout(row, shape)
    flops = flops_per_token(shape, seq_length=layout.seq_length, vocab_size=vocab_size, convention=convention)
    return Case(
        id=row["id"],
        suite=suite,
        model=row["model"],
        gpu=row["gpu"],
        dtype=row["dtype"],
        shape=shape,
        vocab_size=vocab_size,
        layout=layout,
        device=device,
        matmul=matmul,
        asynchronous="async" in row["notes"].lower(),
        shard_parameters=_sharded(row),
        convention=convention,
        measured=_measured(row, layout=layout, flops=flops, device=device),
        printed_tflops=_number(row, "tflops_per_gpu"),
        tokens_per_s=_number(row, "tokens_per_s_per_gpu"),
        recalled="RECALLED" in row["evidence"].upper(),
        release=_release(row),
    )


def _refuse_kinds(row: Row) -> None:
    text = f"{row['model']} {row['notes']} {row['dtype']}"
    if "LoRA" in text:
        raise Unpredictable("LoRA: most weights are frozen")
    if "ESM" in row["model"] or "THD" in row["dtype"]:
        raise Unpredictable("an encoder on unpadded tokens")
    if "Nemotron_3" in row["model"] or "Nemotron-H" in row["model"] or "mamba" in text.lower():
        raise Unpredictable("a hybrid with state-space layers")
    if not _number(row, "n_gpus"):
        raise Unpredictable("the number of GPUs is not given")
    if not _number(row, "seq"):
        raise Unpredictable("the sequence length is not given")


def _device(row: Row) -> Device:
    name = row["gpu"].upper().replace(" ", "-").replace("_", "-")
    for part, device in GPUS:
        if part in name:
            return DEVICES[device]
    raise Unpredictable(f"no data sheet for {row['gpu']}")


def _matmul(row: Row) -> Matmul:
    name = row["dtype"].lower()
    for part, matmul in (("fp4", "fp4"), ("fp8", "fp8"), ("bf", "bf16"), ("16", "bf16")):
        if part in name:
            return matmul  # type: ignore[return-value]  # the loop's strings are the formats
    raise Unpredictable(f"no such number format: {row['dtype'] or 'none given'}")


def _shape(row: Row) -> tuple[ModelShape, int]:
    if row["layers"] and row["hidden"] and row["heads"] and row["kind"] == "dense":
        hidden, heads = int(_number(row, "hidden")), int(_number(row, "heads"))
        ffn, gated = int(_number(row, "ffn") or 4 * hidden), _number(row, "gated_mlp") == 1
        shape = ModelShape(
            num_layers=int(_number(row, "layers")),
            hidden_size=hidden,
            # An MLP without a gate has two matmuls in place of three: as many parameters, FLOPs and bytes.
            ffn_hidden_size=ffn if gated else round(2 * ffn / 3),
            num_attention_heads=heads,
            num_query_groups=int(_number(row, "kv_heads") or heads),
            kv_channels=hidden // heads,
            max_position_embeddings=int(_number(row, "seq")),
        )
        return shape, int(_number(row, "vocab") or 51_200)
    name = row["model"].lower().replace("-", "_").replace(" ", "_")
    for part, (shape, vocab_size) in KNOWN.items():
        if name.startswith(part):
            return (replace(shape, num_layers=int(_number(row, "layers"))) if row["layers"] else shape), vocab_size
    raise Unpredictable("the model's sizes are not given")


def _layout(row: Row, shape: ModelShape) -> Layout:
    tensor, context, expert = (int(_number(row, name) or 1) for name in ("tp", "cp", "ep"))
    world = int(_number(row, "n_gpus"))
    pipeline = int(_number(row, "pp")) or _fewest_stages(row, shape, left=world // (tensor * context))
    model = tensor * pipeline * context
    if world % model:
        raise Unpredictable("tensor x pipeline x context does not divide the GPUs")
    copies = world // model
    micro, batch = _batch(row, copies=copies, pipeline=pipeline)
    silent = not _number(row, "mbs") or "interleaved" in row["notes"].lower()
    chunks = int(_number(row, "vp") or (2 if silent else 1))
    return Layout(
        world_size=world,
        global_batch_size=batch,
        seq_length=int(_number(row, "seq")),
        micro_batch_size=micro,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        virtual_pipeline_model_parallel_size=chunks if chunks > 1 and pipeline > 1 else None,
        context_parallel_size=context,
        expert_model_parallel_size=expert if shape.experts else 1,
        sequence_parallel=tensor > 1 and _sequence_parallel(row),
        use_distributed_optimizer=row["fsdp_zero"] != "ZeRO-0",
        recompute_granularity="full" if row["recompute"].startswith("full") else None,
    )


def _fewest_stages(row: Row, shape: ModelShape, *, left: int) -> int:
    """The fewest stages that hold the model's state: 6 bytes a parameter and 12 shared by its copies."""
    if shape.experts or _sharded(row):
        return 1
    tensor, memory = int(_number(row, "tp") or 1), 0.5 * 2**30 * _device(row).memory_gib
    whole = shape.parameters(int(_number(row, "vocab") or 51_200)) / tensor
    for stages in divisors(max(1, left)):
        if shape.num_layers % stages == 0 and whole / stages * (6 + 12 * stages / left) <= memory:
            return stages
    return 1


def _batch(row: Row, *, copies: int, pipeline: int) -> tuple[int, int]:
    """(micro batch, global batch); torchtitan's local batch is cut into as many microbatches as there are stages."""
    micro = int(_number(row, "mbs") or 1)
    local = row["source_suite"] == "torchtitan" and pipeline > 1
    batch = int(_number(row, "gbs") or micro * copies * (1 if local or pipeline == 1 else 8 * pipeline))
    if batch % copies:
        raise Unpredictable("the copies of the model do not divide the global batch")
    if local:
        micro = max(1, micro // pipeline)
    return math.gcd(micro, batch // copies), batch


def _sequence_parallel(row: Row) -> bool:
    text = f"{row['notes']} {row['recompute']}".lower()
    return "no sequence parallelism" not in text and not row["source_suite"].startswith(PLAIN_TENSOR)


def _sharded(row: Row) -> bool:
    return any(word in row["fsdp_zero"].upper() for word in ("FSDP", "SHARD", "ZERO-3"))


def _measured(row: Row, *, layout: Layout, flops: int, device: Device) -> float:
    if _number(row, "iter_time_s"):
        return _number(row, "iter_time_s")
    tokens = layout.global_batch_size * layout.seq_length / layout.world_size
    if _number(row, "tokens_per_s_per_gpu"):
        return tokens / _number(row, "tokens_per_s_per_gpu")
    rate = 1e12 * _number(row, "tflops_per_gpu")
    rate = rate or 1e12 * device.peak_tflops * _number(row, "mfu_pct") / 100
    if not rate:
        raise Unpredictable("no time, tokens/s, TFLOP/s or MFU is given")
    return tokens * flops / rate


def _release(row: Row) -> str:
    """The container's release, such as 26.02.01; empty where none is named."""
    found = re.search(r"(\d\d\.\d\d(\.\d+)?) (?:NeMo )?[Cc]ontainer", row["notes"])
    return found[1] if found else ""


def by_suite[T](found: Mapping[str, T], suite: str, other: T) -> T:
    """Returns what is found under how the suite's name begins."""
    return next((value for name, value in found.items() if suite.startswith(name)), other)


def _number(row: Row, name: str) -> float:
    """The number in a field, 0 where it is empty, missing or not a number."""
    try:
        return float(row.get(name) or 0)
    except ValueError:
        return 0.0
