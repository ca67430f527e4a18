"""evaluate: the exported model against benchmarks on held-out records, with a trivial baseline beside each."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from evaluation.benchmarks import benchmark
from evaluation.meeting import Nodes, leading
from jobs._stage import Context, Outcome, Stage, StageConfig
from jobs.prepare import PrepareConfig
from slurm.resources import Spread
from slurm.site import Purpose, Site


def _known(name: str) -> str:
    benchmark(name)
    return name


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"must name each benchmark once, but {twice} is there twice; remove one")
    return names


class EvaluateConfig(StageConfig):
    """The `evaluate:` section.

    Attributes:
        benchmarks: files of evaluation/benchmarks.
        max_items: most items of one benchmark; they are chosen by digest, not by hand.
        workers: processes that hold the model, on all nodes together, one CPU each, and a share of the GPUs if any.
        ray_address: of a Ray cluster that runs; 'local' starts a private one on the stage's own nodes.
    """

    spread: ClassVar[Spread] = "nodes"
    purpose: ClassVar[Purpose] = "evaluate"
    resumable: ClassVar[bool] = True

    benchmarks: Annotated[
        tuple[Annotated[str, AfterValidator(_known)], ...], Field(min_length=1), AfterValidator(_different)
    ]
    max_items: Annotated[int, Field(ge=1)] = 300
    workers: Annotated[int, Field(ge=1)] = 2
    ray_address: Annotated[str, Field(min_length=1)] = "local"

    def problems(self, context: Context) -> Iterable[str]:
        """Yields the benchmarks whose modality no source of the run has, and workers that no node has room for."""
        yield from self._misplaced()
        prepare = context.sections.get("prepare")
        if not isinstance(prepare, PrepareConfig):
            return
        prepared = {source.modality for source in prepare.sources}
        for number, name in enumerate(self.benchmarks):
            needed = benchmark(name).MODALITY
            if needed not in prepared:
                found = f"{name} asks about {needed}, and prepare.sources has {', '.join(sorted(prepared))}"
                yield f"benchmarks.{number}: must ask about a prepared modality, but {found}; remove it or add a source"

    def _misplaced(self) -> Iterable[str]:
        nodes, cpus = self.resources.nodes, self.resources.cpus_per_task
        if nodes > 1 and self.ray_address != "local":
            found = f"resources.nodes is {nodes}"
            yield f"ray_address: must be left out where the stage has nodes of its own, but {found}; remove one"
        if nodes > 1 and self.workers > nodes * cpus:
            yield (
                f"workers: must be at most {nodes * cpus}, one for each CPU of {nodes} nodes, but is {self.workers}; "
                f"raise resources.cpus_per_task"
            )


def run(config: EvaluateConfig, stage: Stage) -> Outcome:
    """Scores every item with Ray, then compares the model with each benchmark's baseline.

    With several nodes this runs on each: the ranks above 0 lend their nodes to rank 0 until it ends.

    Raises:
        RuntimeError: the nodes did not find together.
        ValueError: a benchmark finds nothing to ask in the held-out records.
    """
    from evaluation.nodes import serve

    nodes = _nodes(config, stage)
    if nodes is None:
        return _score(config, stage, nodes=None)
    if stage.rank > 0:
        serve(nodes)
        return Outcome(metrics={})
    with leading(nodes):
        return _score(config, stage, nodes=nodes)


def _nodes(config: EvaluateConfig, stage: Stage) -> Nodes | None:
    """Returns the nodes of the stage's job; None when there is one."""
    if stage.world_size == 1:
        return None
    return Nodes(
        count=stage.world_size,
        meeting=stage.meeting,
        cpus=config.resources.cpus_per_task,
        gpus=_gpus(config, stage.site),
        interface=stage.site.network_interface,
    )


def _gpus(config: EvaluateConfig, site: Site) -> int | None:
    """Returns the GPUs of a node; a cluster gives those that were asked for, a laptop what it has."""
    return config.resources.gpus_per_node or (None if site.executor == "local" else 0)


def _score(config: EvaluateConfig, stage: Stage, *, nodes: Nodes | None) -> Outcome:
    from evaluation import results
    from evaluation.cluster import cluster
    from evaluation.score import make_chunks, score_chunks
    from slurm.files import digest, sha256_file, sha256_files, write_atomic, write_json

    model = stage.root / "export" / "model"
    model_digest = digest(sha256_files(model))
    asked, left_out = _ask(config, stage)
    scores = score_chunks(
        [chunk for items in asked.values() for chunk in make_chunks(items, model_digest=model_digest)],
        model=model,
        journal=stage.folder / "scored.jsonl",
        workers=config.workers,
        cluster=cluster(
            workers=config.workers, address=config.ray_address, gpus=_gpus(config, stage.site), nodes=nodes
        ),
        progress=lambda done, total: stage.progress(done, total, "items"),
    )
    answered = {name: results.answers(items, scores, benchmark=benchmark(name)) for name, items in asked.items()}
    summaries = {
        name: results.summary(benchmark(name), found, seed=stage.seed, left_out=left_out[name])
        for name, found in answered.items()
    }
    rows = [results.row(name, each) for name, found in answered.items() for each in found]
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomic(stage.folder / "items.jsonl", "".join(lines))
    write_json(stage.folder / "scores.json", {"model": model_digest, "seed": stage.seed, "benchmarks": summaries})
    return Outcome(
        metrics=_metrics(summaries),
        outputs={name: sha256_file(stage.folder / name) for name in ("items.jsonl", "scores.json")},
        details={"benchmarks": summaries},
    )


def _ask(config: EvaluateConfig, stage: Stage) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Returns the items of every benchmark, and how many held-out records no choice of it is right for."""
    from evaluation.heldout import Records
    from evaluation.items import select

    records = {name: Records(folder=stage.root / "prepare", seed=stage.seed) for name in config.benchmarks}
    asked = {name: select(benchmark(name).items(found), most=config.max_items) for name, found in records.items()}
    empty = [name for name, items in asked.items() if not items]
    if empty:
        raise ValueError(
            f"every benchmark must find something to ask in the held-out records, but {', '.join(empty)} found "
            f"nothing; its file says what it reads: prepare that, raise prepare.valid_fraction, or remove it"
        )
    return asked, {name: sum(found.left_out.values()) for name, found in records.items()}


def _metrics(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {
        f"{name}/{metric}": float(value)
        for name, found in summaries.items()
        for metric, value in (
            ("accuracy", found["accuracy"]["value"]),
            ("baseline", found["baseline"]["value"]),
            ("n", found["n"]),
        )
    }
