"""Losses under every layout, and of trainings that go on under another one: the largest difference, as a table.

    python -m benchmarks.layouts [--shape dense] [--update-docs]

A toy model is trained for 8 steps by one process in fp32. Then every layout trains 4 steps, and every layout goes on
from there, with weights and moments, for 4 more. A cell is the largest difference in nats between any of
these 8 losses and that of the one process. Ranks are real processes on CPUs.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks share the cores

from parallelism import device

device.prepare()

from jobs._run import ROOT  # noqa: E402 - Megatron is prepared above
from parallelism.layout import Layout, problems  # noqa: E402
from parallelism.presets import Experts, LatentAttention, ModelShape  # noqa: E402
from tests.parallelism.conftest import GLOBAL_BATCH_SIZE, SEQ_LENGTH, SHAPE, starter  # noqa: E402

DOC = ROOT / "docs" / "benchmarks" / "layouts.md"
START, END = "<!-- {} -->", "<!-- end of {} -->"
STEPS, SAVED = 8, 4
LATENT = LatentAttention(kv_lora_rank=16, qk_head_dim=8, qk_pos_emb_head_dim=4, v_head_dim=8)
EXPERTS = Experts(num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=32, moe_shared_expert_intermediate_size=32)
SHAPES: Mapping[str, tuple[ModelShape, str]] = {
    "dense": (SHAPE, "4 layers, hidden size 32, 4 heads in 2 groups"),
    "tied": (
        replace(SHAPE, share_embeddings_and_output_weights=True, add_qkv_bias=True),
        "the same with tied tables and biases",
    ),
    "experts": (
        replace(SHAPE, num_query_groups=4, latent=LATENT, experts=EXPERTS),
        "the same with latent attention, and 4 experts, 2 of them for a token, after the first layer",
    ),
}
TP2, PP2 = {"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}
LAYOUTS: Mapping[str, tuple[int, dict[str, Any]]] = {
    "1": (1, {}),
    "TP2": (2, TP2),
    "PP2": (2, PP2),
    "DP2": (2, {}),
    "CP2": (2, {"context_parallel_size": 2}),
    "EP2": (2, {"expert_model_parallel_size": 2}),
    "TP2 PP2": (4, {**TP2, **PP2}),
    "TP2 DP2 SP": (4, {**TP2, "sequence_parallel": True}),
    "PP2 VPP2": (2, {**PP2, "virtual_pipeline_model_parallel_size": 2}),
    "TP2 EP2 SP": (4, {**TP2, "sequence_parallel": True, "expert_model_parallel_size": 2}),
    "PP2 EP2": (4, {**PP2, "expert_model_parallel_size": 2}),
}


def possible(shape: ModelShape) -> dict[str, tuple[int, dict[str, Any]]]:
    """Returns the layouts that can train `shape`."""
    batch = {"global_batch_size": GLOBAL_BATCH_SIZE, "seq_length": SEQ_LENGTH, "micro_batch_size": 2}
    return {
        name: (count, sizes)
        for name, (count, sizes) in LAYOUTS.items()
        if not problems(shape, layout=Layout(world_size=count, **batch, **sizes))
    }


def differences(shape: ModelShape, folder: Path) -> dict[tuple[str, str], float]:
    """Returns {(layout of the first 4 steps, layout of the rest): nats}."""
    start, layouts = starter(), possible(shape)

    def train(place: Path, name: str, steps: int) -> dict[int, float]:
        count, sizes = layouts[name]
        attempt = start(place, world_size=count, shape=shape, train_iters=steps, save_interval=SAVED, **sizes)
        attempt.wait()
        losses: dict[int, float] = attempt.values()
        return losses

    whole = train(folder / "whole", "1", STEPS)
    found = {}
    for first in layouts:
        before = train(folder / first, first, SAVED)
        for then in layouts:
            shutil.copytree(folder / first, folder / "then")
            losses = train(folder / "then", then, STEPS)
            found[first, then] = max(abs(loss - whole[step]) for step, loss in (before | losses).items())
            shutil.rmtree(folder / "then")
            print(f"{first} -> {then}: {found[first, then]:.1e}", file=sys.stderr, flush=True)
    return found


def table(found: Mapping[tuple[str, str], float]) -> str:
    """Returns the matrix as Markdown; a row is the layout of steps 1 to 4, a column that of steps 5 to 8."""
    names = list(dict.fromkeys(first for first, _ in found))
    lines = [f"| from, then | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for first in names:
        cells = [f"{found[first, then]:.1e}" if found[first, then] else "0" for then in names]
        lines.append(f"| {first} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(name: str, text: str) -> None:
    """Replaces the part of the page between the marks of `name`."""
    page, start, end = DOC.read_text(), START.format(name), END.format(name)
    before, _, rest = page.partition(start)
    DOC.write_text(f"{before}{start}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[*SHAPES], default="dense")
    parser.add_argument("--update-docs", action="store_true", help=f"write the table into {DOC.relative_to(ROOT)}")
    given = parser.parse_args()
    shape, words = SHAPES[given.shape]
    with tempfile.TemporaryDirectory() as folder:
        found = differences(shape, Path(folder))
    worst = max(found, key=lambda pair: found[pair])
    text = (
        f"Model `{given.shape}`: {words}.\n\n{table(found)}\n\n"
        f"Largest: {found[worst]:.1e} nats, {worst[0]} then {worst[1]}."
    )
    print(text)
    if given.update_docs:
        write(given.shape, text)


if __name__ == "__main__":
    main()
