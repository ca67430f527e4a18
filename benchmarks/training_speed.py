"""How fast a training step is beside two plain loops: `python benchmarks/training_speed.py`.

One process, two threads, the same 15.5M-parameter decoder, tokens and optimizer settings: medscale's trainer
(Megatron's model, gradient buffers, schedule and distributed optimizer), transformers' LlamaForCausalLM, and a tight
loop of PyTorch alone, each the fastest that it offers without a compiler (fused AdamW, scaled_dot_product_attention,
autocast for bf16). The loops take steps in turn, so that whatever else the machine does meets all of them. Writes the
table of docs/benchmarks/training-speed.md.
"""

import argparse
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from parallelism import device

device.prepare()

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402 - prepared above

from parallelism import launch, trainer  # noqa: E402
from parallelism.cost.flops import step_flops  # noqa: E402
from parallelism.layout import Layout  # noqa: E402
from parallelism.learner import Recipe  # noqa: E402
from parallelism.presets import ModelShape  # noqa: E402

SHAPE = ModelShape(
    num_layers=7,
    hidden_size=384,
    ffn_hidden_size=1024,
    num_attention_heads=6,
    num_query_groups=6,
    kv_channels=64,
    max_position_embeddings=512,
)
VOCAB, SEQ, BATCH = 4096, 512, 4
LAYOUT = Layout(world_size=1, global_batch_size=BATCH, seq_length=SEQ, micro_batch_size=BATCH)
WARM_UP, PROFILED = 3, 3
LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
Precision = Literal["fp32", "bf16"]
Step = Callable[[], float]


def main() -> None:
    """Measures both precisions and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="steps of each loop that count; three before do not")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], nargs="*", default=["fp32", "bf16"])
    parser.add_argument("--profile", action="store_true", help="show what a step of medscale's is made of, and end")
    parser.add_argument("--page", type=Path, help="where to write the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    lines = ["| | step, best | step, median | tokens/s | MFU | medscale is faster |", "|---|---|---|---|---|---|"]
    for precision in options.precision:
        lines += compare(precision, rounds=options.rounds, profile=options.profile)
    table = "\n".join(lines)
    print(table)
    if options.page:
        options.page.write_text(_page(table, options))


def compare(precision: Precision, *, rounds: int, profile: bool) -> list[str]:
    """Returns one line of the table per loop; the trainer drives, and the other loops take a step after each of its."""
    turns = Turns(
        loops={} if profile else {"transformers' Llama": hugging_face(precision), "PyTorch alone": plain(precision)},
        profile=profile,
    )
    with tempfile.TemporaryDirectory() as folder, launch.joined(launch.place({})):
        result = trainer.train(
            _recipe(precision),
            layout=LAYOUT,
            schedule=trainer.Schedule(
                train_iters=rounds + WARM_UP,
                eval_interval=10_000,
                eval_samples=1,
                save_interval=10_000,
                keep_checkpoints=2,
            ),
            corpus=trainer.Corpus(train={"random": Stream()}, valid={"random": Stream()}),
            folder=Path(folder),
            watcher=turns,
            facts={},
        )
    flops, peak = step_flops(SHAPE, layout=LAYOUT, vocab_size=VOCAB), result.peak_tflops * 1e12
    print(f"{precision}: peak {peak / 1e9:.0f} GFLOP/s; last losses {turns.losses}", flush=True)
    ours = turns.times["medscale"]
    found = []
    for name, taken in turns.times.items():
        best, middle = min(taken), median(taken)
        ratio = median(other / own for other, own in zip(taken, ours, strict=True))
        faster = "" if name == "medscale" else f"{ratio:.2f}x (best step {best / min(ours):.2f}x)"
        found.append(
            f"| {precision}, {name} | {best * 1000:.0f} ms | {middle * 1000:.0f} ms | {BATCH * SEQ / middle:,.0f} | "
            f"{flops / middle / peak:.0%} | {faster} |"
        )
    return found


class Turns:
    """A watcher that lets the other loops take a step after each of the trainer's, and keeps what all of them took."""

    def __init__(self, *, loops: Mapping[str, Step], profile: bool) -> None:
        self.loops = loops
        self.times: dict[str, list[float]] = {name: [] for name in ("medscale", *loops)}
        self.losses: dict[str, float] = {}
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) if profile else None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if "train/step_time_s" not in values:
            return
        self._look(step)
        self._keep("medscale", step, values["train/step_time_s"], values["train/loss"])
        for name, loop in self.loops.items():
            began = time.perf_counter()
            loss = loop()
            self._keep(name, step, time.perf_counter() - began, loss)

    def _keep(self, name: str, step: int, seconds: float, loss: float) -> None:
        self.losses[name] = loss
        if step > WARM_UP:
            self.times[name].append(seconds)

    def _look(self, step: int) -> None:
        if self.profiler and step == WARM_UP:
            self.profiler.start()
        if self.profiler and step == WARM_UP + PROFILED:
            self.profiler.stop()
            for entry in sorted(self.profiler.key_averages(), key=lambda entry: -entry.self_cpu_time_total)[:40]:
                spent = entry.self_cpu_time_total / PROFILED / 1000
                print(f"{spent:9.1f} ms {entry.count / PROFILED:8.0f} calls  {entry.key}")

    def progress(self, done: int, *, total: int, note: str) -> None: ...

    def note(self, line: str) -> None: ...

    def saving(self, step: int) -> None: ...


