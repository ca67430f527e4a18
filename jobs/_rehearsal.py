"""A rehearsal of a run's layout beside what the planner says of it, as JSON values; the engines are imported late."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs._stage import Stage
from jobs.pretrain import PretrainConfig, recipe_of
from parallelism.cost.memory import GIB, stage_memory, stage_parameters
from parallelism.cost.traffic import stage_traffic
from parallelism.presets import ModelShape
from slurm.files import digest, read_json, write_json

NAME = "rehearsal.json"


def rehearse(
    section: PretrainConfig,
    *,
    vocab_size: int,
    processes: int,
    whole: bool = False,
    told: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Any]:
    """Rehearses the layout of `section` and returns what each stage did, with the planner's figures beside it.

    Args:
        section: what would be trained, and how it is spread.
        vocab_size: tokens of the tokenizer.
        processes: ranks rehearsed at a time.
        whole: run every microbatch, where else a few stand for all.
        told: takes (stages done, stages in all, what was done last).
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a rehearsal computes nothing, and takes no GPU from those who do
    from parallelism import device

    device.prepare()
    from parallelism.rehearsal import rehearse as ranks_of

    layout, kernels = section.layout, kernels_of(section)
    manifest = {"mixture": {"tokens": 1.0}, "phases": {}, "streams": {}}
    tokens = SimpleNamespace(vocab_size=vocab_size, manifest=manifest)
    recipe = recipe_of(section.model_copy(update={"phases": ()}), tokens, data_digest="", seed=0)
    found: dict[int, dict[str, Any]] = {}
    stages = layout.pipeline_model_parallel_size
    told(0, stages, "started")
    for seen in ranks_of(recipe, layout=layout, kernels=kernels, processes=processes, whole=whole):
        found[seen.stage] = {**asdict(seen), "peak_bytes": seen.peak_bytes}
        told(len(found), stages, f"stage {seen.stage} {seen.peak_bytes / GIB:.2f} GiB")
    return {
        "key": key(section, vocab_size=vocab_size),
        "layout": {**asdict(layout), "name": layout.describe()},
        "model": section.model,
        "vocab_size": vocab_size,
        "precision": section.precision,
        "kernels": kernels,
        "stages": _beside(section, [found[number] for number in sorted(found)], vocab_size=vocab_size),
    }


def kernels_of(section: PretrainConfig) -> Any:
    """Returns whose kernels would run: "gpu" or "cpu"."""
    return "gpu" if section.resources.gpus_per_node else "cpu"


def key(section: PretrainConfig, *, vocab_size: int) -> str:
    """Returns what a rehearsal is of: equal for equal models, sizes and kernels."""
    facts = [asdict(section.shape), asdict(section.layout), vocab_size, section.precision, kernels_of(section)]
    return digest(facts)


def recorded(folder: Path, section: PretrainConfig, *, vocab_size: int) -> dict[str, Any] | None:
    """Returns the rehearsal that lies in `folder`, if it is of this section."""
    path = folder / NAME
    found: dict[str, Any] | None = read_json(path) if path.is_file() else None
    return found if found and found["key"] == key(section, vocab_size=vocab_size) else None


def kept_or_new(stage: Stage, section: PretrainConfig, *, vocab_size: int, new: bool) -> dict[str, Any] | None:
    """Returns the rehearsal in the stage's folder, or a new one where `new` asks for it and none is kept."""
    kept = recorded(stage.folder, section, vocab_size=vocab_size)
    if kept or not new:
        return kept
    found = rehearse(section, vocab_size=vocab_size, processes=1, told=stage.progress)
    write_json(stage.folder / NAME, found)
    return found


def require_room(rehearsal: Mapping[str, Any] | None, *, budget: float) -> None:
    """Checks that what was rehearsed fits into `budget` bytes of a rank.

    Raises:
        ValueError: it does not.
    """
    if rehearsal is None:
        return
    fullest = max(rehearsal["stages"], key=lambda stage: stage["peak_bytes"])
    if fullest["peak_bytes"] > budget:
        raise ValueError(
            f"a rehearsed rank must fit into {budget / GIB:.1f} GiB after the reserve, but those of stage "
            f"{fullest['stage']} had {fullest['peak_bytes'] / GIB:.1f} GiB; choose another of the plan's layouts"
        )


def figures_of(rehearsal: Mapping[str, Any] | None) -> dict[str, float]:
    """Returns the headline figures of a rehearsal; none without one."""
    if rehearsal is None:
        return {}
    peak = max(stage["peak_bytes"] for stage in rehearsal["stages"])
    return {"rehearsed_peak_gib": peak / GIB, "planner_difference": largest_difference(rehearsal)}


def largest_difference(rehearsal: Mapping[str, Any]) -> float:
    """Returns how far the planner is from the rehearsal's peak, on the stage where it is furthest: 0.01 is 1 %."""
    differences: list[float] = [stage["difference"] for stage in rehearsal["stages"]]
    return max(differences, key=abs)


def _beside(section: PretrainConfig, seen: Sequence[dict[str, Any]], *, vocab_size: int) -> list[dict[str, Any]]:
    shape, layout, precision = section.shape, section.layout, section.precision
    fused = kernels_of(section) == "gpu"
    memories = stage_memory(shape, layout=layout, vocab_size=vocab_size, precision=precision, fused=fused)
    sizes = stage_parameters(shape, layout=layout, vocab_size=vocab_size)
    width = layout.world_size // layout.pipeline_model_parallel_size
    rows = []
    for number, (stage, memory, size) in enumerate(zip(seen, memories, sizes, strict=True)):
        planned = {**asdict(memory), "stage_parameters": size, "peak": memory.total}
        traffic = _traffic(shape, section=section, vocab_size=vocab_size, number=number)
        rows.append(
            {
                **stage,
                "ranks": [number * width, (number + 1) * width - 1],
                "planned": planned,
                "difference": planned["peak"] / stage["peak_bytes"] - 1,
                "exchanges": [
                    {**item, "planned": traffic.get((item["group"], item["operation"]))} for item in stage["exchanges"]
                ],
                "not_seen": sorted(" ".join(kind) for kind in traffic.keys() - _kinds(stage["exchanges"])),
            }
        )
    return rows


def _kinds(exchanges: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {(item["group"], item["operation"]) for item in exchanges}


def _traffic(
    shape: ModelShape, *, section: PretrainConfig, vocab_size: int, number: int
) -> dict[tuple[str, str], dict[str, int]]:
    found = stage_traffic(
        shape, layout=section.layout, vocab_size=vocab_size, stage=number, precision=section.precision
    )
    return {(item.group, item.operation): {"calls": item.calls, "bytes": item.bytes} for item in found}
