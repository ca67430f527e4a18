"""Site files: those that are shipped, what they plan, and the page that explains every setting."""

import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from jobs._run import ROOT, PlanningError, load, load_site
from slurm._words import OWN_OPTIONS
from slurm.resources import Resources
from slurm.site import Container, Options, Policies, Site

SITES = sorted(path.stem for path in (ROOT / "slurm/sites").glob("*.yaml"))
SLURM = [name for name in SITES if name != "laptop"]
RUNS = sorted(path.stem for path in (ROOT / "workflows/runs").glob("*.yaml"))
FITS = {
    "demo": set(SITES),
    "seven_scales": set(SITES),
    "demo-cluster": {"cluster-test", "b200-cloud", "university"},
    "dense_32b": {"b200-cloud"},
    "gravity_16b_a3b": {"b200-cloud"},
}
PAGE = (ROOT / "docs/sites.md").read_text()
BASE = {"description": "x", "executor": "slurm", "nodes": 4, "tasks_per_node": 8, "mem_gb": 16, "timeout_min": 60}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, shipped_data: None) -> None:
    """A machine without Slurm where the data of every shipped run lie."""
    monkeypatch.setattr("jobs._run.shutil.which", mock.Mock(return_value=None))


def test_a_laptop_a_test_cluster_and_three_examples_are_shipped() -> None:
    assert SITES == ["b200-cloud", "cluster-test", "hospital", "laptop", "university"]


@pytest.mark.parametrize("site", SITES)
def test_a_shipped_site_is_sound_and_explained_by_comments(site: str) -> None:
    assert load_site(site).description
    text = (ROOT / f"slurm/sites/{site}.yaml").read_text()
    assert text.startswith("# ")
    assert text.count("#") >= 3, "a site file must say in short comments what people have to know"


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.usefixtures("elsewhere")
def test_a_shipped_run_plans_where_it_fits_and_is_refused_in_clear_lines_elsewhere(run: str, site: str) -> None:
    if site in FITS[run]:
        assert load(run, site)[0].name == run
        return
    with pytest.raises(PlanningError, match="must be at most") as caught:
        load(run, site)
    for line in caught.value.lines:
        assert re.match(r"[\w.]+: must .*, but .*; ", line), line


@pytest.mark.parametrize("site", SLURM)
def test_a_site_can_run_a_job_as_large_as_it_says(site: str) -> None:
    place = load_site(site)
    full = Resources(
        nodes=place.nodes,
        tasks_per_node=place.gpus_per_node,
        gpus_per_node=place.gpus_per_node,
        mem_gb=place.mem_gb,
        timeout_min=place.timeout_min,
    )
    assert list(full.problems(place, spread="ranks", purpose="train")) == []


def test_the_examples_differ_in_what_they_show() -> None:
    cloud, university, hospital = (load_site(name) for name in ("b200-cloud", "university", "hospital"))
    assert (cloud.nodes * cloud.gpus_per_node, cloud.signal_lead_s, cloud.options("train").exclusive) == (
        256,
        600,
        True,
    )
    assert len({cloud.options(purpose).partition for purpose in ("cpu", "train", "evaluate")}) == 3
    assert (university.continuation, university.offline, university.timeout_min) == ("chain", True, 48 * 60)
    assert (hospital.nodes, hospital.gpus_per_node, hospital.accounting) == (1, 1, False)


def test_what_is_set_for_a_purpose_replaces_what_is_set_for_the_site() -> None:
    changes = {"partition": "a", "qos": "q", "sbatch": {"nice": 5, "tmp": 1}}
    train = {"partition": "b", "qos": None, "sbatch": {"nice": 9}}
    site = Site.model_validate({**BASE, **changes, "purposes": {"train": train}})
    told = site.options("train")
    assert (told.partition, told.qos, told.sbatch) == ("b", None, {"nice": 9, "tmp": 1})
    assert (told.nodes, told.timeout_min) == (4, 60), "limits are the site's unless the purpose has its own"
    assert site.options("cpu").partition == "a"


