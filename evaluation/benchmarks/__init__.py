"""One benchmark, one file; the listing of this folder is the registry."""

import importlib
import pkgutil
from difflib import get_close_matches
from typing import Protocol, cast

from evaluation.heldout import Records
from evaluation.items import Item


class Benchmark(Protocol):
    """What every file of this folder offers.

    Attributes:
        QUESTION: what is asked, for people.
        MODALITY: whose held-out records are asked about.
        BASELINE: what the trivial baseline is, for people.
        NORMALIZED: whether a choice's score is its log-probability per UTF-8 byte, as choices of any length need, or
            the plain log-probability, as exhaustive classes need.
    """

    QUESTION: str
    MODALITY: str
    BASELINE: str
    NORMALIZED: bool

    def items(self, records: Records, /) -> list[Item]:
        """Returns a question for every held-out record that allows one."""
        ...


def benchmarks() -> tuple[str, ...]:
    """Returns the benchmarks: the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def benchmark(name: str) -> Benchmark:
    """Returns a benchmark by name.

    Raises:
        ValueError: there is none of that name; the message names the nearest.
    """
    if name not in benchmarks():
        near = get_close_matches(name, benchmarks(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"use some of {', '.join(benchmarks())}"
        raise ValueError(f"must name files of evaluation/benchmarks, but {name!r} is none; {hint}")
    return cast("Benchmark", importlib.import_module(f"evaluation.benchmarks.{name}"))
