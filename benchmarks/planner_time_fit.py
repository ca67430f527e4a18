"""Fits the time model's global constants and the suites' factors; prints them as they stand in the code."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.published import Case
from benchmarks.published_stacks import STACKS, fitted, predict
from parallelism.cost.devices import Family
from parallelism.cost.roofline import Speed
from parallelism.cost.time import MEGATRON, Stack

CONSTANTS: Mapping[str, tuple[float, float]] = {
    "ampere bf16": (0.80, 0.9),
    "hopper bf16": (0.75, 0.9),
    "hopper fp8": (0.70, 0.9),
    "blackwell bf16": (0.65, 0.9),
    "blackwell fp8": (0.75, 0.9),
    "blackwell fp4": (0.75, 0.9),
    "ampere attention": (0.50, 0.75),
    "hopper attention": (0.35, 0.75),
    "blackwell attention": (0.42, 0.75),
    "memory": (0.70, 0.9),
    "layer_s": (50e-6, 1.0),
    "experts_s": (60e-6, 1.0),
    "node": (0.80, 0.85),
    "network": (0.80, 0.85),
    "call_s": (20e-6, 50e-6),
    "data": (0.7, 0.98),
    "LLM-Foundry attention": (1.6, 4.0),
    "torchtitan attention": (1.9, 4.0),
    "NeMo long-sequence attention": (1.0, 4.0),
    "unfused attention": (5.0, 6.5),
    "nanotron network": (0.5, 1.0),
}
"""Where the search starts, and what no constant may pass: a share of the peak that nothing reaches."""

ROUNDS = 2

OURS = ("Megatron", "SimuMax")
"""Suites on recent Megatron, as our trainer: constants are to make their factors 1, others' where it costs nothing."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Constants by name, and the factors that remain."""

    values: Mapping[str, float]
    factors: Mapping[tuple[str, ...], float]
    loss: float


def fit(cases: Sequence[Case]) -> Fit:
    """Returns the constants with the least absolute error of logarithms on the rows that are for fitting."""
    groups = defaultdict(list)
    for case in filter(fitted, cases):
        groups[case.software].append(case)
    values = {name: start for name, (start, _) in CONSTANTS.items()}

    def loss(trial: Mapping[str, float]) -> float:
        return _loss(groups, trial)

    least = loss(values)
    for _ in range(ROUNDS):  # a step that became small is tried large again
        steps = dict.fromkeys(values, 0.2)
        while max(steps.values()) > 0.01:
            for name in values:
                least = _improve(values, steps, name, least=least, loss=loss)
    factors = {software: math.exp(-median(_errors(rows, values))) for software, rows in groups.items()}
    return Fit(values=values, factors=factors, loss=least)


def _improve(
    values: dict[str, float],
    steps: dict[str, float],
    name: str,
    *,
    least: float,
    loss: Callable[[Mapping[str, float]], float],
) -> float:
    """Moves one constant by its step, up or down; a step that helps grows, one that does not is halved."""
    for sign in (1, -1):
        trial = {**values, name: min(values[name] * math.exp(sign * steps[name]), CONSTANTS[name][1])}
        found = loss(trial)
        if found < least:
            values[name] = trial[name]
            steps[name] *= 1.5
            return found
    steps[name] /= 2
    return least


def _loss(groups: Mapping[tuple[str, ...], list[Case]], values: Mapping[str, float]) -> float:
    """Errors around each group's factor, large ones at a third, large groups damped, and how far factors are from 1."""
    total = 0.0
    for software, rows in groups.items():
        errors = _errors(rows, values)
        middle = median(errors)
        spread = sum(min(abs(error - middle), 0.2 + abs(error - middle) / 3) for error in errors)
        total += spread / len(rows) ** 0.4 + (0.5 if software[0].startswith(OURS) else 0.1) * abs(middle)
    near = sum(abs(math.log(values[name] / start)) for name, (start, _) in CONSTANTS.items())
    return total + 0.01 * near


def _errors(rows: Sequence[Case], values: Mapping[str, float]) -> list[float]:
    speeds, stacks, stack = speeds_of(values), stacks_of(values), ours(values)
    return [math.log(predict(case, speeds=speeds, stacks=stacks, stack=stack) / case.measured) for case in rows]


def speeds_of(values: Mapping[str, float]) -> Mapping[Family, Speed]:
    """Returns the speeds of every generation."""
    shared = {"memory": values["memory"], "layer_s": values["layer_s"], "experts_s": values["experts_s"]}
    ampere, hopper, blackwell = values["ampere bf16"], values["hopper bf16"], values["blackwell bf16"]
    narrow = {"fp8": values["blackwell fp8"], "fp4": values["blackwell fp4"]}
    return {
        "ampere": Speed(matmul={"bf16": ampere}, attention=values["ampere attention"], **shared),
        "hopper": Speed(
            matmul={"bf16": hopper, "fp8": values["hopper fp8"]}, attention=values["hopper attention"], **shared
        ),
        "blackwell": Speed(
            matmul={"bf16": blackwell, **narrow},  # type: ignore[dict-item]  # the keys are formats
            attention=values["blackwell attention"],
            **shared,
        ),
    }


def ours(values: Mapping[str, float]) -> Stack:
    """Returns our trainer's stack."""
    links = replace(MEGATRON.links, node=values["node"], network=values["network"], call_s=values["call_s"])
    return replace(MEGATRON, links=links, data=values["data"])


def stacks_of(values: Mapping[str, float]) -> Mapping[str, Stack]:
    """Returns the suites' stacks: what is known of each as it is, what is fitted from `values`."""
    base, found = ours(values), {}
    for name, stack in STACKS.items():
        links, attention = base.links, stack.attention
        if name == "nanotron":
            links = replace(links, network=values["network"] * values["nanotron network"])
        if attention != 1:
            attention = values.get(f"{name} attention", values["unfused attention"])
        data = base.data if stack.data else 0.0
        found[name] = replace(stack, links=links, data=data, attention=attention)
    return found