def _recipe(precision: Precision) -> Recipe:
    return Recipe(
        shape=SHAPE,
        vocab_size=VOCAB,
        precision=precision,
        seed=1,
        data_digest="random",
        mixture={"random": 1.0},
        seq_length=SEQ,
        global_batch_size=BATCH,
        lr=LR,
        min_lr=LR,
        lr_decay_style="cosine",
        lr_warmup_iters=0,
        lr_decay_iters=1000,
        lr_wsd_decay_iters=0,
        weight_decay=DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        clip_grad=CLIP,
    )


class Stream:
    """A stream of random tokens."""

    def __init__(self) -> None:
        self._tokens = torch.randint(0, VOCAB, (SEQ * 400 + 1,), generator=torch.Generator().manual_seed(7)).numpy()

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self, start: int, stop: int) -> Any:
        return self._tokens[start:stop]


def hugging_face(precision: Precision) -> Step:
    """Returns a step of transformers' Llama."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=SHAPE.hidden_size,
        intermediate_size=SHAPE.ffn_hidden_size,
        num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_attention_heads,
        num_key_value_heads=SHAPE.num_query_groups,
        max_position_embeddings=SEQ,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = LlamaForCausalLM(config).float()

    def loss(tokens: Tensor) -> Tensor:
        return model(input_ids=tokens[:, :-1], labels=tokens[:, :-1], shift_labels=tokens[:, 1:].contiguous()).loss

    return _loop(model, loss, precision=precision)


def plain(precision: Precision) -> Step:
    """Returns a step of the tight loop."""
    model = _Decoder()

    def loss(tokens: Tensor) -> Tensor:
        logits = model(tokens[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return _loop(model, loss, precision=precision)


def _loop(model: nn.Module, loss: Callable[[Tensor], Tensor], *, precision: Precision) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=True)
    stream, state = Stream(), {"at": 0}
    parameters = list(model.parameters())

    def one() -> float:
        rows = [stream.tokens(state["at"] + row * SEQ, state["at"] + (row + 1) * SEQ + 1) for row in range(BATCH)]
        state["at"] = (state["at"] + BATCH * SEQ) % (SEQ * 396)
        tokens = torch.stack([torch.from_numpy(row) for row in rows])
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            value = loss(tokens)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(value.detach())

    return one


class _Block(nn.Module):
    """One layer, as few operations as it takes."""

    def __init__(self) -> None:
        super().__init__()
        hidden, ffn = SHAPE.hidden_size, SHAPE.ffn_hidden_size
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.proj = nn.Linear(hidden, hidden, bias=False)
        self.up = nn.Linear(hidden, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)
        self.norms = nn.ModuleList([nn.RMSNorm(hidden, eps=1e-5) for _ in range(2)])

    def forward(self, inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, hidden = inputs.shape
        qkv = self.qkv(self.norms[0](inputs)).view(batch, length, 3, SHAPE.num_attention_heads, SHAPE.kv_channels)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        inputs = inputs + self.proj(attended.transpose(1, 2).reshape(batch, length, hidden))
        gate, up = self.up(self.norms[1](inputs)).chunk(2, -1)
        return inputs + self.down(nn.functional.silu(gate) * up)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, -1)
    return heads * cos + torch.cat([-second, first], -1) * sin


class _Decoder(nn.Module):
    """The same decoder in PyTorch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, SHAPE.hidden_size)
        self.blocks = nn.ModuleList([_Block() for _ in range(SHAPE.num_layers)])
        self.norm = nn.RMSNorm(SHAPE.hidden_size, eps=1e-5)
        self.output = nn.Linear(SHAPE.hidden_size, VOCAB, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        angles = torch.outer(torch.arange(SEQ).float(), 10_000 ** -(torch.arange(0, 64, 2).float() / 64))
        self.register_buffer("angles", torch.cat([angles, angles], -1))

    def forward(self, tokens: Tensor) -> Tensor:
        inputs = self.embedding(tokens)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
        cos, sin = self.angles.cos().to(dtype), self.angles.sin().to(dtype)
        for block in self.blocks:
            inputs = block(inputs, cos, sin)
        return self.output(self.norm(inputs))


def _page(table: str, options: argparse.Namespace) -> str:
    about = __doc__.partition("\n\n")[2].replace("\n", " ").rpartition(" Writes")[0].strip()
    return (
        f"# Speed of a training step\n\n{about}\n\n{table}\n\n"
        f"{options.rounds} steps each after three, {options.threads} threads, {platform.machine()}, torch "
        f"{torch.__version__}, load {os.getloadavg()[0]:.1f} at the end. MFU: model FLOPs over the matmul peak that "
        "was measured in the same run. The ratio is the median over the rounds of the other loop's step over "
        "medscale's. Made by `python benchmarks/training_speed.py --page docs/benchmarks/training-speed.md`.\n\n"
        "In fp32 two thirds of a step are the same matrix products of the same library in all loops, at three quarters "
        "or more of the peak; what is won beside them (rotation, norms, SwiGLU, AdamW, tiles of attention) pays for "
        "what the others do not do: gradient buffers, the pipeline's schedule, copies of the distributed optimizer.\n"
    )


if __name__ == "__main__":
    main()
