"""Characters per token of our tokenizers and of others, by language and scale, on records of ../shared/data kept back.

    python -m benchmarks.corpus_tokenizer --peer GPT-2=../shared/data/tokenizers/gpt2 --peer o200k=/tmp/o200k \
        --extend o200k [--update-docs]

A `--peer` is whatever `tokenize.tokenizer` loads (benchmarks/tiktoken_ranks.py makes one of tiktoken ranks); `--extend`
names one that our symbols are added to. Ours read a record as it is written, with tags and a symbol per letter, glyph
or gene; the others read it as people write it. Characters are those of the latter.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import corpus_documents
from corpus import tokenizer as tokenizers
from corpus.encoder import Encoder
from corpus.modality import Record, modality
from corpus.records import read_records, streams
from corpus.survey import make_tokenizer
from corpus.symbols import SYMBOL, plain
from corpus.vocabulary import declared
from jobs._run import ROOT
from slurm.files import digest

DOC = ROOT / "docs" / "benchmarks" / "corpus-tokenizer.md"
MARK = "<!-- table -->"
SOURCES: dict[str, tuple[str, ...]] = {
    "text": ("ko_en/ntrex_en_ko_dev.jsonl",),
    "molecule": ("molecules/delaney.csv", "molecules/tox21.csv", "molecules/solubility.train.sdf"),
    "protein": ("proteins/P62593.fasta",),
    "omics": ("omics/10x_pbmc68k_reduced.h5ad",),
    "drug": ("drug_labels/humira.xml", "drug_labels/cough.xml", "drug_labels/viagra_64f8040f.xml"),
    "trial": ("clinical_trials/get_nct02576665_20260811.json", "clinical_trials/search_nsclc_egfr_l858r_20260811.json"),
    "literature": ("literature_qa/pubmedqa_pqal_dev.json", "literature_qa/medquad_5_NIDDK_QA.jsonl"),
    "guideline": ("guidelines/guideline_cyp2d6_20260803.json", "guidelines/recommendation_cyp2d6_20260803.json"),
    "patient": tuple(
        f"ehr_fhir/{path.name}" for path in sorted((corpus_documents.DATA / "ehr_fhir").glob("dev_*.json"))
    ),
    "population": ("population/owid_Life_expectancy_OECD.csv",),
}
OPTIONS: dict[str, dict[str, Any]] = {"text": {"group": "doc"}}
OTHER = "Korean of other sources"
Text = Callable[[str], str]


def write_records(folder: Path) -> dict[str, int]:
    """Writes records of the sources, and more English texts; returns the characters to train on.

    A tenth of each stream's groups is kept back, and the Korean of other sources as a whole.
    """
    (folder / "records").mkdir(parents=True)
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, record in _records():
        stream = name if record.language is None else f"{name}.{record.language}"
        line = {"id": digest(record.content)[:24], "modality": name, "content": record.content}
        groups[stream][digest(record.group)].append(json.dumps(line, ensure_ascii=False) + "\n")
    for stream, found in groups.items():
        order = sorted(found)
        kept = set(order[: -(-len(order) // 10)])
        for split in ("train", "valid"):
            lines = [line for group in order if (group in kept) == (split == "valid") for line in found[group]]
            (folder / "records" / f"{stream}.{split}.jsonl").write_text("".join(dict.fromkeys(lines)))
    return {
        stream: sum(
            len(plain(modality(line["modality"]).render(line["content"])))
            for line in read_records(folder, stream, "train")
        )
        for stream in groups
    }


def _records() -> Iterator[tuple[str, Record]]:
    for name, files in SOURCES.items():
        reader: Any = modality(name)
        for file in files:
            items = reader.read(corpus_documents.DATA / file, reader.Options(**OPTIONS.get(name, {})))
            yield from ((name, item) for item in items if isinstance(item, Record))
    for text in corpus_documents.texts("en", corpus_documents.FILES["en"][0]):
        yield "text", Record(content={"text": text}, group=text, language="en")


def other_korean() -> list[str]:
    """Returns Korean that nothing was trained on: a program's words, terms of the pandemic and our own samples."""
    terms = (corpus_documents.DATA / "ko_en" / "tico19_google_en_ko.csv").read_text().splitlines()[1:]
    samples = (ROOT / "corpus" / "samples" / "care.jsonl").read_text().splitlines()
    found = [
        *corpus_documents.texts("ko", corpus_documents.FILES["ko"][1]),
        *(line.rpartition(",")[2] for line in terms),
    ]
    return [*found, *(json.loads(line)["ko"] for line in samples)]


