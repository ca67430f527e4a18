"""What became of every file of a data folder: records, what was set aside and why, beside the rows its manifest counts.

    .venv/bin/python -m benchmarks.corpus_files results/seven_scales --data ../shared/data --update-docs

The manifest is a CSV with the columns path and rows; rows are lines, elements, sections or table rows, as its maker
counted, and a record is what a model reads at once: a patient, a label, a study, a place with its whole series. Rejects
are named by their place.
"""

import argparse
import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "corpus-files.md"
_ROOT = "${MEDSCALE_DATA}/"
_PLACES = 10


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def counted(prepare: Path) -> tuple[dict[str, Counter[str]], dict[str, list[str]]]:
    """Returns what happened to the items of each file, by file, and the places of its rejects."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted((prepare / "records").glob("*.jsonl")):
        for record in lines(file):
            found[_file(record["location"]["file"])]["records"] += 1
    for name in ("duplicates", "filtered", "contaminated", "quarantine"):
        for item in lines(prepare / f"{name}.jsonl"):
            location = item.get("location") or item["record"]["location"]
            kind = ("near" if not item["exact"] else "equal") if name == "duplicates" else item["code"]
            found[_file(location["file"])][kind] += 1
    for item in lines(prepare / "rejects.jsonl"):
        file, _, place = item["where"].partition(", ")
        found[_file(file)][item["code"]] += 1
        places[_file(file)].append(f"{place} {item['code']}")
    return found, places


def _file(label: str) -> str:
    """Returns the path below the data folder, without the member of an archive."""
    return re.sub(r"(\.zip).*", r"\1", label.removeprefix(_ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="of a run whose stage prepare is done")
    parser.add_argument("--data", type=Path, required=True, help="a folder with a MANIFEST.csv")
    parser.add_argument("--update-docs", action="store_true")
    options = parser.parse_args()
    found, places = counted(options.results / "prepare")
    rows = list(csv.DictReader((options.data / "MANIFEST.csv").open(encoding="utf-8")))
    text = "\n".join(["| file | manifest's rows | records | not taken |", "|---|---|---|---|", *_rows(rows, found)])
    named = "\n".join(f"- {file}: {_named(where)}" for file, where in sorted(places.items()))
    text = f"{text}\n\n## Rejects by place\n\n{named}\n"
    print(text)
    if options.update_docs:
        first, command, rest = (__doc__ or "").split("\n\n")
        PAGE.write_text(f"# Every file\n\n{first}\n\n```\n{command.strip()}\n```\n\n{rest.strip()}\n\n{text}")


def _rows(rows: list[dict[str, str]], found: dict[str, Counter[str]]) -> Iterator[str]:
    for row in rows:
        path = row["path"]
        known = next((counts for file, counts in found.items() if path == file or path.startswith(f"{file}/")), None)
        if known is None:
            yield f"| {path} | {row['rows']} | – | not a source of this run |"
            continue
        others = ", ".join(f"{number:,} {kind}" for kind, number in known.most_common() if kind != "records")
        yield f"| {path} | {row['rows']} | {known['records']:,} | {others} |"


def _named(where: list[str]) -> str:
    more = f", and {len(where) - _PLACES} more" if len(where) > _PLACES else ""
    return f"{', '.join(where[:_PLACES])}{more}"


if __name__ == "__main__":
    main()
