"""How long the planner takes to judge every layout worth comparing.

.venv/bin/python benchmarks/planner_search.py
"""

import time
from collections.abc import Iterator

from parallelism.cost.devices import DEVICES
from parallelism.layout import Layout
from parallelism.planner import Job, search
from parallelism.presets import VOCAB_SIZES, preset

MODELS = ("dense_32b", "gravity_16b_a3b")
LIMITS = {256: 10.0, 4096: 60.0}
"""Ranks -> seconds that a search may take."""

SAMPLES_PER_RANK = 4


def main() -> None:
    """Prints a row for each model and number of ranks."""
    print("| model | GPUs | layouts tried | fit | seconds | at most | chosen |\n|---|---|---|---|---|---|---|")
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)


def rows() -> Iterator[tuple[str, ...]]:
    for model in MODELS:
        for ranks, limit in LIMITS.items():
            job = job_of(model, ranks=ranks)
            start = time.perf_counter()
            found = search(job)
            seconds = time.perf_counter() - start
            chosen = found.chosen.layout.describe() if found.chosen else "none"
            counts = (f"{ranks:,}", f"{found.tried:,}", f"{len(found.fitting):,}")
            yield (model, *counts, f"{seconds:.1f}", f"{limit:.0f}", chosen)


def job_of(model: str, *, ranks: int) -> Job:
    """Returns a job on H100 in nodes of 8, sequences of 4096."""
    device = DEVICES["h100"]
    return Job(
        shape=preset(model),
        vocab_size=VOCAB_SIZES[model],
        precision="bf16",
        layout=Layout(world_size=ranks, global_batch_size=SAMPLES_PER_RANK * ranks, seq_length=4096),
        gpus_per_node=8,
        memory_gib=device.memory_gib,
        reserve_gib=6,
        device=device,
    )


if __name__ == "__main__":
    main()
