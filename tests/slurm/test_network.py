"""Interfaces as NCCL names them, and node names as Slurm shortens them."""

import pytest

from slurm.network import addresses, expand, interfaces, is_loopback


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("", []),
        ("vm", ["vm"]),
        ("n1,n3", ["n1", "n3"]),
        ("n[1-2,07],gpu3", ["n1", "n2", "n07", "gpu3"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("rack[1-2]node[3,5]", ["rack1node3", "rack1node5", "rack2node3", "rack2node5"]),
        ("gpu-a[1-2]-ib.site", ["gpu-a1-ib.site", "gpu-a2-ib.site"]),
    ],
)
def test_node_names_are_written_out(short: str, names: list[str]) -> None:
    assert expand(short) == names


def test_an_interface_is_meant_as_nccl_means_it() -> None:
    assert interfaces("lo") == interfaces("l,nothing") == interfaces("=lo,eth77") == ["lo"]
    assert interfaces("=l") == interfaces("eth77") == []
    assert "lo" not in interfaces("^lo")
    assert "lo" in interfaces("^=l,eth77")


def test_addresses_come_with_ipv4_first() -> None:
    assert addresses("lo")[0] == "127.0.0.1"
    assert addresses("eth77") == []
    assert not any(address.startswith("fe80") for name in interfaces("^lo") for address in addresses(name))


def test_loopback_is_known() -> None:
    assert is_loopback("127.0.1.1")
    assert is_loopback("::1")
    assert not is_loopback("10.88.0.1")
