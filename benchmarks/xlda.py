"""How fast attention is over packed documents: `OMP_NUM_THREADS=2 python benchmarks/xlda.py`.

Prints the tables of docs/benchmarks/xlda.md: forward and backward pass of one layer's core attention on this CPU, ours
in its three mask modes beside torch's scaled_dot_product_attention and Megatron's own, and the choice of tile.
"""

import argparse
import itertools
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from parallelism import device, tiles

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes of one measurement: query heads, key/value heads, width of a head."""

    seq_length: int
    batch: int
    heads: int
    groups: int
    width: int = 64


PACKED = Case(seq_length=2048, batch=1, heads=8, groups=4)
DENSE = (Case(seq_length=512, batch=4, heads=6, groups=6), PACKED)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="each way is tried once a round; the best counts")
    parser.add_argument("--tiles", action="store_true", help="also measure other sizes of a tile")
    options = parser.parse_args()
    device.prepare()
    from parallelism import groups, launch
    from parallelism.layout import Layout

    place = launch.Place(rank=0, world_size=1, local_rank=0, rendezvous=None)
    alone = Layout(world_size=1, global_batch_size=1, micro_batch_size=1, seq_length=PACKED.seq_length)
    machine = f"{platform.platform()}, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    with launch.joined(place), device.stand_in(), groups.made(alone), groups.quiet():
        packed(options.rounds)
    causal(options.rounds)
    if options.tiles:
        choices(options.rounds)


def packed(rounds: int) -> None:
    """Prints the table of 8 documents in 4 pairs."""
    print(f"\n8 documents in 4 pairs, {PACKED}, forward + backward")
    for dtype in (torch.float32, torch.bfloat16):
        measured = measure(_ways(PACKED, dtype), PACKED, dtype, rounds=rounds)
        ours = measured["ours, xlda"]
        for name, seconds in measured.items():
            print(f"| {_name(dtype)} | {name} | {seconds * 1e3:.1f} ms | {seconds / ours:.1f} x |")


def causal(rounds: int) -> None:
    """Prints ours beside torch's kernel where all is one document."""
    print("\none document, forward + backward")
    for case, dtype in itertools.product(DENSE, (torch.float32, torch.bfloat16)):
        ways = {"torch, flash": _torch(None), "ours": _ours(case, None)}
        found = measure(ways, case, dtype, rounds=rounds)
        times = " | ".join(f"{seconds * 1e3:.1f} ms" for seconds in found.values())
        print(f"| {_name(dtype)} | {case} | {times} | {found['torch, flash'] / found['ours']:.2f} x |")


def choices(rounds: int) -> None:
    """Prints what other sizes of a tile and other limits of what is kept would take."""
    print("\nTILE and KEPT_KEYS, one document, forward + backward")
    usual = tiles.TILE, tiles.KEPT_KEYS
    for case, dtype in itertools.product(DENSE, (torch.float32, torch.bfloat16)):
        for tile, kept in itertools.product((32, 64, 128, 256), (0, 1024, 4096)):
            tiles.TILE, tiles.KEPT_KEYS = tile, kept
            (seconds,) = measure({"tiles": _tiled(case)}, case, dtype, rounds=max(1, rounds // 2)).values()
            print(f"| {_name(dtype)} | {case.seq_length} | {tile} | {kept} | {seconds * 1e3:.1f} ms |")
    tiles.TILE, tiles.KEPT_KEYS = usual


def measure(ways: Mapping[str, Attend], case: Case, dtype: torch.dtype, *, rounds: int) -> dict[str, float]:
    """Returns the best seconds of each way; all are tried in turn, so that a busy moment meets all alike."""
    torch.manual_seed(0)
    sizes = (case.heads, case.groups, case.groups)
    inputs = [torch.randn(case.seq_length, case.batch, heads, case.width).to(dtype).requires_grad_() for heads in sizes]
    gradient = torch.randn(case.seq_length, case.batch, case.heads * case.width).to(dtype)
    best = dict.fromkeys(ways, float("inf"))
    for _, (name, attend) in itertools.product(range(rounds + 1), ways.items()):
        began = time.perf_counter()
        torch.autograd.grad(attend(*inputs), inputs, gradient)
        best[name] = min(best[name], time.perf_counter() - began)
    return best


def pairs(length: int, *, documents: int = 8, each: int = 2) -> Tensor:
    """Returns ids of equal documents, `each` to a group, every one of a group in a language of its own."""
    document = torch.arange(length, dtype=torch.int32) * documents // length
    return torch.stack([document, document // each, document % each])[None]


def _ways(case: Case, dtype: torch.dtype) -> dict[str, Attend]:
    ids = pairs(case.seq_length)
    alone = ids[:, [0, 0, 2]]
    visible = (torch.ones(case.seq_length, case.seq_length).tril().bool()) & (ids[0, 1][:, None] == ids[0, 1])
    return {
        "ours, xlda": _ours(case, ids),
        "ours, document": _ours(case, alone),
        "ours, causal": _ours(case, None),
        "torch, flash, causal": _torch(None),
        "torch, dense mask": _torch(visible),
        "Megatron, dense mask": _megatron(case, visible, dtype),
    }


def _ours(case: Case, ids: Tensor | None) -> Attend:
    from parallelism.attention import CausalAttention

    module = CausalAttention(_config(case), layer_number=1)
    return lambda query, key, value: module(query, key, value, ids)


def _tiled(case: Case) -> Attend:
    """Returns our tiles where ours would take torch's kernel: one document, said to be of ids."""
    return _ours(case, torch.zeros(case.batch, 3, case.seq_length, dtype=torch.int32))


def _torch(visible: Tensor | None) -> Attend:
    def attend(*inputs: Tensor) -> Tensor:
        query, key, value = (part.permute(1, 2, 0, 3) for part in inputs)
        settings: dict[str, Any] = {"is_causal": True} if visible is None else {"attn_mask": visible}
        grouped = query.shape[1] != key.shape[1]
        found = scaled_dot_product_attention(query, key, value, enable_gqa=grouped, **settings)
        return found.permute(2, 0, 1, 3).flatten(2)

    return attend


def _megatron(case: Case, visible: Tensor, dtype: torch.dtype) -> Attend:
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    from megatron.core.transformer.enums import AttnMaskType

    config = _config(case, bf16=dtype == torch.bfloat16)
    module = DotProductAttention(config, 1, AttnMaskType.arbitrary, "self")
    hidden = ~visible[None, None]

    return lambda query, key, value: module(query, key, value, hidden)


def _config(case: Case, **settings: Any) -> Any:
    from megatron.core.transformer.transformer_config import TransformerConfig

    return TransformerConfig(
        num_layers=1,
        hidden_size=case.heads * case.width,
        num_attention_heads=case.heads,
        num_query_groups=case.groups,
        attention_dropout=0.0,
        masked_softmax_fusion=False,
        **settings,
    )


def _name(dtype: torch.dtype) -> str:
    return "bf16" if dtype == torch.bfloat16 else "fp32"


if __name__ == "__main__":
    main()
