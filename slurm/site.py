"""A site: one cluster, laptop or hospital, described by one file in slurm/sites/ (docs/sites.md)."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from slurm._words import (
    AbsolutePath,
    Mount,
    Name,
    OptionName,
    OptionValue,
    SrunArgument,
    Text,
    TrackingUri,
    Variable,
    Word,
)

Purpose = Literal["cpu", "train", "evaluate"]
"""What a stage needs a machine for; a site may answer each from another partition."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Options(_Settings):
    """What the scheduler is told about every job, or about the jobs of one purpose.

    Attributes:
        exclude: nodes that are never used, as Slurm writes them: n[3,7].
        exclusive: whole nodes for this job alone.
        nodes: most nodes of one job; the site's limit unless given.
        timeout_min: longest job in minutes; the site's limit unless given.
        sbatch: further options of sbatch by their long names, for what has no setting here; true for a bare flag.
    """

    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    constraint: Word | None = None
    reservation: Name | None = None
    exclude: Word | None = None
    exclusive: bool | None = None
    nodes: int | None = Field(default=None, ge=1)
    timeout_min: int | None = Field(default=None, ge=1)
    sbatch: Mapping[OptionName, OptionValue] = {}


class Container(_Settings):
    """The image that every process of a job runs in.

    Attributes:
        runtime: apptainer starts each process in the image; pyxis is Slurm's own plug-in (srun --container-image).
        image: a path, or what the runtime takes for one.
        mounts: host:container pairs. The project and the results must be seen at the same paths inside.
        python: the interpreter inside the image.
    """

    runtime: Literal["apptainer", "pyxis"]
    image: Word
    mounts: tuple[Mount, ...] = ()
    python: Word = "python3"


class Policies(_Settings):
    """What this site allows and when it gives up.

    Attributes:
        gpu_hours: budget of one run; planning refuses a run that could need more. No limit unless given.
        max_tries: times that a job may fail in a row without getting further.
        requeue_delay_s: seconds after which a waiting command ends the two minutes that Slurm holds a requeued job. Too
            soon, and the end of the old execution is taken for that of the new one.
        min_free_gb: free space that the folder of results must have before a job of several processes starts.
        min_write_mb_per_s: slowest write to that folder that is still accepted.
        max_clock_skew_s: most that a node's clock may differ from that of the file system.
    """

    gpu_hours: float | None = Field(default=None, gt=0)
    max_tries: int = Field(default=3, ge=1, le=100)
    requeue_delay_s: float = Field(default=20.0, ge=2)
    min_free_gb: float = Field(default=1.0, ge=0)
    min_write_mb_per_s: float = Field(default=1.0, ge=0)
    max_clock_skew_s: float = Field(default=5.0, gt=0)


