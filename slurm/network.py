"""A node's network: the interfaces that a site means, their addresses, and the nodes that Slurm's short form names."""

import fcntl
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915  # linux/sockios.h
_IFF_UP = 0x1  # linux/if.h
_IPV6 = Path("/proc/net/if_inet6")  # address, index, prefix, scope, flags, name
_LINK_SCOPE = 0x20


def interfaces(wanted: str) -> list[str]:
    """Returns the interfaces of this node that `wanted` means, read as NCCL_SOCKET_IFNAME is.

    Args:
        wanted: the beginnings of names, comma-separated; =eth0 is the whole name, ^lo what it must not be.
    """
    names = wanted.lstrip("^=").split(",")
    excluded, whole = wanted.startswith("^"), wanted.startswith(("=", "^="))
    there = [name for _, name in socket.if_nameindex()]
    return [name for name in there if (name in names if whole else name.startswith(tuple(names))) != excluded]


def addresses(interface: str) -> list[str]:
    """Returns the addresses of one interface, IPv4 first; none while it is down.

    An IPv6 address that holds on its own cable only (fe80::) is not one: a name never leads to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        flags = _ask(asked, interface, _SIOCGIFFLAGS)
        if flags is None or not struct.unpack_from("H", flags, 16)[0] & _IFF_UP:
            return []
        answer = _ask(asked, interface, _SIOCGIFADDR)
    found = [] if answer is None else [socket.inet_ntoa(answer[20:24])]
    return found + [address for name, address in _ipv6() if name == interface]


def is_loopback(address: str) -> bool:
    """Says whether only this node reaches an address."""
    return address.startswith("127.") or address == "::1"


def expand(nodes: str) -> list[str]:
    """Returns the names in Slurm's short form: n[1-2,07],gpu3 is n1, n2, n07 and gpu3. Asks nobody, so never waits."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes)
    return [name for part in parts for name in _expanded(part)]


def _expanded(part: str) -> Iterator[str]:
    bracket = re.search(r"\[([^\]]*)\]", part)
    if bracket is None:
        yield part
        return
    for piece in bracket[1].split(","):
        low, _, high = piece.partition("-")
        for number in range(int(low), int(high or low) + 1):
            yield from _expanded(f"{part[: bracket.start()]}{number:0{len(low)}d}{part[bracket.end() :]}")


def _ask(asked: socket.socket, interface: str, request: int) -> bytes | None:
    try:
        return fcntl.ioctl(asked, request, struct.pack("40s", interface.encode()[:15]))
    except OSError:  # no such interface, or no address
        return None


def _ipv6() -> Iterator[tuple[str, str]]:
    for line in _IPV6.read_text().splitlines() if _IPV6.exists() else ():
        address, _, _, scope, _, name = line.split()
        if int(scope, 16) != _LINK_SCOPE:
            yield name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
