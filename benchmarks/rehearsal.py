"""Rehearsals beside the planner and beside reality: `.venv/bin/python -m benchmarks.rehearsal`.

Writes docs/benchmarks/rehearsal.md: 256 ranks of two models, and what toy stages in real processes allocate, counted by
torch's own profiler.
"""

import gc
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks share the cores

from jobs._plan_view import SECTIONS
from jobs._rehearsal import rehearse
from jobs._run import load
from jobs.pretrain import PretrainConfig
from parallelism import device
from parallelism.layout import Layout, Precision
from parallelism.presets import VOCAB_SIZES, preset

GIB = 2**30
PAGE = Path(__file__).parents[1] / "docs/benchmarks/rehearsal.md"
PP4: Mapping[str, Any] = {"pipeline_model_parallel_size": 4, "micro_batch_size": 1, "global_batch_size": 4096}
TP8_PP4: Mapping[str, Any] = {
    "tensor_model_parallel_size": 8,
    "pipeline_model_parallel_size": 4,
    "virtual_pipeline_model_parallel_size": None,
    "micro_batch_size": 1,
}
RUNS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("dense_32b", TP8_PP4),
    ("gravity_16b_a3b", {}),
    ("gravity_16b_a3b", PP4),
    ("gravity_16b_a3b", {**PP4, "tensor_model_parallel_size": 2, "sequence_parallel": True}),
)
HEAD = """# Rehearsals

`.venv/bin/python -m benchmarks.rehearsal` made this page, on two cores without a GPU; `python -m jobs rehearse <run>`
makes the first tables for any run, `--ranks` prints every rank.

Every distinct rank does one optimizer step with the trainer's own functions and Megatron's schedule on tensors without
data. One rank stands for its pipeline stage: all others of the stage do the same operations on the same shapes (a test
rehearses each of them). The optimizer's shards may differ; the fullest is shown. Tokens are taken to be spread evenly:
tokens x top-k / experts for each expert. GiB are of tensors alone: the driver's context, communication buffers,
workspaces of matmul libraries and fragmentation come on top. Kernels are those of a GPU: flash attention, RMSNorm and
SwiGLU in one kernel each. FLOPs are of matmuls, forward and backward; those inside attention are not counted. "Left
out" are exchanges of a few bytes, which the planner leaves out: the gradients' norm, tokens, the loads of experts.

A step with more than twice as many microbatches as stages is taken from two steps, with one and with two microbatches
a stage: each further one adds the same (a test compares with all of them).
"""
TOY_HEAD = """## Beside real processes

The same step in real processes (gloo, one thread each), with what torch's CPU allocator notes in the profiler: every
allocation and every end of one, from building the model to the end of the step. Here kernels are those of the CPU, and
attention works in tiles.
"""
TOY_TAIL = """\
What a kernel allocates for itself while it runs is not rehearsed. Where experts are spread over ranks, real routers of
a fresh model are not even: the rank with more tokens has more. Under tensor parallel with sequence parallel real ranks
had 4 to 19 % more, another amount in each run: gloo's all-gather and reduce-scatter work on a flat copy of the whole
tensor (measured: one of equal size for each call, none for all-reduce, send and receive), which seems to live until a
thread of gloo is done with it. The rehearsal has no such copies; that they are all of the difference was not shown.
"""
SHARED: Mapping[str, Any] = {
    "seed": 1,
    "data_digest": "",
    "mixture": {"tokens": 1.0},
    "lr": 1e-3,
    "min_lr": 1e-4,
    "lr_decay_style": "cosine",
    "lr_warmup_iters": 2,
    "lr_decay_iters": 100,
    "lr_wsd_decay_iters": 0,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "clip_grad": 1.0,
}
TOYS: Mapping[str, tuple[str, Precision, Mapping[str, Any]]] = {
    "dense, fp32, PP2": ("demo", "fp32", {}),
    "dense, bf16, PP2": ("demo", "bf16", {}),
    "dense, fp32, PP2 TP2 SP": ("demo", "fp32", {"tensor_model_parallel_size": 2, "sequence_parallel": True}),
    "dense, fp32, PP2 VP2 DP2": ("demo", "fp32", {"virtual_pipeline_model_parallel_size": 2, "world_size": 4}),
    "dense, fp32, PP2, full recompute": ("demo", "fp32", {"recompute_granularity": "full"}),
    "latent and experts, fp32, PP2": ("demo_moe", "fp32", {}),
    "latent and experts, bf16, PP2": ("demo_moe", "bf16", {}),
    "latent and experts, fp32, PP2 TP2 SP": (
        "demo_moe",
        "fp32",
        {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    ),
    "latent and experts, fp32, PP2 EP2": ("demo_moe", "fp32", {"expert_model_parallel_size": 2, "world_size": 4}),
}


def toy(model: str, *, precision: Precision, **sizes: Any) -> tuple[Any, Layout]:
    """Returns the recipe and the layout of a toy with two stages."""
    from parallelism.learner import Recipe

    usual = {"pipeline_model_parallel_size": 2, "seq_length": 256, "micro_batch_size": 4, "global_batch_size": 32}
    sizes = {**usual, **sizes}
    sizes.setdefault("world_size", 2 * sizes.get("tensor_model_parallel_size", 1))
    layout = Layout(**sizes)
    batch: dict[str, Any] = {"seq_length": layout.seq_length, "global_batch_size": layout.global_batch_size}
    recipe = Recipe(shape=preset(model), vocab_size=VOCAB_SIZES[model], precision=precision, **batch, **SHARED)
    return recipe, layout


def allocated(recipe: Any, layout: Layout) -> list[int]:
    """Returns the most bytes that each real rank had allocated at once: building and one step, in forked processes.

    Counted from the records that torch's CPU allocator leaves in its profiler, one for each allocation and each end.
    """
    import torch
    from torch.multiprocessing.spawn import start_processes

    queue = torch.multiprocessing.get_context("fork").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; ranks use none of these
        meeting = f"file://{folder}/meet"
        gc.collect()
        arguments = (recipe, layout, meeting, queue)
        ranks = start_processes(_rank, arguments, nprocs=layout.world_size, join=False, start_method="fork")
        while not ranks.join():
            pass
    found = dict(queue.get() for _ in range(layout.world_size))
    return [found[rank] for rank in range(layout.world_size)]


def _rank(rank: int, recipe: Any, layout: Layout, meeting: str, queue: Any) -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile

    from parallelism import groups, launch, learner, rehearsal

    gc.freeze()  # what the parent left is the parent's to end
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    here = launch.Place(rank=rank, world_size=layout.world_size, local_rank=rank, rendezvous=meeting)
    with launch.joined(here), device.stand_in(), groups.made(layout):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            built = learner.build(recipe, layout=layout)
            rehearsal.one_step(built, recipe=recipe, layout=layout, microbatches=layout.num_microbatches)
        events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
        live = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
    queue.put((rank, peak))


def reality() -> list[str]:
    """Returns the rows of the toys, which are real processes too."""
    from parallelism.rehearsal import rehearse as ranks_of

    rows = ["| toy | rank | rehearsed, bytes | allocated, bytes | differs |", "|---|---|---|---|---|"]
    for name, (model, precision, sizes) in TOYS.items():
        recipe, layout = toy(model, precision=precision, **sizes)
        real = allocated(recipe, layout)
        every = ranks_of(recipe, layout=layout, kernels="cpu", processes=2, ranks=range(layout.world_size), whole=True)
        for seen in sorted(every, key=lambda seen: seen.rank):
            counted = seen.peak_on(seen.rank % len(seen.optimizer_bytes))
            differs = counted / real[seen.rank] - 1
            rows.append(f"| {name} | {seen.rank} | {counted:,} | {real[seen.rank]:,} | {differs:+.3%} |")
    return rows


def large() -> list[str]:
    """Returns the tables of the models on 256 ranks."""
    lines = []
    for run, changes in RUNS:
        started = time.perf_counter()
        loaded, _ = load(run, "b200-cloud", only=SECTIONS)
        section = cast(PretrainConfig, loaded.sections["pretrain"]).model_copy(update=changes)
        found = rehearse(section, vocab_size=VOCAB_SIZES[section.model], processes=2)
        seconds, layout = time.perf_counter() - started, section.layout
        note = f"{layout.num_microbatches} microbatch(es) of {layout.seq_length} tokens"
        lines += [f"## {section.model}: {layout.describe()}, {note}", ""]
        lines += [f"{layout.world_size} ranks in {seconds:.0f} s on two cores, imports included.", ""]
        lines += [*memory_rows(found), "", *exchange_rows(found), ""]
    return lines


def memory_rows(found: Mapping[str, Any]) -> list[str]:
    """Returns a row for each class of ranks."""
    rows = [
        "| ranks | parameters | weights | gradients | optimizer | activations | peak | planner | differs | TFLOP |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for stage in found["stages"]:
        sizes = (
            *(stage["parameter_bytes"], stage["gradient_bytes"], max(stage["optimizer_bytes"])),
            *(stage["activation_bytes"], stage["peak_bytes"], stage["planned"]["peak"]),
        )
        cells = " | ".join(f"{size / GIB:.3f}" for size in sizes)
        first, last = stage["ranks"]
        tflop = f"{stage['matmul_flops'] / 1e12:,.1f}"
        rows.append(f"| {first}-{last} | {stage['parameters']:,} | {cells} | {stage['difference']:+.2%} | {tflop} |")
    return rows


def exchange_rows(found: Mapping[str, Any]) -> list[str]:
    """Returns a row for each kind of exchange of each class of ranks."""
    rows = [
        "| ranks | group | of ranks | operation | calls | bytes | planner's bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage in found["stages"]:
        first, last = stage["ranks"]
        for item in stage["exchanges"]:
            planned = f"{item['planned']['bytes']:,}" if item["planned"] else "left out"
            what = f"{item['group']} | {item['members']} | {item['operation']} | {item['calls']:,} | {item['bytes']:,}"
            rows.append(f"| {first}-{last} | {what} | {planned} |")
    return rows


def main() -> None:
    lines = [HEAD, *large(), TOY_HEAD, *reality(), "", TOY_TAIL]
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
