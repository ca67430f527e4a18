"""What a stage asks of a site: nodes, tasks, GPUs, memory and time, in Slurm's words."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from slurm.site import Site


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

    def problems(self, site: Site, *, parallel: bool) -> Iterator[str]:
        """Yields what `site` cannot give or the stage cannot use: what must hold, what was found, what to do.

        Args:
            site: where the job is to run.
            parallel: whether the stage is made of ranks; one that is not starts workers of its own.
        """
        limits = (
            ("nodes", self.nodes, site.nodes),
            ("gpus_per_node", self.gpus_per_node, site.gpus_per_node),
            ("tasks_per_node", self.tasks_per_node, site.tasks_per_node),
            ("timeout_min", self.timeout_min, site.timeout_min),
            ("mem_gb", self.mem_gb or 0, site.mem_gb),
        )
        for name, asked, given in limits:
            if asked > given:
                limit = f"must be at most {given:g} on this site, but is {asked:g}"
                yield f"{name}: {limit}; ask for less or choose another site"
        if parallel and self.gpus_per_node and self.tasks_per_node != self.gpus_per_node:
            yield (
                f"tasks_per_node: must equal gpus_per_node ({self.gpus_per_node}), one process per GPU, "
                f"but is {self.tasks_per_node}; set both to the same number"
            )
        if not parallel and self.world_size > 1:
            yield (
                f"tasks_per_node: must be 1 on 1 node, for this stage starts its own workers, but there would be "
                f"{self.world_size} processes; leave both out"
            )
