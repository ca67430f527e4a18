#!/usr/bin/env bash
# Installs Debian's Slurm, munge and MariaDB for the tests' own cluster, where root and apt-get can; starts none of them.
#
# Never fails: where they cannot be had, the tests that need them name what is missing.
set -uo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

programs=(slurmctld slurmd slurmdbd srun sacct sacctmgr munged mariadbd mariadb-install-db my_print_defaults ip unshare nsenter setpriv hostname)
packages=(slurm-wlm slurmdbd munge mariadb-server-core mariadb-client-core iproute2 util-linux hostname)

type -P "${programs[@]}" >/dev/null && exit
if ! type -P apt-get >/dev/null || ((EUID != 0)); then
  echo "Slurm is not installed, and only root can do so, with apt-get: the tests that need it are skipped"
  exit 0
fi

policy=/usr/sbin/policy-rc.d # says which services an installation may start
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends "${packages[@]}"; } >/dev/null ||
  echo "Slurm could not be installed: the tests that need it are skipped"
