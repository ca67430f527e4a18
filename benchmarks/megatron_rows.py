"""Rows of Megatron-LM's own functional tests as this planner's inputs: what a row says, and what its recipe implies.

A row gives the sizes of a test case and the memory that its last rank measured. The rest of the command line follows
from the conventions of these recipes (github.com/NVIDIA/Megatron-LM, tests/functional_tests/test_cases), written down
in this file, and from the name of the case. A case that this planner does not plan has a reason instead.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from parallelism.cost.kernels import MIB, Kernels
from parallelism.cost.memory import Memory, stage_memory
from parallelism.layout import Layout
from parallelism.presets import Experts, ModelShape

GPT2_VOCAB = 50_257
VOCAB_MULTIPLE = 128
"""The tables are padded to a multiple of this times tensor_model_parallel_size."""
USUAL_GPUS = 8
"""Of a recipe that gives no number: these tests run on one node."""

PLANNED_SUITES = ("gpt", "moe", "mixtral")
NOT_PLANNED: Mapping[str, str] = {
    "zp_z3": "parameters sharded by FSDP",
    "fsdp": "parameters sharded by FSDP",
    "mla": "widths of latent attention are not in the row",
    "deepseek": "widths of latent attention are not in the row",
    "uneven": "layers divided unevenly over stages",
    "account_for_embedding": "layers divided unevenly over stages",
    "grpo": "reinforcement learning, with an inference engine in the same memory",
    "muon": "another optimizer than Adam",
    "offload": "activations moved to the host",
    "cudagraph": "CUDA graphs, which hold memory of their own",
    "gpt3_moe_mcore": "the width of an expert is not in the row",
    "15b_8t": "its vocabulary and its number of GPUs are not in the row",
}
"""Words in the name of a case that this planner does not plan, and why."""

TRANSFORMER_ENGINE = Kernels(
    norm_statistics=8,
    mlp_tensors=2,
    expert_tensors=3,
    mlp_matrices=2,
    rotary=False,
    dropout=True,
    biases=True,
    learned_positions=True,
    boundaries=0,
)
"""The GPT of these tests: LayerNorm, GELU, biases, learned positions and dropout, in TransformerEngine's kernels."""

