"""Every file of the test cluster as text: Slurm's configuration and the scripts that make its machines."""

import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path

CLIENTS = ("sbatch", "squeue", "scontrol", "sacct", "srun", "scancel", "sinfo", "sacctmgr")
NETWORK = "10.88.0"
FIRST_NODE = 11
"""Node n1 has the address 10.88.0.11; 10.88.0.1 is the controller's."""


@dataclass(frozen=True)
class Shape:
    """What a cluster is to be.

    Attributes:
        base: its folder.
        user: whose it is; the same user runs the jobs.
        nodes: number of nodes.
        gpus: pretended GPUs of each node.
        accounting: whether slurmdbd keeps accounts, so that sacct answers.
        preempt_signal: whether a preempted job gets its own --signal in place of SIGTERM.
        small_mb: size of the small file system in MB.
        programs: where Slurm's programs are found.
        own_machines: whether each node is a machine of its own; else all are this machine.
        hostname: of the controller.
        shared_ports: `ports` where all share one address.
    """

    base: Path
    user: str
    nodes: int
    gpus: int
    accounting: bool
    preempt_signal: bool
    small_mb: int
    programs: dict[str, str]
    own_machines: bool = True
    hostname: str = "ctl"
    shared_ports: tuple[int, ...] = ()

    @property
    def ports(self) -> tuple[int, ...]:
        """What slurmctld, slurmdbd and each slurmd listen on."""
        return self.shared_ports or (6817, 6819, *[6818] * self.nodes)

    @property
    def names(self) -> list[str]:
        """The names of the nodes, n1 first."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def address(self) -> str:
        """Where jobs find what runs beside the controller."""
        return f"{NETWORK}.1" if self.own_machines else "127.0.0.1"

    def node_address(self, number: int) -> str:
        """Returns the address of node `number`, which is 1 for n1."""
        return f"{NETWORK}.{FIRST_NODE + number - 1}" if self.own_machines else "127.0.0.1"


def on_this_machine(shape: Shape, *, ports: list[int]) -> Shape:
    """Returns a cluster whose nodes share this machine's name and address, told apart by `ports`."""
    hostname = socket.gethostname().partition(".")[0]
    return replace(shape, own_machines=False, hostname=hostname, shared_ports=tuple(ports))


def files(shape: Shape) -> dict[str, tuple[bytes, int]]:
    """Returns every file of the cluster by its path below the base, with its mode."""
    texts = {
        "etc/slurm.conf": (slurm_conf(shape), 0o644),
        "etc/gres.conf": (f"Name=gpu File={shape.base}/gpu/nvidia[0-{shape.gpus - 1}]\n" if shape.gpus else "", 0o644),
        "etc/slurmdbd.conf": (slurmdbd_conf(shape), 0o600),  # slurmdbd reads no other mode
        "etc/my.cnf": (my_cnf(shape), 0o600),
        "etc/accounts": (accounts(shape), 0o600),
        "etc/hosts": (hosts(shape), 0o644),
        "etc/nsswitch.conf": ("passwd: files\ngroup: files\nhosts: files\n", 0o644),  # DNS would wait for time-outs
        "bin/holder": (_script(HOLDER, shape, device="br0"), 0o700),
        "bin/node": (_script(NODE, shape, device="eth0"), 0o700),
        "bin/daemon": (DAEMON.format(base=shape.base), 0o700),
    }
    wrappers = {f"bin/{name}": (client(shape, name), 0o700) for name in CLIENTS}
    known = {path: (text.encode(), mode) for path, (text, mode) in {**texts, **wrappers}.items()}
    return {**known, "etc/munge.key": (secrets.token_bytes(128), 0o600)}


def munged(shape: Shape) -> list[str]:
    """Returns the command that starts munge, with a key and a socket of this cluster."""
    base = shape.base
    return [
        shape.programs["munged"],
        "--foreground",
        "--force",  # in a user namespace root's folders seem to be nobody's
        f"--key-file={base}/etc/munge.key",
        f"--socket={base}/run/munge.sock",
        f"--pid-file={base}/run/munged.own",
        f"--seed-file={base}/run/munge.seed",
        f"--log-file={base}/log/munged.log",
    ]


