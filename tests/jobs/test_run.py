"""Run and site files: what is accepted, and the one line that each kind of mistake gets."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs._planning import describe, require_place
from jobs._run import ROOT, PlanningError, load, load_site

DOC = ROOT / "docs" / "planning-errors.md"
DEMO = (ROOT / "workflows/runs/demo.yaml").read_text()

Change = Callable[[dict[str, Any], dict[str, Any]], None]


def _set(path: str, value: Any, *, site: bool = False) -> Change:
    """Returns a change that sets `path`, such as pretrain.lr or prepare.sources.0.path, in the run or the site."""

    def change(run: dict[str, Any], place: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        here: Any = place if site else run
        for part in parents:
            here = here[part] if isinstance(part, int) else here.setdefault(part, {})
        here[last] = value

    return change


def _drop(path: str, *, site: bool = False) -> Change:
    def change(run: dict[str, Any], place: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        here: Any = place if site else run
        for part in parents:
            here = here[int(part) if part.isdigit() else part]
        del here[last]

    return change


def _site(**settings: Any) -> Change:
    """Returns a change of settings of the site."""
    return lambda _, place: place.update(settings)


def _resources(stage: str, **asked: int) -> Change:
    """Returns a change of what a stage of the run asks for."""
    return lambda run, _: run[stage].setdefault("resources", {}).update(asked)


def _all(*changes: Change) -> Change:
    def change(run: dict[str, Any], place: dict[str, Any]) -> None:
        for one in changes:
            one(run, place)

    return change


ON_LAPTOP: list[tuple[str, str, Change]] = [
    ("a misspelt section", "`pretrian:`", _set("pretrian", {"lr": 1})),
    ("a misspelt setting", "`train_iter: 100`", _set("pretrain.train_iter", 100)),
    ("a word for a number", "`lr: fast`", _set("pretrain.lr", "fast")),
    ("a number out of bounds", "`train_iters: 0`", _set("pretrain.train_iters", 0)),
    ("a fraction for a whole number", "`global_batch_size: 32.5`", _set("pretrain.global_batch_size", 32.5)),
    ("a required setting left out", "no `seq_length`", _drop("pretrain.seq_length")),
    ("a precision that does not exist", "`precision: fp8`", _set("pretrain.precision", "fp8")),
    ("an unknown model size", "`model: demmo`", _set("pretrain.model", "demmo")),
    ("processes that the layout cannot use", "`tasks_per_node: 6`", _set("pretrain.resources.tasks_per_node", 6)),
    ("heads not divisible", "`tensor_model_parallel_size: 3`", _set("pretrain.tensor_model_parallel_size", 3)),
    ("layers not divisible", "`pipeline_model_parallel_size: 3`", _set("pretrain.pipeline_model_parallel_size", 3)),
    ("a batch that does not divide", "`micro_batch_size: 5`", _set("pretrain.micro_batch_size", 5)),
    ("a rate that rises at its end", "`min_lr: 1.0`", _set("pretrain.min_lr", 1.0)),
    ("a warm-up longer than the run", "`lr_warmup_iters: 5000`", _set("pretrain.lr_warmup_iters", 5000)),
    (
        "a batch that grows past its size",
        "`rampup_batch_size: {start: 6, increment: 4, samples: 100}`",
        _set("pretrain.rampup_batch_size", {"start": 6, "increment": 4, "samples": 100}),
    ),
    (
        "a batch that grows by sizes of no layout",
        "`rampup_batch_size: {start: 1, increment: 1, samples: 100}`",
        _set("pretrain.rampup_batch_size", {"start": 1, "increment": 1, "samples": 100}),
    ),
    (
        "a phase after the end",
        "`phases: [{start_iter: 9999, mixture: {omics: 1}}]`",
        _set("pretrain.phases", [{"start_iter": 9999, "mixture": {"omics": 1}}]),
    ),
    (
        "a phase whose weights are no mixture",
        "`phases: [{start_iter: 9, mixture: {omics: 0.5}}]`",
        _set("pretrain.phases", [{"start_iter": 9, "mixture": {"omics": 0.5}}]),
    ),
    ("a setback that is not known", "`on_spike: retry`", _set("pretrain.on_spike", "retry")),
    ("a profile that ends before it starts", "`profile_steps: [9, 5]`", _set("pretrain.profile_steps", [9, 5])),
    ("more processes than the site has", "`tasks_per_node: 64`", _set("evaluate.resources.tasks_per_node", 64)),
    ("more time than the site allows", "`timeout_min: 9999`", _set("pretrain.resources.timeout_min", 9999)),
    ("a GPU where the site has none", "`gpus_per_node: 1`", _set("evaluate.resources.gpus_per_node", 1)),
    ("a modality that does not exist", "`modality: genes`", _set("prepare.sources.0.modality", "genes")),
    ("a file that is not there", "`path: nowhere.sdf`", _set("prepare.sources.0.path", "nowhere.sdf")),
    ("a variable that is not set", "`path: ${NO_SUCH}/a.sdf`", _set("prepare.sources.0.path", "${NO_SUCH}/a.sdf")),
    ("a format that is not read", "`path: notes.docx`", _set("prepare.sources.0.path", "notes.docx")),
    ("a source without a licence", "no `license`", _drop("prepare.sources.0.license")),
    ("a licence that is no SPDX name", "`license: free for all!`", _set("prepare.sources.0.license", "free for all!")),
    ("a licence that forbids the use", "`license: CC-BY-NC-4.0`", _set("prepare.sources.0.license", "CC-BY-NC-4.0")),
    ("a licence that binds the result", "`license: CC-BY-SA-4.0`", _set("prepare.sources.0.license", "CC-BY-SA-4.0")),
    ("a pattern that matches nothing", "`path: data/*.sdf`", _set("prepare.sources.0.path", "data/*.sdf")),
    ("an option of no use", "`options: {colour: 1}`", _set("prepare.sources.0.options", {"colour": 1})),
    ("two sources of one name", "`name: care` twice", _set("prepare.sources.0.name", "care")),
    ("all data held out", "`valid_fraction: 1`", _set("prepare.valid_fraction", 1)),
    ("a benchmark that does not exist", "`benchmarks: [cel_type]`", _set("evaluate.benchmarks", ["cel_type"])),
    ("a stream that no source fills", "`mixture: {images: 1}`", _set("tokenize.mixture", {"images": 1})),
    ("windows that would cut what was packed", "`pack_length: 128`", _set("tokenize.pack_length", 128)),
    (
        "a phase that nobody mixes",
        "`phases: [{start_iter: 9, mixture: late}]`",
        _set("pretrain.phases", [{"start_iter": 9, "mixture": "late"}]),
    ),
    ("an unknown GPU", "`gpu: b900`", _set("plan.gpu", "b900")),
    ("a seed that is no number", "`seed: lucky`", _set("seed", "lucky")),
    ("a site without an executor", "no `executor`", _drop("executor", site=True)),
    ("an executor that does not exist", "`executor: pbs`", _set("executor", "pbs", site=True)),
    ("a site setting that does not exist", "`partitions: gpu`", _set("partitions", "gpu", site=True)),
    ("a day that is none", "`deadline: soon`", _set("deadline", "soon")),
    ("a run to stand on that is not there", "`base: dmeo`", _set("base", "dmeo")),
    ("a run to stand on that stands on another", "`base: demo-cluster`", _set("base", "demo-cluster")),
    ("a description of two lines", '`description: "a\\nb"`', _site(description="a\nb")),
    ("a chain of jobs without a scheduler", "`continuation: chain`", _site(continuation="chain")),
    ("a partition without a scheduler", "`partition: gpu`", _site(partition="gpu")),
    ("an interface on one machine", "`network_interface: eth0`", _site(network_interface="eth0")),
    ("several nodes without a scheduler", "`nodes: 2`", _site(nodes=2)),
    (
        "Slurm's images without Slurm",
        "`runtime: pyxis`",
        _site(container={"runtime": "pyxis", "image": "medscale.sqsh"}),
    ),
]
_IMAGE = {"runtime": "apptainer", "image": "/images/medscale.sif"}
_TRAINING_ON_GPUS = _all(_set("plan.gpu", "h100"), _resources("pretrain", gpus_per_node=4))
ON_CLUSTER: list[tuple[str, str, Change]] = [
    ("more nodes than the cluster", "`nodes: 8`", _resources("pretrain", nodes=8)),
    (
        "more nodes than the partition",
        "`purposes: {train: {nodes: 1}}`, `nodes: 2`",
        _all(_site(purposes={"train": {"nodes": 1}}), _resources("pretrain", nodes=2)),
    ),
    ("more CPUs than a node has", "`cpus_per_task: 5`", _resources("pretrain", cpus_per_task=5)),
    ("more memory than a node has", "`mem_gb: 17`", _resources("pretrain", mem_gb=17)),
    (
        "a stage with no time to save",
        "`signal_lead_s: 60`, `timeout_min: 1`",
        _all(_site(signal_lead_s=60), _resources("pretrain", timeout_min=1)),
    ),
    ("a site with no time to save", "`signal_lead_s: 90000`", _site(signal_lead_s=90000)),
    (
        "processes that are not one for each GPU",
        "`tasks_per_node: 4`, `gpus_per_node: 8`",
        _all(_TRAINING_ON_GPUS, _resources("pretrain", gpus_per_node=8)),
    ),
    ("two processes on a node for Ray", "`tasks_per_node: 2`", _resources("evaluate", tasks_per_node=2)),
    ("two nodes for a stage of one process", "`nodes: 2`", _resources("report", nodes=2)),
    ("a budget that is too small", "`gpu_hours: 3`", _all(_TRAINING_ON_GPUS, _site(policies={"gpu_hours": 3}))),
    ("a budget below nothing", "`gpu_hours: -1`", _site(policies={"gpu_hours": -1})),
    ("a name with a space", "`partition: gpu long`", _site(partition="gpu long")),
    ("a name that a shell would run", "`account: a;reboot`", _site(account="a;reboot")),
    ("a module that a shell would run", "`modules: [cuda;reboot]`", _site(modules=["cuda;reboot"])),
    ("an unknown purpose", "`purposes: {trian: {}}`", _site(purposes={"trian": {}})),
    (
        "an unknown option of a purpose",
        "`purposes: {train: {partitoin: gpu}}`",
        _site(purposes={"train": {"partitoin": "gpu"}}),
    ),
    (
        "a purpose beyond its site",
        "`purposes: {train: {nodes: 5, timeout_min: 2000}}`",
        _site(purposes={"train": {"nodes": 5, "timeout_min": 2000}}),
    ),
    ("an image that is not named", "`container: {runtime: pyxis}`", _site(container={"runtime": "pyxis"})),
    ("an unknown container runtime", "`runtime: docker`", _site(container={**_IMAGE, "runtime": "docker"})),
    ("an image without a shared folder", "`container` without `shared`", _site(container=_IMAGE)),
    (
        "a mount without its inside",
        "`mounts: [/data]`",
        _site(shared="/", container={**_IMAGE, "mounts": ["/data"]}),
    ),
    (
        "an image that hides the results",
        "`shared: /data`, `mounts: [/data:/mnt]`",
        _site(shared="/data", container={**_IMAGE, "mounts": ["/data:/mnt"]}),
    ),
    ("an option that medscale gives itself", "`sbatch: {requeue: true}`", _site(sbatch={"requeue": True})),
    ("the beginning of such an option", "`sbatch: {job-nam: x}`", _site(sbatch={"job-nam": "x"})),
    ("an option with its dashes", "`sbatch: {--nice: 5}`", _site(sbatch={"--nice": 5})),
    ("an option of two words", "`sbatch: {licenses: a b}`", _site(sbatch={"licenses": "a b"})),
    ("an argument without its dashes", "`srun: [mpi=pmix]`", _site(srun=["mpi=pmix"])),
    ("an argument that medscale gives itself", "`srun: [--ntasks=3]`", _site(srun=["--ntasks=3"])),
    ("a variable that medscale sets", '`environment: {RANK: "0"}`', _site(environment={"RANK": "0"})),
    (
        "a variable that Slurm sets",
        '`environment: {CUDA_VISIBLE_DEVICES: "0"}`',
        _site(environment={"CUDA_VISIBLE_DEVICES": "0"}),
    ),
    ("a secret in a variable", "`environment: {HF_TOKEN: hf_1}`", _site(environment={"HF_TOKEN": "hf_1"})),
    ("a number for a text", "`environment: {OMP_NUM_THREADS: 8}`", _site(environment={"OMP_NUM_THREADS": 8})),
    ("a variable of no shell", "`environment: {A-B: x}`", _site(environment={"A-B": "x"})),
    (
        "a password in an address",
        "`mlflow_tracking_uri: https://me:secret@host`",
        _site(mlflow_tracking_uri="https://me:secret@host"),
    ),
    ("an address that is none", "`mlflow_tracking_uri: host:5000`", _site(mlflow_tracking_uri="host:5000")),
    (
        "an address with a broken host",
        "`mlflow_tracking_uri: http://[host`",
        _site(mlflow_tracking_uri="http://[host"),
    ),
    ("an unknown way to ask for GPUs", "`gpu_request: gpu`", _site(gpu_request="gpu")),
    (
        "a type of GPUs that are not asked for",
        "`gpu_type: h100`, `gpu_request: none`",
        _site(gpu_type="h100", gpu_request="none"),
    ),
    ("a type of no GPUs", "`gpu_type: h100`, `gpus_per_node: 0`", _site(gpu_type="h100", gpus_per_node=0)),
    ("an unknown way to go on", "`continuation: restart`", _site(continuation="restart")),
    ("a shared folder that is no full path", "`shared: data`", _site(shared="data")),
    ("a shared folder that is not there", "`shared: /nowhere/shared`", _site(shared="/nowhere/shared")),
    (
        "more scoring processes than CPUs",
        "`workers: 5` on 2 nodes",
        _all(_set("evaluate.workers", 5), _resources("evaluate", nodes=2, cpus_per_task=2)),
    ),
    (
        "another Ray beside the stage's own nodes",
        "`ray_address: head:6379` on 2 nodes",
        _all(_set("evaluate.ray_address", "head:6379"), _resources("evaluate", nodes=2, cpus_per_task=2)),
    ),
]
CASES = [(*case, "laptop") for case in ON_LAPTOP] + [(*case, "cluster-test") for case in ON_CLUSTER]


def _lines(change: Change, folder: Path, *, base: str = "laptop") -> list[str]:
    run, site = yaml.safe_load(DEMO), yaml.safe_load((ROOT / f"slurm/sites/{base}.yaml").read_text())
    change(run, site)
    (folder / "mine.yaml").write_text(yaml.safe_dump(run))
    (folder / "place.yaml").write_text(yaml.safe_dump(site))
    (folder / "sbatch").touch(mode=0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))  # a machine where jobs are submitted, with or without Slurm on this one
        with pytest.raises(PlanningError, match=r".") as caught:
            load(str(folder / "mine.yaml"), str(folder / "place.yaml"))
    return [line.replace(f"{folder}/", "").replace(f"{ROOT}/", "") for line in caught.value.lines]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_a_mistake_gets_lines_that_say_what_to_do(case: tuple[str, str, Change, str], tmp_path: Path) -> None:
    lines = _lines(case[2], tmp_path, base=case[3])
    assert 1 <= len(lines) <= 3
    for line in lines:
        assert "must " in line or "no such " in line, f"must say what must hold: {line}"
        assert "; " in line, f"must say what to do: {line}"
        assert "\n" not in line


def _cell(line: str) -> str:
    return "`" + line.replace("|", "\\|") + "`"


def test_the_table_of_mistakes_in_the_docs_is_what_people_get(tmp_path: Path) -> None:
    rows = [
        f"| {name} | {base} | {shown} | {'<br>'.join(map(_cell, _lines(change, tmp_path, base=base)))} |"
        for name, shown, change, base in CASES
    ]
    table = "\n".join(rows)
    text = (
        "# What planning refuses\n\n"
        "Nothing is queued until the run file and the site file hold together. Every mistake is one line, and all\n"
        "come at once. Each row is one mistake made in `workflows/runs/demo.yaml`, or in the file of the site it is\n"
        "planned at, the laptop or the test cluster; a test makes this table, and `UPDATE_DOCS=1 make test` writes\n"
        "it anew.\n\n"
        f"| mistake | site | as written | what it gets |\n|---|---|---|---|\n{table}\n"
    )
    if os.environ.get("UPDATE_DOCS"):
        DOC.write_text(text)
    assert DOC.read_text() == text, (
        "run `UPDATE_DOCS=1 .venv/bin/pytest tests/jobs/test_run.py` to write the table anew"
    )


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    def change(run: dict[str, Any], site: dict[str, Any]) -> None:
        for one in (ON_LAPTOP[1][2], ON_LAPTOP[18][2], _set("executor", "pbs", site=True)):
            one(run, site)

    assert len(_lines(change, tmp_path)) >= 3


def test_contradictions_of_a_site_come_at_once(tmp_path: Path) -> None:
    change = _site(gpu_type="h100", gpu_request="none", container=_IMAGE, purposes={"cpu": {"nodes": 9}})
    assert [line.split(":")[0] for line in _lines(change, tmp_path, base="cluster-test")] == [
        "site place.purposes.cpu.nodes",
        "site place.container",
        "site place.gpu_type",
    ]


@pytest.mark.parametrize(
    "uri", ["https://me:pass9word@host", "postgresql://h/db?password=pass9word", "http://:pass9word@["]
)
def test_a_password_is_refused_and_never_shown(uri: str, tmp_path: Path) -> None:
    (line,) = _lines(_site(mlflow_tracking_uri=uri), tmp_path, base="cluster-test")
    assert line.startswith("site place.mlflow_tracking_uri: must ")
    assert "pass9word" not in line


def test_a_shared_folder_need_not_be_where_plans_are_made_but_no_job_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load("demo", "university")[1].shared == "/gpfs/projects/p0123"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2\n", "the key 'seed' occurs twice"),
        ("- a\n", "must hold `name: value` lines"),
        ("seed: [1\n", "must be YAML"),
        (b"seed: \xff\xfe", "must be YAML in UTF-8"),
    ],
    ids=["a key twice", "a list", "broken YAML", "not UTF-8"],
)
def test_a_file_that_is_no_run_is_one_line(text: str | bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PlanningError, match=says) as caught:
        load(str(tmp_path / "mine.yaml"), "laptop")
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("run", "site", "says"),
    [
        ("dmeo", "laptop", "run: must be a file of workflows/runs or a path to a .yaml file, but is 'dmeo'; {}demo?"),
        ("demo", "lapto", "site: must be a file of slurm/sites or a path to a .yaml file, but is 'lapto'; {}laptop?"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_the_nearest(run: str, site: str, says: str) -> None:
    with pytest.raises(PlanningError, match=r".") as caught:
        load(run, site)
    assert caught.value.lines == (says.format("did you mean "),)


def test_a_run_name_becomes_a_folder_so_it_is_plain(tmp_path: Path) -> None:
    (tmp_path / "My Run.yaml").write_text(DEMO)
    with pytest.raises(PlanningError, match="must be named in lower-case letters"):
        load(str(tmp_path / "My Run.yaml"), "laptop")


def test_numbers_written_as_people_do_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(DEMO.replace("lr: 4.0e-3", "lr: 4e-3"))
    run, _ = load(str(tmp_path / "mine.yaml"), "laptop")
    assert run.given["pretrain"]["lr"] == 0.004


def test_resources_are_no_part_of_what_a_stage_depends_on(tmp_path: Path) -> None:
    changed = copy.deepcopy(yaml.safe_load(DEMO))
    changed["pretrain"]["resources"]["timeout_min"] = 17
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(changed))
    assert load(str(tmp_path / "demo.yaml"), "laptop")[0].given == load("demo", "laptop")[0].given


def test_a_plan_shows_nodes_processes_gpus_and_the_longest_time() -> None:
    run, site = load("demo", "laptop")
    table = describe(run, site, site_name="laptop")
    assert table.startswith("run demo at laptop (this machine, without a scheduler; executor local)")
    assert "pretrain      1          4     0" in table


def test_a_site_can_be_read_alone() -> None:
    assert load_site("laptop").executor == "local"
    with pytest.raises(PlanningError, match="did you mean laptop"):
        load_site("laptopp")


def test_the_command_line_refuses_with_status_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "check", "--run", "dmeo"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("run: must be")


def test_a_run_may_stand_on_another_and_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: demo\nseed: 7\npretrain: {lr: 1e-3, resources: {mem_gb: 7}}\n")
    mine, _ = load(str(tmp_path / "mine.yaml"), "laptop")
    demo, _ = load("demo", "laptop")
    assert (mine.name, mine.seed) == ("mine", 7)
    assert mine.given["pretrain"] == {**demo.given["pretrain"], "lr": 0.001}
    ours, theirs = mine.sections["pretrain"].resources, demo.sections["pretrain"].resources
    assert ours == theirs.model_copy(update={"mem_gb": 7})
    assert {name: mine.given[name] for name in mine.given if name != "pretrain"} == {
        name: demo.given[name] for name in demo.given if name != "pretrain"
    }


def test_a_deadline_is_a_day(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: demo\ndeadline: 2030-01-02\n")
    assert load(str(tmp_path / "mine.yaml"), "laptop")[0].deadline == date(2030, 1, 2)


def test_jobs_start_only_where_they_can_be_submitted_and_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, laptop = load("demo", "laptop")
    require_place(laptop, tmp_path)
    site = load_site("cluster-test").model_copy(update={"shared": "/gpfs"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlanningError, match=r".") as caught:
        require_place(site, tmp_path)
    assert caught.value.lines == (
        "sbatch must be on the PATH where jobs are submitted, but is not; load Slurm's module or log in there",
        (
            f"results: must lie under /gpfs, which all nodes see (the site's shared), but lie in {tmp_path}; "
            "give --results, or config results= to Snakemake"
        ),
    )
