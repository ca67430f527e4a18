"""Snakemake's own lint of the workflow finds nothing but what is meant."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEANT = {
    "Specify a conda environment or container for each rule.",  # .venv, built from a lock, runs every rule
    "Shell command directly uses variable rule from outside of the rule",  # {rule} is Snakemake's own
}


def test_lint_finds_only_what_is_meant() -> None:
    command = [sys.executable, "-m", "snakemake", "--lint", "--config", "run=demo", "site=laptop"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    found = set(re.findall(r"^    \* (.+):$", done.stderr, flags=re.MULTILINE))
    assert found == MEANT, done.stderr
