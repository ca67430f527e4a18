"""The planner's memory against what others measured on GPUs: predicted over measured, per suite, with the misses.

    .venv/bin/python benchmarks/planner_memory.py --data ../shared/data/published

Writes docs/benchmarks/planner-memory.md. `--data` is a folder with megatron_functional.csv, what the last rank of
Megatron-LM's functional tests measured, and training_throughput.csv, whose rows of full-size layers on B200 have a
peak too. Nothing is fitted: conventions and constants are in megatron_rows.py and below.
"""

import argparse
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks import published
from benchmarks.megatron_rows import Row, errors, read_rows, refusal
from parallelism.cost.kernels import CUBLAS_WORKSPACE, GPU
from parallelism.cost.memory import GIB, stage_memory
from parallelism.layout import Layout
from parallelism.presets import ModelShape

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/benchmarks/planner-memory.md"
TARGETS = {"state": 0.02, "peak": 0.05}
"""Largest median error that is asked of the gpt suite."""
MISS = 0.05

FULL_SIZE = "SimuMax B200 (real)"
LLAMA = replace(
    GPU,
    rotary=False,
    padded_values=False,
    row_gradients=3,
    boundaries=0,
    logits_fp32=0,
    spare_gradients=True,
    workspace=3 * CUBLAS_WORKSPACE,
)
"""Megatron-LM with TransformerEngine as these rows ran it: experts in one grouped matmul, gradients added by the
matmuls, loss on bf16 logits."""
DENSE_FIRST = {"deepseekv3_l4": 1}
"""Dense layers where a model was cut to a few."""

HEAD = """# Planned against measured memory

Made by `.venv/bin/python benchmarks/planner_memory.py --data ../shared/data/published`. An error is predicted over
measured, less 1; of several, the median and the 90th percentile of its absolute value.

## Full-size layers on B200

Peak of the fullest of 8 ranks, allocated GiB, measured by the authors of
[SimuMax](https://github.com/MooreThreads/SimuMax) (docs/b200) with Megatron-LM and TransformerEngine; their planner's
error on the same row is beside ours. Widths and layouts are those of real jobs, with fewer layers. No number is fitted,
but that this implementation keeps one unused gradient per shape of weight was found on these rows. What they do not
say: 4,096 tokens a sequence where the name has no other, nothing computed again (both are defaults of SimuMax's files),
and that DeepSeek-V3 cut to 4 layers keeps 1 of its dense layers (0 or 2 miss the rows of one stage by 20 %)."""

TESTS = """## Megatron-LM's functional tests

What the last rank logs: bytes allocated between steps (state) and at the peak. The models are tiny, so workspaces of
libraries weigh as much as tensors. Cases are halved by the hash of their name. No number is fitted, but the rules of
benchmarks/megatron_rows.py for what a name implies were written with both halves in view, so neither half is blind."""

CAUSES: Sequence[tuple[Callable[[Row], bool], str]] = (
    (
        lambda row: "cross_entropy_loss_fusion" in row.case,
        "the compiled loss keeps one to three more fp32 copies of the logits, by version; a copy is planned",
    ),
    (
        lambda row: "gb200" in row.platform and not row.flag("deterministic"),
        "PyTorch's default workspace on GB200 was 8 MiB and became 32 MiB; the row does not say which",
    ),
    (lambda row: "tunable_overlap" in row.case, "five microbatches in turn per chunk, where stages would take four"),
    (lambda row: "reruns" in row.case, "its peak equals its state to the byte, so it is not a step's"),
    (
        lambda row: row.is_local,
        "Megatron's own layers: what stays between steps and what experts keep is not found out",
    ),
    (
        lambda row: row.env == "lts" and "dracooci" not in row.platform,
        "a value of the long-term release that differs from all others of its case",
    ),
)


@dataclass(frozen=True, kw_only=True)
class FullSize:
    """A measurement of full-size layers: peak of the fullest rank predicted, measured, and by SimuMax, GiB."""

    model: str
    layout: str
    predicted: float
    measured: float
    other: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.predicted / self.measured - 1


def full_size(path: Path) -> list[FullSize]:
    """Returns the rows of a file of published training runs that ran full-size layers and measured a peak."""
    with path.open(newline="") as file:
        rows = {
            row["id"]: row for row in csv.DictReader(file) if row["source_suite"] == FULL_SIZE and row["peak_mem_gib"]
        }
    cases, _ = published.read(path)
    return [
        FullSize(
            model=case.model,
            layout=case.layout.describe(),
            predicted=_peak(_cut(case.model, case.shape), layout=case.layout, vocab_size=case.vocab_size),
            measured=float(rows[case.id]["peak_mem_gib"]),
            other=float(re.findall(r"([\d.]+) GiB", rows[case.id]["notes"])[-1]),
        )
        for case in cases
        if case.id in rows
    ]


