"""How near the planner's step times and FLOPs come to published ones: docs/benchmarks/planner-time.md.

    .venv/bin/python benchmarks/planner_time.py --data ../shared/data/published

`--fit` first fits the constants anew and prints them as they stand in the code; nothing is changed by it.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles

from benchmarks import planner_time_notes as notes
from benchmarks.planner_time_fit import fit
from benchmarks.published import Case, Row, read
from benchmarks.published_stacks import FACTORS, committed_factor, fitted, predict
from parallelism.cost.flops import flops_per_token

MISS = 0.25
"""An error above this is listed with its cause."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/published"))
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/planner-time.md"))
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    path = arguments.data / "training_throughput.csv" if arguments.data.is_dir() else arguments.data
    cases, left = read(path)
    if arguments.fit:
        print_fit(cases)
    arguments.output.write_text(report(cases, left))
    print(f"{len(cases)} rows predicted, {len(left)} not; written to {arguments.output}")


def print_fit(cases: Sequence[Case]) -> None:
    found = fit(cases)
    for name, value in found.values.items():
        print(f"{name}: {value:.3g}")
    for software, factor in found.factors.items():
        print(f"    {software}: {factor:.2f},")


def report(cases: Sequence[Case], left: Sequence[tuple[Row, str]]) -> str:
    firm = [case for case in cases if not case.recalled]
    reasons = Counter(reason for _, reason in left)
    count = notes.COUNT.format(
        rows=len(cases) + len(left), firm=len(firm), recalled=len(cases) - len(firm), left=len(left)
    )
    parts = [
        notes.HEAD,
        "",
        count,
        *(f"- {number}: {reason}" for reason, number in reasons.most_common()),
        "",
        *flop_section(firm),
        "",
        *time_section(firm, [case for case in cases if case.recalled]),
        "",
        *miss_section(firm),
    ]
    return "\n".join(parts) + "\n"


def flop_section(cases: Sequence[Case]) -> list[str]:
    """Printed TFLOP/s against FLOPs per token x printed tokens/s, suite by suite."""
    lines = [notes.FLOPS]
    for (suite, kind), rows in kinds_of([case for case in cases if case.printed_tflops and case.tokens_per_s]).items():
        errors = [abs(flop_ratio(case) - 1) for case in rows]
        near = sum(error < 0.01 for error in errors)
        told = sum(error < 0.01 + rounding(case) for error, case in zip(errors, rows, strict=True))
        lines.append(
            f"| {suite}, {kind} | {rows[0].convention.name} | {len(rows)} | {median(errors):.2%} | {max(errors):.2%} | "
            f"{near} | {told} |"
        )
    return [*lines, notes.FLOP_NOTES]


def flop_ratio(case: Case) -> float:
    """Computed over printed TFLOP/s."""
    positions = case.layout.seq_length if case.suite == "LLM-Foundry" else 0
    flops = flops_per_token(
        case.shape,
        seq_length=case.layout.seq_length,
        vocab_size=case.vocab_size + positions,
        convention=case.convention,
    )
    return flops * case.tokens_per_s / 1e12 / case.printed_tflops


def rounding(case: Case) -> float:
    """Largest relative error of tokens/s that were printed as a whole number of sequences per second; else 0."""
    sequences = case.tokens_per_s * case.layout.world_size / case.layout.seq_length
    return 0.5 / sequences if sequences >= 1 and abs(sequences - round(sequences)) < 1e-9 else 0.0


def time_section(firm: Sequence[Case], recalled: Sequence[Case]) -> list[str]:
    """Predicted over measured seconds of a step, beside the null model."""
    head = notes.TIMES.format(
        groups=len({case.group for case in firm}),
        factors=len(FACTORS),
        half=sum(map(fitted, firm)),
        firm=len(firm),
    )
    suites = Counter(case.suite for case in firm)
    worse = notes.WORSE.format(megatron=suites["Megatron-LM"], nemo=suites["NeMo 24.07"])
    return [head, notes.TABLE, *time_rows(firm), worse, notes.RECALLED, notes.TABLE, *time_rows(recalled)]


def time_rows(cases: Sequence[Case]) -> list[str]:
    return [
        f"| {suite} | {len(rows)} | " + " | ".join(columns(rows)) + " |" for suite, rows in suites_of(cases).items()
    ]


def columns(rows: Sequence[Case]) -> list[str]:
    other = [case for case in rows if not fitted(case)]
    whole, half = null_rates(rows), null_rates([case for case in rows if fitted(case)])
    return [
        spread(null_error(case, whole) for case in rows),
        spread(map(fitted_error, rows)),
        spread(null_error(case, half) for case in other) if half else "–",
        spread(map(fitted_error, other)),
        spread(abs(predict(case) / case.measured - 1) for case in rows),
    ]


def fitted_error(case: Case) -> float:
    return abs(predict(case, factor=committed_factor(case)) / case.measured - 1)


def null_rates(rows: Sequence[Case]) -> dict[tuple[str, ...], float]:
    """The null model's TFLOP/s: of each group, and of each suite under the suite's name alone."""
    found: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for case in rows:
        found[case.group].append(case.tflops)
        found[(case.suite,)].append(case.tflops)
    return {group: median(rates) for group, rates in found.items()}


def null_error(case: Case, rates: dict[tuple[str, ...], float]) -> float:
    return abs(case.tflops / rates.get(case.group, rates[(case.suite,)]) - 1)


def spread(errors: Iterable[float]) -> str:
    found = list(errors)
    if not found:
        return "–"
    tenth = quantiles(found, n=10, method="inclusive")[-1] if len(found) > 1 else found[0]
    return f"{median(found):.1%} ({tenth:.1%})"


def miss_section(cases: Sequence[Case]) -> list[str]:
    """Rows that the fitted model misses by more than MISS, worst first."""
    ratios = [(predict(case, factor=committed_factor(case)) / case.measured, case) for case in cases]
    missed = sorted((pair for pair in ratios if abs(pair[0] - 1) > MISS), key=lambda pair: -abs(pair[0] - 1))
    return [
        notes.MISSES.format(limit=f"{MISS:.0%}", missed=len(missed), rows=len(cases)),
        *(
            f"| {case.id} | {case.suite} | {case.model} | {case.gpu} {case.dtype} | {case.layout.describe()} | "
            f"{ratio:.2f} | {notes.cause(case)} |"
            for ratio, case in missed
        ),
    ]


def suites_of(cases: Sequence[Case]) -> dict[str, list[Case]]:
    return grouped(cases, lambda case: case.suite)


def kinds_of(cases: Sequence[Case]) -> dict[tuple[str, str], list[Case]]:
    return grouped(cases, lambda case: (case.suite, "experts" if case.shape.experts else "dense"))


def grouped[K](cases: Sequence[Case], key: Callable[[Case], K]) -> dict[K, list[Case]]:
    found: dict[K, list[Case]] = {}
    for case in cases:
        found.setdefault(key(case), []).append(case)
    return found


if __name__ == "__main__":
    main()
