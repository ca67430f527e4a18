"""A site: one cluster, laptop or hospital, described by one file in slurm/sites/."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Site(BaseModel):
    """What a site offers to one job and how jobs start there.

    `nodes`, `gpus_per_node`, `tasks_per_node`, `mem_gb` (per node) and `timeout_min` are limits for one job.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(min_length=1)
    executor: Literal["local", "slurm"]
    nodes: int = Field(ge=1)
    tasks_per_node: int = Field(ge=1)
    gpus_per_node: int = Field(default=0, ge=0)
    mem_gb: float = Field(gt=0)
    timeout_min: int = Field(ge=1)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    environment: dict[str, str] = {}
    mlflow_tracking_uri: str | None = Field(default=None, description="none: SQLite beside the results")