def _cut(model: str, shape: ModelShape) -> ModelShape:
    for name, dense in DENSE_FIRST.items():
        if model.startswith(name) and shape.experts:
            return replace(shape, experts=replace(shape.experts, first_k_dense=dense))
    return shape


def _peak(shape: ModelShape, *, layout: Layout, vocab_size: int) -> float:
    stages = stage_memory(shape, layout=layout, vocab_size=vocab_size, kernels=LLAMA)
    return max(memory.total + memory.allowance for memory in stages) / GIB


def half(case: str) -> str:
    """Returns the half of the cases that a name belongs to, by its hash."""
    return "even" if hashlib.sha256(case.encode()).digest()[0] % 2 == 0 else "odd"


def page(data: Path) -> str:
    """Returns the page: the same for the same data."""
    rows = read_rows(data / "megatron_functional.csv")
    found = errors(rows)
    full = _full_size_table(full_size(data / "training_throughput.csv"))
    parts = [HEAD, full, TESTS, _suite_table(found), "### Not planned", _refusal_table(rows)]
    return "\n\n".join([*parts, f"### Misses above {MISS:.0%}", _miss_table(found)])


def _full_size_table(rows: Sequence[FullSize]) -> str:
    lines = [
        f"| {row.model} | {row.layout} | {row.predicted:.2f} | {row.measured:.2f} | {row.error:+.1%} | "
        f"{row.other / row.measured - 1:+.1%} |"
        for row in rows
    ]
    ours = sorted(abs(row.error) for row in rows)
    theirs = sorted(abs(row.other / row.measured - 1) for row in rows)
    ends = " | ".join(f"{median(sizes):.1%}; {sizes[-1]:.1%}" for sizes in (ours, theirs))
    lines.append(f"| median of {len(rows)}; largest | | | | {ends} |")
    return _table("model | layout | planned | measured | error | SimuMax's", lines)


def _suite_table(found: Sequence[tuple[Row, float, float]]) -> str:
    lines = []
    for suite in dict.fromkeys(row.suite for row, _, _ in found):
        for part in ("all", "even", "odd"):
            some = [item for item in found if item[0].suite == suite and part in ("all", half(item[0].case))]
            if some:
                cases = len({row.case for row, _, _ in some})
                state = _spread(abs(error) for _, error, _ in some)
                peak = _spread(abs(error) for _, _, error in some)
                lines.append(f"| {suite} | {part} | {cases} | {len(some)} | {state} | {peak} |")
    return _table("suite | half | cases | rows | state: median, 90 % | peak: median, 90 %", lines)


def _spread(sizes: Iterable[float]) -> str:
    ordered = sorted(sizes)
    return f"{median(ordered):.1%}, {ordered[int(0.9 * (len(ordered) - 1))]:.1%}"


def _refusal_table(rows: Iterable[Row]) -> str:
    counts = Counter(reason for row in rows if (reason := refusal(row)) is not None)
    return _table("reason | rows", [f"| {reason} | {count} |" for reason, count in counts.most_common()])


def _miss_table(found: Iterable[tuple[Row, float, float]]) -> str:
    missed: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row, state, peak in found:
        if max(abs(state), abs(peak)) > MISS:
            missed.setdefault((row.case, cause(row)), []).append((state, peak))
    lines = [
        f"| {case} | {len(sizes)} | {_worst([state for state, _ in sizes])} | "
        f"{_worst([peak for _, peak in sizes])} | {why} |"
        for (case, why), sizes in sorted(missed.items())
    ]
    return _table("case | rows | worst state | worst peak | cause", lines)


def _worst(sizes: Iterable[float]) -> str:
    return f"{max(sizes, key=abs):+.1%}"


def cause(row: Row) -> str:
    """Returns why a row is missed, as far as known."""
    return next((why for applies, why in CAUSES if applies(row)), "not found")


def _table(head: str, lines: Iterable[str]) -> str:
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + " --- |" * columns, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", type=Path, default=PAGE)
    chosen = parser.parse_args()
    chosen.write.write_text(page(chosen.data) + "\n")
    print(f"wrote {chosen.write}")


if __name__ == "__main__":
    main()