class Site(Options):
    """What a site offers to one job and how jobs start there.

    `nodes`, `gpus_per_node`, `tasks_per_node`, `cpus_per_node`, `mem_gb` (per node) and `timeout_min` are limits for
    one job; what is set for a purpose replaces what is set for the site.

    Attributes:
        gpu_request: how this site wants GPUs asked for; none where nodes come whole.
        gpu_type: of --gres=gpu:TYPE:N and the like.
        srun: further arguments of the srun that starts the ranks.
        modules: loaded before anything starts (module load).
        python: the interpreter of jobs; the one that submits unless given.
        environment: variables of every process.
        network_interface: what NCCL, gloo and Ray talk over.
        shared: where results must lie for every node to see them; planning checks it.
        scratch: a folder of each node for temporary files.
        offline: whether nodes reach no network beyond the cluster: nothing tries to.
        continuation: how a job goes on after its time limit. requeue: the same job again. chain: where requeuing is
            forbidden, each job queues its successor (--dependency=singleton).
        signal_lead_s: how long before the time limit a job is told to save; at least the time of two saves, as one may
            be on its way, and a minute.
        poll_s: how often the scheduler is asked, by all waiting commands of a results folder together.
        accounting: whether sacct answers here.
        mlflow_tracking_uri: none for SQLite beside the results.
    """

    description: Annotated[Text, Field(min_length=1)]
    executor: Literal["local", "slurm"]
    nodes: int = Field(ge=1)
    tasks_per_node: int = Field(ge=1)
    gpus_per_node: int = Field(default=0, ge=0)
    cpus_per_node: int | None = Field(default=None, ge=1)
    mem_gb: float = Field(gt=0)
    timeout_min: int = Field(ge=1)
    purposes: Mapping[Purpose, Options] = {}
    gpu_request: Literal["gpus-per-node", "gres", "gpus-per-task", "none"] = "gpus-per-node"
    gpu_type: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    srun: tuple[SrunArgument, ...] = ()
    modules: tuple[Name, ...] = ()
    container: Container | None = None
    python: AbsolutePath | None = None
    environment: Mapping[Variable, Text] = {}
    network_interface: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.^,=-]+$")] | None = None
    shared: AbsolutePath | None = None
    scratch: AbsolutePath | None = None
    offline: bool = False
    continuation: Literal["requeue", "chain"] = "requeue"
    signal_lead_s: int = Field(default=120, ge=1)
    poll_s: float = Field(default=10.0, ge=0.2, le=600)
    accounting: bool = True
    policies: Policies = Policies()
    mlflow_tracking_uri: TrackingUri | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuses settings that contradict each other, all at once."""
        found = [
            InitErrorDetails(type=PydanticCustomError("value_error", "{line}", {"line": line}), loc=place, input=None)
            for place, line in _contradictions(self)
        ]
        if found:
            raise ValidationError.from_exception_data("Site", found)
        return self

    def options(self, purpose: Purpose) -> Options:
        """Returns what the scheduler is told about a job of `purpose`: the site's options, then the purpose's own."""
        own = {name: getattr(self, name) for name in Options.model_fields}
        special = self.purposes.get(purpose, Options())
        given = {name: getattr(special, name) for name in special.model_fields_set}
        return Options(**{**own, **given, "sbatch": {**self.sbatch, **special.sbatch}})


_Place = tuple[str, ...]
_SCHEDULED = (set(Options.model_fields) - {"nodes", "timeout_min"}) | {
    *("accounting", "continuation", "gpu_request", "gpu_type", "modules", "network_interface", "purposes"),
    *("signal_lead_s", "srun"),
}
"""Settings that only a scheduler reads."""


def _contradictions(site: Site) -> Iterator[tuple[_Place, str]]:
    """Yields the settings that are sound alone but not together."""
    if site.executor == "local":
        yield from _unread(site)
        return
    yield from _limits(site)
    yield from _unseen(site)
    if site.gpus_per_node and site.gpu_request != "none":
        line = "must be left to Slurm, which gives each job its GPUs, but is set; remove it, or set gpu_request: none"
        yield from ((("environment", name), line) for name in site.environment if name.endswith("_VISIBLE_DEVICES"))
    if site.gpu_type and site.gpu_request == "none":
        yield ("gpu_type",), "must be left out where gpu_request is none, but is given; remove it"
    if site.gpu_type and not site.gpus_per_node:
        yield ("gpu_type",), "must be left out where gpus_per_node is 0, but is given; remove it or say how many"


def _unread(site: Site) -> Iterator[tuple[_Place, str]]:
    if site.nodes > 1:
        yield ("nodes",), f"must be 1 where executor is local, but is {site.nodes}; change it"
    for name in sorted(_SCHEDULED & site.model_fields_set):
        yield (name,), "must be left out where executor is local, as no scheduler reads it, but is given; remove it"
    if site.container and site.container.runtime == "pyxis":
        yield (
            ("container", "runtime"),
            "must be apptainer where executor is local, but is pyxis, a part of Slurm; change it",
        )


def _unseen(site: Site) -> Iterator[tuple[_Place, str]]:
    """Yields what hides the results from processes in an image: there, files lie only where a mount puts them."""
    if not site.container:
        return
    if not site.shared:
        yield ("container",), "must come with shared, the folder of results, but shared is not given; add it"
        return
    ends = [mount.split(":")[:2] for mount in site.container.mounts]
    if not any(
        outside == inside and f"{site.shared}/".startswith(f"{outside.rstrip('/')}/") for outside, inside in ends
    ):
        line = f"must show shared {site.shared} at the same path inside, but does not; add {site.shared}:{site.shared}"
        yield ("container", "mounts"), line


def _limits(site: Site) -> Iterator[tuple[_Place, str]]:
    """Yields the purposes that ask for more than the site, and time limits too short to be told of."""
    places: dict[_Place, int | None] = {("timeout_min",): site.timeout_min}
    for purpose, options in site.purposes.items():
        places["purposes", purpose, "timeout_min"] = options.timeout_min
        for name, given in (("nodes", site.nodes), ("timeout_min", site.timeout_min)):
            own = getattr(options, name)
            if own is not None and own > given:
                line = f"must be at most the site's {given}, but is {own}; lower it or raise the site's"
                yield ("purposes", purpose, name), line
    for place, minutes in places.items():
        if minutes is not None and minutes * 60 <= site.signal_lead_s:
            yield place, f"must be longer than signal_lead_s {site.signal_lead_s} s, but is {minutes} min; raise it"