SQUARE_BYTES = 5
"""Unfused attention keeps of every score the probability (2), the dropout mask (1) and what is left of it (2)."""
CUBLAS_LARGE = 32 * MIB
CUBLAS = 8 * MIB + 128 * 1024
"""PyTorch's workspace for each thread that multiplies: what deterministic tests set, as on Hopper; and its default."""
TE_WORKSPACE: Mapping[bool, int] = {True: 4 * MIB, False: 32 * MIB}
"""TransformerEngine's own workspace, on an A100 or not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: a case on a platform."""

    suite: str
    case: str
    env: str
    platform: str
    fields: Mapping[str, str]

    def number(self, name: str, default: int = 0) -> int:
        """Returns a whole number, or the default where the row has none."""
        return int(float(self.fields.get(name) or default))

    def flag(self, name: str) -> bool:
        """Says whether a yes-or-no field is set."""
        return self.fields.get(name) == "True"

    @property
    def is_a100(self) -> bool:
        return "a100" in self.platform

    @property
    def is_h100(self) -> bool:
        return "h100" in self.platform

    @property
    def is_local(self) -> bool:
        """Megatron's own layers instead of TransformerEngine's."""
        return "mcore_tp" in self.case


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row as the planner's input."""

    shape: ModelShape
    layout: Layout
    kernels: Kernels
    vocab_size: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the last rank should measure: bytes between steps and bytes at the peak."""

    state: int
    peak: int
    memory: Memory


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a file that have both measurements."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Row(suite=row["suite"], case=row["case"], env=row["env"], platform=row["platform"], fields=row)
        for row in rows
        if row["mem_alloc_bytes_last"] and row["mem_max_bytes"]
    ]


def refusal(row: Row) -> str | None:
    """Returns why this planner does not plan a row, or None."""
    if row.suite not in PLANNED_SUITES:
        return f"another architecture: {row.suite}"
    named = (reason for word, reason in NOT_PLANNED.items() if word in row.case)
    return next(chain(named, _lacking(row)), None)


def _lacking(row: Row) -> Iterator[str]:
    """What of a row speaks against it, beside its name."""
    if not all(row.number(name) for name in ("layers", "hidden", "heads", "seq")):
        yield "its sizes are not in the row"
    if row.flag("config_changed_after_golden"):
        yield "its recipe changed after it was measured"
    if row.fields.get("fp8"):
        yield "fp8"
    if row.fields.get("recompute") == "selective":
        yield "what is computed again is not in the row"
    if "release" in row.case and not row.fields.get("nodes"):
        yield "its number of GPUs is not in the row"
    chunk = row.number("pp", 1) * _chunks(row)
    if not chunk or row.number("layers") % chunk:
        yield "layers divided unevenly over stages"


def plan(row: Row) -> Case:
    """Returns the planner's input for a row without refusal."""
    tensor = row.number("tp", 1)
    multiple = VOCAB_MULTIPLE * tensor
    vocab_size = row.number("vocab", GPT2_VOCAB)
    return Case(
        shape=_shape(row),
        layout=_layout(row),
        kernels=_kernels(row),
        vocab_size=-(-vocab_size // multiple) * multiple,
    )


def predict(row: Row) -> Prediction:
    """Returns what the last rank should measure.

    Between steps it holds its state, the libraries' workspaces and, in a pipeline, the last microbatch's mask and the
    tensors received; at the peak the mask and the activations instead. Megatron's own layers without the distributed
    optimizer leave gradients in the precision of the parameters, in fp16 twice: measured, its cause is not known.
    """
    case = plan(row)
    layout = case.layout
    memory = stage_memory(
        case.shape, layout=layout, vocab_size=case.vocab_size, precision="bf16", kernels=case.kernels
    )[-1]
    mask = 0 if "no_create_attention_mask" in row.case else layout.micro_batch_size * layout.seq_length**2
    mask //= layout.context_parallel_size
    if "multi_dist_optimizer_instances" in row.case:  # two groups of ranks, each with a whole optimizer
        memory = replace(memory, optimizer=2 * memory.optimizer)
    boundary = 2 * layout.sharded_tokens * case.shape.hidden_size
    held = memory.state + memory.allowance
    left = mask + 2 * layout.num_model_chunks * boundary if layout.pipeline_model_parallel_size > 1 else 0
    if row.is_local and not layout.use_distributed_optimizer:
        left += memory.parameters * (1 if row.flag("bf16") else 2)
    return Prediction(state=held + left, peak=held + mask + memory.activations + memory.buffers, memory=memory)


def _shape(row: Row) -> ModelShape:
    hidden, heads = row.number("hidden"), row.number("heads")
    gated = row.flag("swiglu")
    usual = int(4 * hidden * 2 / 3 / 64) * 64 if gated else 4 * hidden
    ffn = row.number("ffn", usual)
    experts = row.number("experts")
    return ModelShape(
        num_layers=row.number("layers"),
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_attention_heads=heads,
        num_query_groups=row.number("kv_groups", heads),
        kv_channels=row.number("kv_channels", hidden // heads),
        max_position_embeddings=row.number("seq"),
        share_embeddings_and_output_weights=not row.flag("untied"),
        experts=Experts(
            num_moe_experts=experts,
            moe_router_topk=row.number("topk", 1),
            moe_ffn_hidden_size=ffn,
            moe_shared_expert_intermediate_size=0,
            first_k_dense=0,
        )
        if experts
        else None,
    )


def _layout(row: Row) -> Layout:
    tensor, pipeline, context = (row.number(name, 1) for name in ("tp", "pp", "cp"))
    micro, samples = row.number("mbs", 1), row.number("gbs", 1)
    size = tensor * pipeline * context
    gpus = row.number("nodes", 1) * row.number("gpus_per_node", USUAL_GPUS)
    copies = max(1, min(gpus // size, samples // micro))
    return Layout(
        world_size=copies * size,
        global_batch_size=samples,
        seq_length=row.number("seq"),
        micro_batch_size=micro,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        virtual_pipeline_model_parallel_size=_chunks(row) if _chunks(row) > 1 else None,
        context_parallel_size=context,
        expert_model_parallel_size=row.number("ep", 1),
        sequence_parallel=row.flag("sp") and tensor > 1,
        use_distributed_optimizer=row.flag("dist_opt"),
        recompute_granularity="full" if row.fields.get("recompute") == "full" else None,
    )


def _chunks(row: Row) -> int:
    """Model chunks of a rank: the row gives the layers of one."""
    layers, pipeline = row.number("vp_layers"), row.number("pp", 1)
    return row.number("layers") // (pipeline * layers) if layers and pipeline > 1 else 1


def _kernels(row: Row) -> Kernels:
    gated = row.flag("swiglu")
    kernels = replace(
        TRANSFORMER_ENGINE,
        mlp_tensors=3 if gated else 2,
        mlp_matrices=3 if gated else 2,
        biases="disable_bias" not in row.case and not row.number("experts"),
        learned_positions="rope" not in row.case,
        dropout=row.number("cp", 1) == 1,
        expert_tensor_parallel_size=_expert_tensor(row),
        logits_fp32=2 if "cross_entropy_loss_fusion" in row.case else 1,
        workspace=_workspace(row),
    )
    if _keeps_scores(row):
        return replace(kernels, score_bytes=SQUARE_BYTES)
    return kernels if row.is_h100 else replace(kernels, score_copies=1)


def _keeps_scores(row: Row) -> bool:
    """Says whether attention keeps the square matrix, as Megatron's own layer does.

    Deterministic tests that do not resume ask for it. Before TransformerEngine had deterministic kernels without it,
    all deterministic ones did: on the two clusters named dracooci, and where a retired case has a value of the
    long-term release.
    """
    if row.is_local:
        return True
    old = "dracooci" in row.platform or (row.env == "lts" and not row.fields.get("nodes"))
    asked = "mcore_te_" in row.case and "resume" not in row.case
    return row.flag("deterministic") and (old or asked)


def _expert_tensor(row: Row) -> int:
    """Over how many ranks an expert is divided: as the name says, or else as everything is."""
    found = re.search(r"etp(\d)", row.case)
    return int(found[1]) if found else row.number("tp", 1)


def _workspace(row: Row) -> int:
    """Two threads multiply, forward and backward, each with a workspace of cuBLAS; TransformerEngine has its own.

    Its grouped matmuls, which experts use unless the name is that of the tests without, have four more.
    """
    cublas = CUBLAS_LARGE if row.flag("deterministic") or row.is_h100 else CUBLAS
    grouped = row.number("experts") and "experts2parallel_dist_optimizer" not in row.case
    own = 0 if row.is_local else (5 if grouped else 1) * TE_WORKSPACE[row.is_a100]
    return 2 * cublas + own


def errors(rows: Iterable[Row]) -> list[tuple[Row, float, float]]:
    """Returns (row, relative error of the state, relative error of the peak) for each row that is planned."""
    found = []
    for row in rows:
        if refusal(row) is None:
            prediction = predict(row)
            state, peak = row.number("mem_alloc_bytes_last"), row.number("mem_max_bytes")
            found.append((row, prediction.state / state - 1, prediction.peak / peak - 1))
    return found
