"""plan: does pretrain's layout fit its devices, what does it cost, and which layouts would be better."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime
from typing import ClassVar, cast

from pydantic import Field

from jobs._campaign import Terms
from jobs._plan_details import details, judge, metrics, require_fit
from jobs._stage import Context, Outcome, Stage, StageConfig
from jobs.pretrain import PretrainConfig, course_of
from parallelism.cost.campaign import FAILURES_PER_GPU_DAY
from parallelism.cost.devices import DEVICES, Device
from parallelism.cost.memory import GIB
from parallelism.planner import Job

CPU = "cpu"
_GPU_RESERVE_GIB, _CPU_RESERVE_GIB = 6.0, 1.0
_KNOWN = ", ".join(DEVICES)


class PlanConfig(StageConfig):
    """The `plan:` section.

    Attributes:
        gpu: a device of parallelism/cost/devices.py; "cpu" for processes on a machine without one; or any name, with
            memory_gib and peak_tflops given here.
        memory_gib: memory of one device, instead of the table's.
        peak_tflops: dense bf16 peak of one device, instead of the table's.
        reserve_gib: what the driver's context, communication buffers, workspaces and fragmentation take; 6 on a
            GPU and 1 in a CPU process unless given.
        efficiency: share of the peak that a GPU was measured to reach while it computes, waits left out; by the
            roofline of parallelism/cost unless given.
        alternatives: how many layouts that fit are listed.
        storage_gb_per_s: what all ranks together write of a checkpoint, in 1e9 bytes per second.
        stall_s: seconds that training waits for a checkpoint, which it measures as train/save_stall_s (little under
            async_save); for all of its saving unless given.
        restart_s: seconds from a failure to the next step.
        failures_per_gpu_day: unexpected ends of the job for each GPU and day; Llama 3's on 16,384 H100 unless given.
        watts: power of one GPU with its share of the node; the GPU's alone, of the table, unless given.
        pue: power of the building over power of its computers.
        rehearse: do one step of every distinct rank too, without data, and fail where that does not fit; some minutes.
    """

    reads: ClassVar[tuple[str, ...]] = ("pretrain",)

    gpu: str = CPU
    memory_gib: float | None = Field(default=None, gt=0)
    peak_tflops: float | None = Field(default=None, gt=0)
    reserve_gib: float | None = Field(default=None, ge=0)
    efficiency: float | None = Field(default=None, gt=0, le=1)
    alternatives: int = Field(default=10, ge=1, le=100)
    storage_gb_per_s: float = Field(default=10.0, gt=0)
    stall_s: float | None = Field(default=None, ge=0)
    restart_s: float = Field(default=900.0, ge=0)
    failures_per_gpu_day: float = Field(default=FAILURES_PER_GPU_DAY, gt=0)
    watts: float | None = Field(default=None, gt=0)
    pue: float = Field(default=1.3, ge=1)
    rehearse: bool = False

    def problems(self, context: Context) -> Iterable[str]:
        """Yields a device that is neither known nor described, or all reserved, or a CPU where GPUs are asked for."""
        training = context.sections.get("pretrain")
        gpus = training.resources.gpus_per_node if training else 0
        if self.gpu == CPU and gpus:
            yield f"gpu: must name the GPU, as pretrain asks for {gpus} a node, but is 'cpu'; choose one of {_KNOWN}"
        memory = self.memory_gib or (DEVICES[self.gpu].memory_gib if self.gpu in DEVICES else None)
        if memory and self.reserve_gib and self.reserve_gib >= memory:
            yield f"reserve_gib: must be below the device's {memory:g} GiB, but is {self.reserve_gib:g}; reserve less"
        if self.gpu in (CPU, *DEVICES) or (self.memory_gib and self.peak_tflops):
            return
        yield f"gpu: must be cpu, {_KNOWN}, but is {self.gpu!r}; choose one, or give memory_gib and peak_tflops too"


def run(config: PlanConfig, stage: Stage) -> Outcome:
    """Plans the pretrain section, writes plan.json and its page, and fails where training could not start.

    Raises:
        ValueError: the layout has problems, or does not fit: with the reasons and the nearest layouts that fit.
    """
    from jobs._planned import write_pages
    from jobs._rehearsal import figures_of, kept_or_new, require_room
    from slurm.files import read_json, sha256_file, write_json

    section = cast(PretrainConfig, stage.sections["pretrain"])
    manifest = read_json(stage.root / "tokenize" / "manifest.json")
    job = job_of(config, section, vocab_size=manifest["vocab_size"], site_mem_gb=stage.site.mem_gb)
    judged = judge(job)
    path = stage.folder / "plan.json"
    terms = terms_of(config, section)
    found = details(judged, count=config.alternatives, here=stage.site.executor == "local", terms=terms)
    rehearsal = kept_or_new(stage, section, vocab_size=job.vocab_size, new=config.rehearse)
    found["rehearsal"] = rehearsal
    course = course_of(section, manifest)
    found["epochs"], found["notes"] = dict(course.epochs), list(course.notes)
    write_json(path, found)
    # The page is drawn from plan.json alone, so the record vouches for that.
    write_pages(found, stage.folder / "plan", run=stage.run, site=stage.site.description)
    require_fit(judged)
    require_room(rehearsal, budget=job.budget)
    figures = metrics(judged, terms=terms) | figures_of(rehearsal)
    return Outcome(metrics=figures, outputs={path.name: sha256_file(path)}, details=found)


def job_of(config: PlanConfig, section: PretrainConfig, *, vocab_size: int, site_mem_gb: float) -> Job:
    """Returns what the pretrain section asks for, on the device of the plan section.

    A CPU process may use an equal share of what the job asks of a node, or of what the site gives.
    """
    ranks = section.resources.tasks_per_node
    known = DEVICES.get(config.gpu)
    share = (section.resources.mem_gb or site_mem_gb) * 1e9 / GIB / ranks
    memory = config.memory_gib or (known.memory_gib if known else share)
    reserve = _CPU_RESERVE_GIB if config.gpu == CPU else _GPU_RESERVE_GIB
    return Job(
        shape=section.shape,
        vocab_size=vocab_size,
        precision=section.precision,
        layout=section.layout,
        gpus_per_node=ranks,
        memory_gib=memory,
        reserve_gib=reserve if config.reserve_gib is None else config.reserve_gib,
        device=None if config.gpu == CPU else _device(config),
        efficiency=config.efficiency,
    )


def terms_of(
    config: PlanConfig, section: PretrainConfig, *, start: datetime | None = None, deadline: date | None = None
) -> Terms:
    """Returns what the training meets on the way, as both sections say; dates only where a person asks, not a stage."""
    names = ("storage_gb_per_s", "stall_s", "restart_s", "failures_per_gpu_day", "watts", "pue")
    return Terms(
        train_iters=section.train_iters,
        save_interval=section.save_interval,
        start=start,
        deadline=deadline,
        **{name: getattr(config, name) for name in names},
    )


def _device(config: PlanConfig) -> Device:
    """The table's device with what the section gives instead; one not in the table has an A100's links and memory."""
    base = DEVICES.get(config.gpu, DEVICES["a100_80gb"])
    return replace(
        base,
        memory_gib=config.memory_gib or base.memory_gib,
        peak_tflops=config.peak_tflops or base.peak_tflops,
    )
