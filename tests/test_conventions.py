"""The house rules, as tests: each failure names the file and the rule."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs._run import ROOT, config_type, load, stages
from jobs._stage import StageConfig

PACKAGES = ("corpus", "evaluation", "jobs", "parallelism", "slurm")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = ("torch", "ray", "mlflow", "megatron", "transformers", "zarr", "anndata", "rdkit", "pandas")


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _public_functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text())
    nodes = [*tree.body, *(node for part in tree.body if isinstance(part, ast.ClassDef) for node in part.body)]
    return [node for node in nodes if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def test_the_stages_are_the_public_modules_of_jobs() -> None:
    public = {path.stem for path in (ROOT / "jobs").glob("*.py") if not path.stem.startswith("_")}
    assert public == set(stages()), "jobs/ and the includes of the Snakefile must name the same stages"


@pytest.mark.parametrize("stage", stages())
def test_a_stage_is_job_rule_test_and_include(stage: str) -> None:
    for path in (f"jobs/{stage}.py", f"workflows/rules/{stage}.smk", f"tests/jobs/test_{stage}.py"):
        assert (ROOT / path).is_file(), f"the stage {stage} must have {path}; write it"
    assert issubclass(config_type(stage), StageConfig)
    assert config_type(stage).__name__ == f"{stage.title()}Config"


def test_all_rules_are_alike() -> None:
    def shape(stage: str) -> str:
        text = (ROOT / f"workflows/rules/{stage}.smk").read_text().split("\n", 1)[1]
        without_input = re.sub(r"    input:\n(        record\(\"\w+\"\),\n)+", "", text)
        return without_input.replace(f'"{stage}"', '"STAGE"').replace(f"rule {stage}:", "rule STAGE:")

    shapes = {shape(stage) for stage in stages()}
    assert len(shapes) == 1, f"every rule must have input, output, log, params, resources and shell alike: {shapes}"


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_a_file_says_what_it_is_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} must begin with a docstring that says what it is"
    assert text.startswith('"""'), f"{path} must begin with its docstring"
    assert len(text.splitlines()) <= 400, f"{path} must have at most 400 lines; split it"


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_arguments_beyond_the_second_are_keyword_only(path: Path) -> None:
    for function in _public_functions(path):
        names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
        overrides = function.name in ("forward", "construct_mapping")  # signatures of torch and yaml
        assert overrides or len(names) <= 2, (
            f"{path}: {function.name}() takes {names} by position; put * after the first"
        )


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("workflows/**/*.smk")), *sorted(ROOT.glob("*/sites/*.yaml"))], ids=_relative
)
def test_what_operators_read_begins_with_a_comment(path: Path) -> None:
    assert path.read_text().startswith("# "), f"{path} must begin with a comment that says what it is"


def test_tests_mirror_the_packages_and_workflows_hold_no_python() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(PACKAGES) | {"workflows"}
    assert not list((ROOT / "tests").rglob("__init__.py")), "tests/ must hold no __init__.py"
    assert not list((ROOT / "workflows").rglob("*.py")), "workflows/ must hold no Python"


def test_planning_imports_nothing_heavy() -> None:
    code = f"""
import sys
from jobs._planning import describe
from jobs._run import load
describe(*load("demo", "laptop"), site_name="laptop")
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == [], "planning must import none of these"


@pytest.mark.parametrize("folder", ["corpus/modalities", "evaluation/benchmarks"])
def test_a_folder_listing_is_a_registry(folder: str) -> None:
    package = folder.replace("/", ".")
    for path in sorted((ROOT / folder).glob("[a-z]*.py")):
        importlib.import_module(f"{package}.{path.stem}")
    registries = list((ROOT / folder).glob("_registry*")) + list((ROOT / folder).glob("registry*"))
    assert not registries, f"{folder}: the folder listing is the registry"


@pytest.mark.parametrize("run", sorted(path.stem for path in (ROOT / "workflows/runs").glob("*.yaml")))
@pytest.mark.usefixtures("shipped_data")
def test_every_shipped_run_plans_at_some_site(run: str) -> None:
    site = {"demo-cluster": "cluster-test", "dense_32b": "b200-cloud", "gravity_16b_a3b": "b200-cloud"}
    loaded, _ = load(run, site.get(run, "laptop"))
    assert set(loaded.sections) == set(stages())


def test_links_in_the_docs_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            outside = target.startswith(("http", "mailto:"))
            assert outside or (page.parent / target).exists(), f"{page}: the link to {target} leads nowhere"