def slurm_conf(shape: Shape) -> str:
    """Returns slurm.conf of Slurm 22.05: a fast-moving cluster, which notices a dead node in seconds."""
    ctld_port, dbd_port, *node_ports = shape.ports
    storage = f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={shape.address}
AccountingStoragePort={dbd_port}
AccountingStoragePass={shape.base}/run/munge.sock
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
"""
    size = "CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=16000"
    gres = f" Gres=gpu:{shape.gpus}" if shape.gpus else ""
    host = "" if shape.own_machines else f" NodeHostname={shape.hostname}"
    lines = [
        f"NodeName={name}{host} NodeAddr={shape.node_address(number)} Port={port} {size}{gres} State=UNKNOWN"
        for number, (name, port) in enumerate(zip(shape.names, node_ports, strict=True), 1)
    ]
    return SLURM_CONF.format(
        base=shape.base,
        user=shape.user,
        controller=f"{shape.hostname}({shape.address})",
        port=ctld_port,
        storage=storage if shape.accounting else "AccountingStorageType=accounting_storage/none\n",
        parameters="SlurmctldParameters=preempt_send_user_signal" if shape.preempt_signal else "",
        nodes="\n".join(lines),
    )


SLURM_CONF = """ClusterName=medtest
SlurmctldHost={controller}
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={base}/run/munge.sock
SlurmctldPidFile={base}/run/slurmctld.own
SlurmdPidFile={base}/run/%n.own
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2,bf_window=20160
ReturnToService=2
SlurmdTimeout=8
InactiveLimit=0
KillWait=3
MinJobAge=300
JobRequeue=1
EnforcePartLimits=ALL
UnkillableStepTimeout=120
PrologFlags=Alloc
MailProg=/bin/true
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{parameters}
{storage}
{nodes}
PartitionName=train Nodes=ALL Default=YES MaxTime=14-0 DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes=ALL MaxTime=1-0 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
"""


def slurmdbd_conf(shape: Shape) -> str:
    """Returns slurmdbd.conf. The database listens on a socket in the cluster's folder, which is its user's alone."""
    return f"""AuthType=auth/munge
AuthInfo=socket={shape.base}/run/munge.sock
DbdHost={shape.hostname}
DbdAddr={shape.address}
DbdPort={shape.ports[1]}
SlurmUser={shape.user}
LogFile={shape.base}/log/slurmdbd.log
PidFile={shape.base}/run/slurmdbd.own
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={shape.user}
StorageLoc=slurm_acct_db
"""


def my_cnf(shape: Shape) -> str:
    """Returns MariaDB's settings: small files, no network, and no wait for a disk, for nothing here outlives a test."""
    return f"""[mariadbd]
datadir={shape.base}/db
socket={shape.base}/run/mysql.sock
pid-file={shape.base}/run/mariadbd.own
log-error={shape.base}/log/mariadbd.log
skip-networking
skip-log-bin
skip-name-resolve
performance-schema=off
innodb-log-file-size=8M
innodb-data-file-path=ibdata1:10M:autoextend
innodb-temp-data-file-path=ibtmp1:2M:autoextend
innodb-autoextend-increment=1
innodb-buffer-pool-size=32M
innodb-flush-log-at-trx-commit=0
innodb-doublewrite=0
innodb-flush-method=nosync
"""


def accounts(shape: Shape) -> str:
    """Returns what sacctmgr is told once: this cluster, one account, and the user in it."""
    user = f"add user {shape.user} account=medscale defaultaccount=medscale adminlevel=admin"
    return f"add cluster medtest\nadd account medscale cluster=medtest\n{user}\n"


def hosts(shape: Shape) -> str:
    """Returns /etc/hosts as every machine of the cluster sees it."""
    nodes = [f"{shape.node_address(number)} {name}" for number, name in enumerate(shape.names, 1)]
    return "\n".join(["127.0.0.1 localhost", "::1 localhost", f"{shape.address} {shape.hostname}", *nodes, ""])


NEIGHBOURS = """for setting in retrans_time_ms=200 base_reachable_time_ms=2000 delay_first_probe_time=1; do
  echo "${setting#*=}" >"/proc/sys/net/ipv4/neigh/DEVICE/${setting%=*}" || true
done"""
"""A lost machine is unreachable after a second: after the usual time-outs, tests of power cuts would take a minute."""


