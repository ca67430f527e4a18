"""How near Megatron's logits are to transformers' for models of every type: `python benchmarks/hf_parity.py`.

Prints the tables of docs/hugging-face.md. Toy models have random weights. A real one is a folder of safetensors
(`--folder`) or a GGUF file (`--gguf`, with the packages gguf and accelerate on PYTHONPATH), whose quantised weights
transformers turns into fp32 first. A real one is also trained on: its loss before the first step is compared with
transformers' on the same tokens, in one process and in two pipeline stages.
"""

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from parallelism import device

device.prepare()

from safetensors import safe_open  # noqa: E402 - prepared above
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from transformers.utils.logging import disable_progress_bar, set_verbosity_error  # noqa: E402

from parallelism import export, hf, hf_config, importer, launch, model, trainer  # noqa: E402
from parallelism.hf import ExpertLayout  # noqa: E402
from parallelism.hf_config import Kind  # noqa: E402
from parallelism.importer import Source  # noqa: E402
from parallelism.layout import Layout  # noqa: E402
from parallelism.learner import Recipe  # noqa: E402
from parallelism.presets import ModelShape, preset  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SEQ, VOCAB = 256, 2816
TOYS: Mapping[str, tuple[Kind, ExpertLayout, ModelShape]] = {
    "Llama": ("llama", "per_expert", preset("demo")),
    "Qwen2": ("qwen2", "per_expert", replace(preset("demo"), add_qkv_bias=True, rotary_base=1_000_000)),
    "DeepSeek-V3, an expert a tensor": ("deepseek_v3", "per_expert", preset("demo_moe")),
    "DeepSeek-V3, experts stacked": ("deepseek_v3", "fused", preset("demo_moe")),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one folder went into Megatron and out again."""

    parameters: int
    tokens: int
    largest: float
    difference: float
    same_argmax: float
    equal: int
    tensors: int
    seconds: float


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a Hugging Face folder with safetensors and tokenizer.json")
    parser.add_argument("--gguf", type=Path, help="a GGUF file, to be turned into such a folder first")
    parser.add_argument("--text", type=Path, nargs="*", default=[ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))])
    parser.add_argument("--tokens", type=int, default=2048, help="how many tokens of the text to compare on")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    disable_progress_bar()
    set_verbosity_error()
    print(
        "| model | parameters | tokens | largest logit | largest difference | same argmax | tensors back bit for bit |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name, (kind, experts, shape) in TOYS.items():
            folder = Path(temporary) / name
            write_random(folder, shape, kind=kind, experts=experts)
            draws = np.random.default_rng(1).integers(0, VOCAB, options.tokens)
            show(name, in_out(folder, draws))
        if options.gguf:
            options.folder = options.folder or Path(temporary) / "gguf"
            from_gguf(options.gguf, options.folder)
        if options.folder:
            real(options.folder, "\n".join(path.read_text() for path in options.text), count=options.tokens)


def show(name: str, row: Row) -> None:
    """Prints a line of the table."""
    print(
        f"| {name} | {row.parameters:,} | {row.tokens:,} | {row.largest:.1f} | {row.difference:.2g} | "
        f"{row.same_argmax:.2%} | {row.equal} of {row.tensors} |",
        flush=True,
    )


def write_random(folder: Path, shape: ModelShape, *, kind: Kind, experts: ExpertLayout) -> None:
    """Writes a random model in which all weights matter."""
    values = hf_config.to_config(shape, kind=kind, vocab_size=VOCAB, max_tokens=SEQ, eod_id=None, pad_id=None)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float32)
    draws = torch.Generator().manual_seed(3)
    for name, tensor in [*made.named_parameters(), *made.named_buffers()]:
        if not name.endswith("inv_freq"):
            drawn = torch.randn(tensor.shape, generator=draws)
            tensor.data = 1 + 0.2 * drawn if "norm" in name else 0.12 * drawn
    made.save_pretrained(folder, save_original_format=experts == "per_expert")


def from_gguf(file: Path, folder: Path) -> None:
    """Writes a GGUF file's model, its weights dequantised to fp32 by transformers, and its tokenizer."""
    quantised: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_config(quantised.config, dtype=torch.float32)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def in_out(folder: Path, tokens: NDArray[np.int64]) -> Row:
    """Reads a folder into Megatron's model on one rank, compares logits in fp32 and turns the weights back."""
    rows = torch.from_numpy(tokens[: len(tokens) // SEQ * SEQ].reshape(-1, SEQ))
    with export.alone(), torch.no_grad():
        source = importer.find(folder)
        found = source.described
        layout = Layout(world_size=1, global_batch_size=1, seq_length=SEQ)
        sizes: dict[str, Any] = {"vocab_size": found.vocab_size, "seq_length": SEQ, "seed": 0}
        (chunk,) = model.build(found.shape, layout=layout, precision="fp32", **sizes)
        began = time.perf_counter()
        importer.fill(chunk, source=source)
        seconds = time.perf_counter() - began
        chunk.eval()
        ours = torch.cat([chunk(row[None], torch.arange(SEQ)[None], None) for row in rows])[..., : found.vocab_size]
        equal, tensors = came_back(chunk, source)
    theirs_model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = torch.cat([theirs_model(row[None]).logits for row in rows])
    return Row(
        parameters=found.shape.parameters(found.vocab_size),
        tokens=rows.numel(),
        largest=float(theirs.abs().max()),
        difference=float((ours.float() - theirs.float()).abs().max()),
        same_argmax=float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()),
        equal=equal,
        tensors=tensors,
        seconds=seconds,
    )


def came_back(chunk: Any, source: Source) -> tuple[int, int]:
    """Returns how many tensors of a folder the model gives back bit for bit, and how many there are."""
    files: dict[str, Tensor] = {}
    for name in hf_config.weight_files(source.folder):
        with safe_open(source.folder / name, framework="pt") as file:
            files |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    found = source.described
    again = hf.to_hf(
        whole(chunk), shape=found.shape, vocab_size=found.vocab_size, kind=found.kind, experts=hf.experts_of(files)
    )
    return sum(torch.equal(again[name].to(files[name].dtype), files[name]) for name in files), len(files)


def whole(chunk: Any) -> dict[str, Tensor]:
    """Returns what a checkpoint of a whole model would hold, layers and experts stacked."""
    rows = sorted(
        ((key, tuple(map(int, prefix)), offsets[0], local) for key, prefix, offsets, local in _parts(chunk)),
        key=lambda row: row[:3],
    )
    found: dict[str, Tensor] = {}
    for key, of_key in itertools.groupby(rows, key=lambda row: row[0]):
        places = [
            (at, torch.cat([row[3] for row in some])) for at, some in itertools.groupby(of_key, lambda row: row[1])
        ]
        found[key] = places[0][1] if places[0][0] == () else torch.stack([tensor for _, tensor in places])
    return found


def _parts(chunk: Any) -> Any:
    for name, _, offsets, local in model.parts(chunk):
        *prefix, key = name.split("/")
        yield key, prefix, offsets, local


def real(folder: Path, text: str, *, count: int) -> None:
    """Prints the rows of a real model, on real text, and how training goes on from it."""
    tokens = np.array(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)[: count + 1]
    name = folder.resolve().name
    row = in_out(folder, tokens[:count])
    show(name, row)
    source = importer.find(folder)
    print(f"\nDigest of what was read: {source.digest}; read into the model in {row.seconds:.2f} s\n")
    print("| loss of the folder's weights on that text | nats per token |\n|---|---|")
    print(f"| transformers | {transformers_loss(folder, tokens):.6f} |")
    for size in (1, 2):
        print(
            f"| training, {size} pipeline stage{'s' * (size > 1)} | {trained_loss(source, tokens, size):.6f} |",
            flush=True,
        )


@torch.no_grad()
def transformers_loss(folder: Path, tokens: NDArray[np.int64]) -> float:
    """Returns the mean loss over windows of SEQ tokens, fp32."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.from_numpy(tokens)
    losses = [
        torch.nn.functional.cross_entropy(loaded(ids[None, at : at + SEQ]).logits[0], ids[at + 1 : at + SEQ + 1])
        for at in range(0, len(ids) - SEQ, SEQ)
    ]
    return float(torch.stack(losses).mean())


@dataclass(frozen=True)
class Text:
    """A stream of given tokens."""

    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        return self.ids[start:stop]


class Quiet:
    """A watcher that tells nobody."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def progress(self, done: int, *, total: int, note: str) -> None: ...

    def note(self, line: str) -> None: ...

    def saving(self, step: int) -> None: ...


def trained_loss(source: Source, tokens: NDArray[np.int64], stages: int) -> float:
    """Returns the trainer's validation loss after a step that moves no weight by more than 1e-12."""
    layout = Layout(world_size=stages, global_batch_size=1, seq_length=SEQ, pipeline_model_parallel_size=stages)
    recipe = Recipe(
        shape=source.described.shape,
        vocab_size=source.described.vocab_size,
        precision="fp32",
        seed=1,
        data_digest="text",
        mixture={"text": 1.0},
        seq_length=SEQ,
        global_batch_size=1,
        lr=1e-12,
        min_lr=0.0,
        lr_decay_style="cosine",
        lr_warmup_iters=0,
        lr_decay_iters=1,
        lr_wsd_decay_iters=0,
        weight_decay=0.0,
        adam_beta1=0.9,
        adam_beta2=0.95,
        clip_grad=1.0,
        start_from_digest=source.digest,
    )
    schedule = trainer.Schedule(train_iters=1, eval_interval=9, eval_samples=9999, save_interval=9, keep_checkpoints=2)
    stream = {"text": Text(tokens)}
    results = torch.multiprocessing.get_context("fork").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:

        def work(rank: int) -> None:
            torch.set_num_threads(1)
            meet = f"file://{folder}/meet"
            with launch.joined(launch.Place(rank=rank, world_size=stages, local_rank=rank, rendezvous=meet)):
                result = trainer.train(
                    recipe,
                    layout=layout,
                    schedule=schedule,
                    corpus=trainer.Corpus(train=stream, valid=stream),
                    folder=Path(folder) / "checkpoints",
                    watcher=Quiet(),
                    facts={},
                    start_from=source,
                )
            if rank == 0:
                results.put(result.valid_mean)

        start_processes(work, nprocs=stages, start_method="fork")
        return float(results.get())


if __name__ == "__main__":
    main()
