# The run, the site, and the one command that every rule calls.
import os
import shlex
import sys
import uuid
from pathlib import Path

from snakemake.exceptions import WorkflowError

from jobs._planning import describe
from jobs._run import PlanningError, load

site_name = str(config.get("site", "laptop"))
try:
    run, site = load(str(config.get("run", "demo")), site_name)
except PlanningError as error:
    raise WorkflowError("nothing was started; change this first:\n" + "\n".join(error.lines)) from None

results = Path(config.get("results", "results"))
os.environ.setdefault("MEDSCALE_WORKFLOW_ID", uuid.uuid4().hex[:16])
print(describe(run, site, site_name=Path(site_name).stem), file=sys.stderr)


def quoted(*words):
    return shlex.join(words).replace("{", "{{").replace("}", "}}")


python = quoted(sys.executable, "-m", "jobs")
where = quoted("--run", str(run.path), "--site", site_name, "--results", str(results))
command = f"{python} {{rule}} {where} --after {{input:q}}"


def record(stage):
    """The small file that says a stage is done; everything large lies beside it, out of the engine's hands."""
    return f"{results}/{run.name}/{stage}/record.json"


def log_of(stage):
    return f"{results}/{run.name}/{stage}/log.txt"


def size(stage):
    return run.sections[stage].resources