def _script(text: str, shape: Shape, *, device: str) -> str:
    return text.format(
        base=shape.base,
        small_mb=shape.small_mb,
        network=NETWORK,
        slurmd=shape.programs["slurmd"],
        neighbours=NEIGHBOURS.replace("DEVICE", device),
    )


HOLDER = """#!/bin/bash
# Process 1 of the cluster: makes the controller's machine, then starts nodes as it is told; ends when nobody tells.
set -eu
read -r pid _ </proc/self/stat # as seen from outside, where /proc comes from
hostname ctl
mount --bind {base}/etc/hosts /etc/hosts
if [ -e /etc/nsswitch.conf ]; then mount --bind {base}/etc/nsswitch.conf /etc/nsswitch.conf; fi
mount --rbind /proc {base}/proc # nodes have a /proc of their own; this one keeps the numbers of outside
mount -t tmpfs -o size={small_mb}m,mode=0700 small {base}/small
ip link set lo up
ip link add br0 type bridge
{neighbours}
ip address add {network}.1/24 dev br0
ip link set br0 up
unshare --net --mount --uts --pid --fork --kill-child bash -c 'hostname probe && mount -t proc proc /proc'
echo "ready $pid"
while read -r verb name address; do
  case $verb in
    start)
      ip link delete "v$name" 2>/dev/null || true
      unshare --net --mount --uts --pid --fork --kill-child \\
        bash {base}/bin/node "$name" "$address" "$pid" >>{base}/log/"$name".machine 2>&1 </dev/null & ;;
    unplug) ip link set "v$name" down || true ;;
  esac
  echo "done $verb $name"
done
"""

NODE = """#!/bin/bash
# Process 1 of a node: NAME ADDRESS HOLDER. Killing it is a power cut.
set -eu
read -r pid _ </proc/self/stat
outside=--net=/proc/$3/ns/net
nsenter "$outside" ip link add "v$1" type veth peer name eth0 netns "/proc/$pid/ns/net"
nsenter "$outside" ip link set "v$1" master br0 up
hostname "$1"
{neighbours}
ip link set lo up
ip address add "$2/24" dev eth0
ip link set eth0 up
ip route add default via {network}.1
mount -t proc proc /proc
mount -t tmpfs -o mode=1777 shm /dev/shm
echo "$pid" >{base}/run/"$1".node.new
mv {base}/run/"$1".node.new {base}/run/"$1".node
{base}/bin/daemon "$1" {slurmd} -D -N "$1"
while :; do
  sleep infinity &
  wait "$!" || true
done
"""

DAEMON = """#!/bin/bash
# Starts a daemon that outlives its starter: NAME COMMAND...; run/NAME.pid is its number as seen from outside.
# It is given no rights over the namespaces, so that jobs have the user's own and no others.
export SLURM_CONF={base}/etc/slurm.conf MYSQL_UNIX_PORT={base}/run/mysql.sock
setsid bash -c '
  read -r pid _ <{base}/proc/self/stat
  echo "$pid" >{base}/run/"$0".pid.new
  mv {base}/run/"$0".pid.new {base}/run/"$0".pid
  exec setpriv --ambient-caps -all "$@"' "$@" >>{base}/log/"$1".out 2>&1 </dev/null &
"""


def inside(shape: Shape, enter: list[str]) -> str:
    """Returns the script that runs a command on the controller's machine, or plainly where that is a node's already."""
    plainly = f"""#!/bin/sh
# Runs a command inside the cluster, from outside and from a job alike.
export SLURM_CONF={shape.base}/etc/slurm.conf
"""
    if not shape.own_machines:
        return plainly + 'exec "$@"\n'
    command = f'{" ".join(enter)} --wdns="$PWD" setpriv --pdeathsig TERM -- "$@"'
    return f'{plainly}[ -e {shape.base}/proc/self ] && exec "$@"\nexec {command}\n'


def client(shape: Shape, name: str) -> str:
    """Returns the wrapper of one of Slurm's commands."""
    return f'#!/bin/sh\nexec {shape.base}/bin/inside {shape.programs[name]} "$@"\n'
