"""The environment: what the locks may hold, that they are in step with pyproject.toml, and what is installed."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
LEFT_OUT = set(PROJECT["tool"]["uv"]["pip"]["no-emit-package"])
LOCKS = ["requirements.lock", "requirements-site.lock", "demo-data.lock"]
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; [^\\]+)? \\$")


def pins(lock: str) -> dict[str, Version]:
    """The version of each package in a lock file."""
    lines = (ROOT / lock).read_text().splitlines()
    found = [match for line in lines if (match := PIN.match(line))]
    return {match["name"]: Version(match["version"]) for match in found}


def requirements(*, extra: str = "", groups: tuple[str, ...] = ()) -> Iterator[Requirement]:
    """What pyproject.toml asks for directly; an extra may name other extras of medscale."""
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"], *extras.get(extra, [])]
    for group in groups:
        asked += PROJECT["dependency-groups"][group]
    for text in asked:
        requirement = Requirement(text)
        if requirement.name != "medscale":
            yield requirement
        for named in requirement.extras if requirement.name == "medscale" else ():
            yield from map(Requirement, extras[named])


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_hashed_pins_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "//" not in text
    assert " @ " not in text
    for line, following in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if line and not line.startswith(("#", " ")):
            assert PIN.match(line), line
            assert following.startswith("    --hash=sha256:"), line


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_leaves_torch_and_cuda_to_the_site(lock: str) -> None:
    brought = [name for name in pins(lock) if re.match(r"torch$|triton|nvidia-|cuda-", name)]
    assert brought == [], "add these to no-emit-package in pyproject.toml and run `make lock`"


@pytest.mark.parametrize(
    ("lock", "extra", "groups"),
    [
        ("requirements.lock", "full", ("build", "dev")),
        ("requirements-site.lock", "site", ("build",)),
    ],
)
def test_lock_is_in_step_with_pyproject(lock: str, extra: str, groups: tuple[str, ...]) -> None:
    locked = pins(lock)
    direct = {canonicalize_name(r.name): r for r in requirements(extra=extra, groups=groups)}
    for name, requirement in direct.items():
        if name not in LEFT_OUT:
            assert requirement.specifier.contains(locked[name]), f"{requirement}: run `make lock`"
    assert asked_by_medscale(lock) == set(direct) - LEFT_OUT


def asked_by_medscale(lock: str) -> set[str]:
    """Packages that a lock says medscale itself asked for."""
    entries = re.split(r"\n(?=[a-z0-9-]+==)", (ROOT / lock).read_text())
    return {entry.split("==")[0] for entry in entries[1:] if re.search(r"#.* medscale\b", entry)}


def test_demo_data_is_in_step_with_pyproject() -> None:
    asked = [Requirement(text) for text in PROJECT["dependency-groups"]["demo-data"]]
    assert {f"{r.name}{r.specifier}" for r in asked} == {f"{n}=={v}" for n, v in pins("demo-data.lock").items()}


def test_demo_data_holds_every_file_that_the_demo_names() -> None:
    demo = (ROOT / "workflows/runs/demo.yaml").read_text()
    paths = re.findall(r"path: (\.demo-data/\S+)", demo)
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == [], "run `make demo-data`"


def test_site_lock_is_a_part_of_the_full_lock_without_training() -> None:
    full, site = pins("requirements.lock"), pins("requirements-site.lock")
    assert site.items() <= full.items()
    assert not {"megatron-core", "flwr", "pytest"} & set(site)


def test_pins_that_have_a_reason() -> None:
    locked = pins("requirements.lock")
    assert locked["mlflow"] == locked["mlflow-skinny"] == Version("3.17.2")
    assert locked["megatron-core"] >= Version("0.19.2")
    assert "psutil" in {r.name for r in requirements()}


def test_flwr_is_asked_for_without_its_pin_of_ray() -> None:
    (flwr,) = [r for r in requirements(extra="federate") if r.name == "flwr"]
    assert flwr.extras == set()
    pinned = [Requirement(text) for text in metadata.requires("flwr") or []]
    assert all(r.marker and "extra" in str(r.marker) for r in pinned if r.name == "ray")


def test_setup_installs_the_torch_that_pyproject_names() -> None:
    asked = [str(r) for r in requirements(extra="train") if r.name == "torch"]
    (default,) = re.findall(r"TORCH_REQUIREMENT:-([^}]+)}", (ROOT / "setup.sh").read_text())
    assert asked == [default]


def test_python_version_is_one_that_the_project_takes() -> None:
    pinned = (ROOT / ".python-version").read_text().strip()
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(pinned)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_provides_our_packages(package: str) -> None:
    assert set(metadata.packages_distributions().get(package, [])) <= {"medscale"}


def setup(folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a copy of setup.sh in an empty folder, with only the named tools on its PATH."""
    for name in ("setup.sh", "pyproject.toml", ".python-version", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    command = [shutil.which("bash") or "bash", "setup.sh"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)


def tools(folder: Path, *names: str) -> str:
    """A folder that holds only the named programs."""
    folder.mkdir()
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for name in names:
        (folder / name).symlink_to(shutil.which(name, path=search) or name)
    return str(folder)


def test_setup_says_what_to_do_without_python(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "dirname", "uv")
    done = setup(tmp_path, {"PATH": path, "UV_PYTHON": "3.99", "HOME": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == (
        "setup: Python 3.12 must be on this machine, but none was found; install it (python3.12, "
        "module load python/3.12, pyenv install 3.12) or set UV_PYTHON=/path/to/python3.12\n"
    )


def test_setup_says_what_to_do_without_uv_and_without_any_python(tmp_path: Path) -> None:
    done = setup(tmp_path, {"PATH": tools(tmp_path / "bin", "dirname"), "HOME": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == (
        "setup: uv must be on the PATH, or a Python >= 3.9 with venv to install it, but neither was found; "
        "install uv or python3-venv\n"
    )
