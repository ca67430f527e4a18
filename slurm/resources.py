"""What a stage asks of a site: nodes, tasks, GPUs, memory and time, in Slurm's words."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from slurm.site import Purpose, Site

Spread = Literal["one", "nodes", "ranks"]
"""How a stage is started: as one process, as one process on each node, or as ranks, one for each GPU."""


class Resources(BaseModel):
    """The size of one job. `tasks_per_node` processes are started on each of `nodes` nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(default=1, ge=1)
    tasks_per_node: int = Field(default=1, ge=1)
    gpus_per_node: int = Field(default=0, ge=0)
    cpus_per_task: int = Field(default=1, ge=1)
    mem_gb: float | None = Field(default=None, gt=0)
    timeout_min: int = Field(default=60, ge=1)

    @property
    def world_size(self) -> int:
        """The number of processes of the job."""
        return self.nodes * self.tasks_per_node

    @property
    def gpu_hours(self) -> float:
        """The GPU-hours that the job may use at most."""
        return self.nodes * self.gpus_per_node * self.timeout_min / 60

    def problems(self, site: Site, *, spread: Spread, purpose: Purpose) -> Iterator[str]:
        """Yields what `site` cannot give or the stage cannot use: what must hold, what was found, what to do.

        Args:
            site: where the job is to run.
            spread: how the stage is started.
            purpose: which of the site's partitions it is for.
        """
        options = site.options(purpose)
        cpus = self.tasks_per_node * self.cpus_per_task
        limits = (
            ("nodes", self.nodes, options.nodes),
            ("gpus_per_node", self.gpus_per_node, site.gpus_per_node),
            ("tasks_per_node", self.tasks_per_node, site.tasks_per_node),
            ("cpus_per_task", cpus, site.cpus_per_node),
            ("timeout_min", self.timeout_min, options.timeout_min),
            ("mem_gb", self.mem_gb or 0, site.mem_gb),
        )
        for name, asked, given in limits:
            if given is not None and asked > given:
                what = "CPUs a node" if name == "cpus_per_task" else ""
                limit = f"must be at most {given:g} {what}".rstrip() + f" on this site, but is {asked:g}"
                yield f"{name}: {limit}; ask for less or choose another site"
        yield from self._misspread(spread)
        yield from self._out_of_time(site)

    def _misspread(self, spread: Spread) -> Iterator[str]:
        if spread == "ranks" and self.gpus_per_node and self.tasks_per_node != self.gpus_per_node:
            yield (
                f"tasks_per_node: must equal gpus_per_node ({self.gpus_per_node}), one process per GPU, "
                f"but is {self.tasks_per_node}; set both to the same number"
            )
        if spread == "nodes" and self.tasks_per_node > 1:
            yield (
                f"tasks_per_node: must be 1, for this stage starts its own workers on each node, but is "
                f"{self.tasks_per_node}; leave it out"
            )
        if spread == "one" and self.world_size > 1:
            yield (
                f"tasks_per_node: must be 1 on 1 node, for this stage starts its own workers, but there would be "
                f"{self.world_size} processes; leave both out"
            )

    def _out_of_time(self, site: Site) -> Iterator[str]:
        if site.executor == "slurm" and self.timeout_min * 60 <= site.signal_lead_s:
            yield (
                f"timeout_min: must be more than the site's signal_lead_s {site.signal_lead_s} s, when a job is told "
                f"to save, but is {self.timeout_min} min; raise it"
            )

    def sbatch_options(self, site: Site, *, name: str, purpose: Purpose, comment: str = "") -> dict[str, Any]:
        """Returns the job's sbatch options by their long names, in the order that people read; True is a bare flag.

        Args:
            site: where the job is to run.
            name: the job's name, `<run>.<stage>`.
            purpose: which of the site's partitions it is for.
            comment: what tells people and medscale whose job this is.
        """
        told = site.options(purpose)
        whole = {"mem": "0"} if told.exclusive else {}  # all of a node that nobody else is on
        memory = whole if self.mem_gb is None else {"mem": f"{round(self.mem_gb * 1000)}M"}
        chosen = {
            "job-name": name,
            "partition": told.partition,
            "account": told.account,
            "qos": told.qos,
            "constraint": told.constraint,
            "reservation": told.reservation,
            "exclude": told.exclude,
            "exclusive": told.exclusive or None,
            "nodes": self.nodes,
            "ntasks-per-node": self.tasks_per_node,
            "cpus-per-task": self.cpus_per_task,
            **self._gpus(site),
            **memory,
            "time": self.timeout_min,
            "signal": f"USR2@{site.signal_lead_s}",
            "requeue" if site.continuation == "requeue" else "no-requeue": True,
            "open-mode": "append",
            "dependency": "singleton",
            "comment": comment or None,
            **told.sbatch,
        }
        return {option: value for option, value in chosen.items() if value is not None}

    def _gpus(self, site: Site) -> dict[str, str]:
        if not self.gpus_per_node or site.gpu_request == "none":
            return {}
        kind = f"{site.gpu_type}:" if site.gpu_type else ""
        if site.gpu_request == "gres":
            return {"gres": f"gpu:{kind}{self.gpus_per_node}"}
        if site.gpu_request == "gpus-per-task":
            return {"gpus-per-task": f"{kind}{self.gpus_per_node // self.tasks_per_node}"}
        return {"gpus-per-node": f"{kind}{self.gpus_per_node}"}
