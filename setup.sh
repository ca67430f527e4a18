#!/usr/bin/env bash
# Builds .venv from a lock with hashes: ./setup.sh [requirements.lock | requirements-site.lock]
#
# TORCH_REQUIREMENT names another build of torch, UV_PYTHON another Python; UV_INDEX, UV_DEFAULT_INDEX and
# UV_FIND_LINKS say where packages come from (docs/installation.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
lock=${1:-requirements.lock}
torch=${TORCH_REQUIREMENT:-torch==2.13.0}

fail() {
  echo "setup: $*" >&2
  exit 1
}

# Sets python: any that can hold uv; uv then looks for Python 3.12 itself.
find_python() {
  for python in python3.12 python3 python3.14 python3.13 python3.11 python3.10 python3.9; do
    "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && return
  done
  fail "uv must be on the PATH, or a Python >= 3.9 with venv to install it, but neither was found; install uv or python3-venv"
}

# Sets uv: the one on the PATH (a pyenv shim may lie there and not run), or the locked one in .tools.
find_uv() {
  uv=uv
  "$uv" --version >/dev/null 2>&1 && return
  uv=.tools/bin/uv
  "$uv" --version >/dev/null 2>&1 && return
  find_python
  "$python" -m venv --clear .tools
  .tools/bin/python -m pip install -qq --no-deps --require-hashes -r <(sed -n '/^uv==/,/# via/p' requirements.lock)
}

find_uv
if [[ ! -x .venv/bin/python ]]; then
  "$uv" python find >/dev/null 2>&1 ||
    fail "Python $(<.python-version) must be on this machine, but none was found; install it (python3.12, module load python/3.12, pyenv install 3.12) or set UV_PYTHON=/path/to/python3.12"
  rm -rf .venv # the rest of an interrupted setup
  "$uv" venv --quiet .venv
fi

if [[ -t 2 ]]; then progress=--color=auto; else progress=--quiet; fi # a person watching sees how far it is
echo "setup: $(grep -c '^[a-z]' "$lock") packages of $lock, then $torch (with CUDA about 2.8 GB to fetch)"
install=("$uv" pip install --python .venv/bin/python) # not into whatever environment is active
"${install[@]}" "$progress" --no-deps --require-hashes -r "$lock"
"${install[@]}" "$progress" "$torch"
"${install[@]}" --quiet --no-deps --no-build-isolation --editable .
