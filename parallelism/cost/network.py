"""How long the exchanges of a step take: which links a group's ring crosses, and what computing hides."""

from dataclasses import dataclass

from parallelism.cost.devices import Device
from parallelism.cost.traffic import Traffic
from parallelism.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Links:
    """How much of the data sheet a group's exchanges reach.

    Attributes:
        node: share of the bandwidth between devices of a node.
        network: share of the bandwidth between nodes.
        call_s: seconds of a collective or a send beyond its bytes.
    """

    node: float
    network: float
    call_s: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """Ranks of one kind of group, and how many of them are in one node."""

    ranks: int
    near: int

    def rate(self, *, device: Device, links: Links) -> float:
        """Returns the bytes per second that pass through each rank of a ring over the group.

        Between nodes the group has the network shares of all its members in a node, which take turns.
        """
        near = device.node_gb_per_s * 1e9 * links.node
        if self.near >= self.ranks:
            return near
        return min(near, self.near * device.network_gb_per_s * 1e9 * links.network)


def groups(layout: Layout, *, node_gpus: int) -> dict[str, Group]:
    """Returns the groups of a rank, ranks numbered as Megatron does: tensor, context, data, pipeline, inside out.

    Experts: expert, expert_data, pipeline. The neighbours of the pipeline are a whole stage apart.
    """
    tensor, context = layout.tensor_model_parallel_size, layout.context_parallel_size
    copies = context * layout.data_parallel_size
    expert, stage = layout.expert_model_parallel_size, layout.world_size // layout.pipeline_model_parallel_size
    sizes = {
        "tensor": (tensor, 1),
        "context": (context, tensor),
        "data": (copies, tensor),
        "expert": (expert, 1),
        "expert_data": (layout.expert_data_parallel_size, expert),
        "pipeline": (layout.pipeline_model_parallel_size, stage),
        "embedding": (2, stage * (layout.pipeline_model_parallel_size - 1)),
    }
    return {
        name: Group(ranks=ranks, near=min(ranks, max(1, node_gpus // max(1, stride))))
        for name, (ranks, stride) in sizes.items()
    }


def seconds(item: Traffic, *, group: Group, device: Device, links: Links) -> float:
    """Returns how long one kind of exchange takes if nothing hides it.

    A ring moves (n-1)/n of a tensor, an all-reduce twice that. Of an all-to-all the part for other nodes goes through
    the rank's own share of the network alone. Links carry both directions at once, so a receive costs nothing more.
    """
    if item.operation == "receive":
        return 0.0
    rate = group.rate(device=device, links=links)
    calls = item.calls * links.call_s
    if item.operation == "send":
        return item.bytes / rate + calls
    share = (group.ranks - 1) / group.ranks
    if item.operation == "all-to-all":
        far = (group.ranks - group.near) / group.ranks
        near = (share - far) * item.bytes / (device.node_gb_per_s * 1e9 * links.node)
        return max(near, far * item.bytes / (device.network_gb_per_s * 1e9 * links.network)) + calls
    return (2 if item.operation == "all-reduce" else 1) * share * item.bytes / rate + calls