def rates(encoder: Encoder, records: Path, *, written: Text) -> dict[str, float]:
    """Returns the characters per token of each stream's records kept back.

    Raises:
        RuntimeError: one does not come back, or has an unknown token.
    """
    found = {}
    for stream in streams(records):
        lines = list(read_records(records, stream, "valid"))
        rendered = [modality(line["modality"]).render(line["content"]) for line in lines]
        texts = [written(text) for text in rendered]
        ids = encoder.encode(texts)
        if encoder.check(texts, ids) or encoder.unknown(ids):
            raise RuntimeError(f"{stream} must come back from its tokens, but does not")
        found[stream] = sum(len(plain(text)) for text in rendered) / max(1, sum(map(len, ids)))
    return found | {OTHER: sum(map(len, other_korean())) / sum(map(len, encoder.encode(other_korean())))}


def table(found: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int], *, records: Path) -> str:
    """Returns the table: a line a stream, a column a tokenizer."""
    lines = [f"| | | {' | '.join(found)} |", f"|---|---|{'---|' * len(found)}"]
    lines += [f"| | ids | {' | '.join(f'{sizes[name]:,}' for name in found)} |"]
    for stream in sorted(streams(records), key=lambda name: (modality(name.partition(".")[0]).SCALE, name)):
        cells = " | ".join(f"{rate[stream]:.2f}" for rate in found.values())
        lines.append(f"| {modality(stream.partition('.')[0]).SCALE} | {stream} | {cells} |")
    lines.append(f"| L1 | {OTHER} | {' | '.join(f'{rate[OTHER]:.2f}' for rate in found.values())} |")
    return "\n".join(lines)


def main() -> None:
    given = _arguments()
    peers = dict(pair.split("=", 1) for pair in given.peer)
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch)
        trained_on = write_records(records)
        ours: dict[str, Encoder] = {}
        for size in given.vocab_size:
            started = time.perf_counter()
            ours[f"trained, {size:,}"] = Encoder.load(make_tokenizer(records, base=None, vocab_size=size))
            print(f"{size:,} ids trained in {time.perf_counter() - started:.1f} s", flush=True)
        for name in given.extend:
            base = tokenizers.load(Path(peers[name]))
            genes = [each for each in make_symbols(records) if each not in declared()]
            made = tokenizers.add_symbols(base, [*declared(), *genes], vocab_size=None)
            ours[f"{name} and our symbols"] = Encoder.load(made)
        others = {name: Encoder.load(Path(path)) for name, path in peers.items()}
        found = {name: rates(each, records, written=str) for name, each in ours.items()}
        found |= {name: rates(each, records, written=plain) for name, each in others.items()}
        sizes = {name: each.tokenizer.get_vocab_size() for name, each in (ours | others).items()}
        whole = table(found, sizes, records=records)
    told = ", ".join(f"{stream} {size:,}" for stream, size in sorted(trained_on.items()))
    whole = f"Trained on characters of {told}.\n\n{whole}"
    print(whole)
    if given.update_docs:
        DOC.write_text(f"{DOC.read_text().partition(MARK)[0]}{MARK}\n\n{whole}\n")


def make_symbols(records: Path) -> list[str]:
    """Returns the symbols that the records hold."""
    found: dict[str, None] = {}
    for stream in streams(records):
        for split in ("train", "valid"):
            for line in read_records(records, stream, split):
                found |= dict.fromkeys(SYMBOL.findall(modality(line["modality"]).render(line["content"])))
    return sorted(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--extend", action="append", default=[], metavar="NAME", help="a peer to add our symbols to")
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[32_000, 64_000])
    parser.add_argument("--update-docs", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