def test_every_option_that_a_job_gets_is_refused_in_a_site() -> None:
    full = Site.model_validate(
        {**BASE, "gpus_per_node": 8, "purposes": {"cpu": dict.fromkeys(("partition", "account", "qos"), "x")}}
    )
    size = Resources(nodes=2, tasks_per_node=8, gpus_per_node=8, mem_gb=1)
    assert set(size.sbatch_options(full, name="n", purpose="cpu", comment="c")) <= OWN_OPTIONS
    scheduled = set(Options.model_fields) - {"timeout_min", "sbatch"}
    assert scheduled <= OWN_OPTIONS, "what has a setting must be set there"


@pytest.mark.parametrize(
    "name",
    ["SLURM_CPUS_PER_TASK", "MASTER_PORT", "WORLD_SIZE", "WANDB_API_KEY", "DB_PASSWORD"],
)
def test_variables_of_slurm_and_secrets_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"must (not set what medscale or Slurm sets|hold no secret), .*; "):
        Site.model_validate({**BASE, "environment": {name: "1"}})


def test_gpus_are_named_by_hand_only_where_slurm_does_not_give_them() -> None:
    settings = {**BASE, "gpus_per_node": 8, "environment": {"CUDA_VISIBLE_DEVICES": "0,1"}}
    with pytest.raises(
        ValidationError, match="must be left to Slurm, which gives each job its GPUs, but is set; remove"
    ):
        Site.model_validate(settings)
    assert Site.model_validate({**settings, "gpu_request": "none"}).environment


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "NCCL_IB_PKEY", "OMP_NUM_THREADS", "FI_CXI_RX_MATCH_MODE"])
def test_variables_that_only_look_like_secrets_are_taken(name: str) -> None:
    assert Site.model_validate({**BASE, "environment": {name: "1"}}).environment == {name: "1"}


@pytest.mark.parametrize(
    "uri",
    ["https://mlflow.example.org", "http://10.88.0.1:5000", "sqlite:////data/mlflow.db", "postgresql://me@host/db"],
)
def test_addresses_without_a_password_are_taken(uri: str) -> None:
    assert Site.model_validate({**BASE, "mlflow_tracking_uri": uri}).mlflow_tracking_uri == uri


@pytest.mark.parametrize(
    ("shared", "mounts", "sound"),
    [
        ("/data/p1", ["/data:/data"], True),
        ("/data/p1", ["/data/p1/:/data/p1/:rw"], True),
        ("/data", ["/:/"], True),
        ("/data/p1", ["/data/p:/data/p"], False),
        ("/data", ["/data:/mnt"], False),
        ("/data", [], False),
    ],
)
def test_an_image_must_show_the_shared_folder_at_its_own_path(shared: str, mounts: list[str], sound: bool) -> None:
    settings = {**BASE, "shared": shared, "container": {"runtime": "apptainer", "image": "a.sif", "mounts": mounts}}
    if sound:
        assert Site.model_validate(settings).container
    else:
        with pytest.raises(
            ValidationError, match=f"must show shared {shared} at the same path inside, but does not; add"
        ):
            Site.model_validate(settings)


def test_a_machine_without_a_scheduler_may_use_an_image() -> None:
    image = {"runtime": "apptainer", "image": "a.sif"}
    assert Site.model_validate({**BASE, "executor": "local", "nodes": 1, "container": image}).container


def _table(heading: str) -> dict[str, str]:
    """Returns setting -> default of the table under a heading of docs/sites.md."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE))


def _default(model: type[BaseModel], name: str) -> str:
    value: Any = model.model_fields[name].get_default(call_default_factory=False)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value in ({}, ()):
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(
    ("heading", "model", "left_out"),
    [
        ("What the site offers", Site, set(Options.model_fields) - {"nodes", "timeout_min"}),
        ("What the scheduler is told", Options, set()),
        ("The image", Container, set()),
        ("The policies", Policies, set()),
    ],
    ids=["site", "options", "container", "policies"],
)
def test_every_setting_has_a_row_with_its_default(heading: str, model: type[BaseModel], left_out: set[str]) -> None:
    names = set(model.model_fields) - left_out
    assert _table(heading) == {name: _default(model, name) for name in names}, (
        f"mend the table in docs/sites.md: {heading}"
    )


def test_the_example_in_the_page_is_a_site(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert Site.model_validate(yaml.safe_load(block)).nodes == 2


def test_every_shipped_site_is_in_the_page() -> None:
    assert re.findall(r"slurm/sites/([\w-]+)\.yaml\)", PAGE) == [
        "b200-cloud",
        "university",
        "hospital",
        "laptop",
        "cluster-test",
    ]
