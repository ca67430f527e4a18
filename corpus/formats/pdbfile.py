"""PDB and mmCIF files: their header, the residues that were deposited, and those seen in the first model."""

from collections.abc import Iterator
from typing import Any, Protocol

from corpus.formats.dates import written_date
from corpus.modality import SourceError

_ONE_ATOM = frozenset({"CA", "P", "C1'", "C1*", '"C1\'"'})
_MOST_ROWS = 5_000_000
_ABSENT = frozenset({"?", "."})


class Found(Protocol):
    """What is filled in: corpus.formats.structures.Structure."""

    facts: dict[str, str]
    date: str | None
    references: dict[str, str]
    deposited: dict[str, list[str]]
    observed: dict[str, dict[tuple[int, str], str]]


def read_pdb[Filled: Found](lines: Iterator[str], found: Filled) -> Filled:
    """Fills in what a PDB file says; every column is where the format puts it.

    Raises:
        SourceError: the file is too large.
    """
    for number, line in enumerate(lines):
        if number > _MOST_ROWS:
            raise SourceError("too_large", f"must have at most {_MOST_ROWS} lines, but has more; split it")
        kind = line[:6].rstrip()
        if kind in ("ATOM", "HETATM"):
            _see(found, line[21:22].strip(), line[17:20].strip(), number=line[22:26], code=line[26:27].strip())
        elif kind == "SEQRES":
            found.deposited.setdefault(line[11:12].strip(), []).extend(line[19:70].split())
        elif kind == "ENDMDL":
            break
        else:
            _header(kind, line, found)
    return found


def read_mmcif[Filled: Found](lines: Iterator[str], found: Filled) -> Filled:
    """Fills in what an mmCIF file says; of its atoms, one a residue is read.

    Raises:
        SourceError: the file is no mmCIF or too large.
    """
    from Bio.PDB.MMCIF2Dict import MMCIF2Dict

    try:
        values: dict[str, Any] = dict(MMCIF2Dict(_Thinned(lines)))  # type: ignore[no-untyped-call]
    except SourceError:
        raise
    except (ValueError, LookupError, RuntimeError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise SourceError("damaged", f"must be mmCIF, but {str(error)[:150]}; fetch it again") from error
    columns = {name: value for name, value in values.items() if isinstance(value, list)}
    _cif_facts(columns, found)
    _cif_deposited(columns, found)
    _cif_observed(columns, found)
    return found


class _Thinned:
    """The lines of an mmCIF file with one atom a residue, as a file that Biopython reads."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = self._chosen(lines)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def read(self) -> str:
        """Makes it a file; nobody calls it."""
        return "".join(self._lines)

    def _chosen(self, lines: Iterator[str]) -> Iterator[str]:
        for number, line in enumerate(lines):
            if number > _MOST_ROWS:
                raise SourceError("too_large", f"must have at most {_MOST_ROWS} lines, but has more; split it")
            if not line.startswith(("ATOM ", "HETATM")) or not _ONE_ATOM.isdisjoint(line.split()):
                yield line


def _see(found: Found, chain: str, name: str, *, number: str, code: str) -> None:
    try:
        place = (int(number), code)
    except ValueError:
        return  # an atom without a residue's number says nothing about the sequence
    found.observed.setdefault(chain, {}).setdefault(place, name.upper())


def _header(kind: str, line: str, found: Found) -> None:
    facts = found.facts
    if kind == "HEADER":
        facts["structure"] = line[62:66].strip()
        found.date = _date(line[50:59])
    elif kind == "TITLE":
        facts["title"] = f"{facts.get('title', '')} {line[10:80].strip()}".strip()
    elif kind == "EXPDTA":
        facts["method"] = f"{facts.get('method', '')} {line[10:79].strip()}".strip()
    elif kind == "SOURCE" and "ORGANISM_SCIENTIFIC:" in line:
        facts.setdefault("organism", line[10:79].partition("ORGANISM_SCIENTIFIC:")[2].strip(" ;\r\n"))
    elif line.startswith("REMARK   2 RESOLUTION.") and "ANGSTROM" in line:
        facts["resolution"] = line[22:].strip().rstrip(".")
    elif kind == "DBREF" and line[26:32].strip() == "UNP":
        found.references.setdefault(line[12:13].strip(), line[33:41].strip())


def _date(written: str) -> str | None:
    """Reads 03-AUG-16: a year before 70 is of this century, as the first structures are of 1971."""
    day, _, rest = written.strip().partition("-")
    month, _, year = rest.partition("-")
    if not (year.isdigit() and len(year) == 2):
        return None
    century = "19" if int(year) >= 70 else "20"
    return written_date(f"{month} {day}, {century}{year}")


def _cif_facts(columns: dict[str, list[str]], found: Found) -> None:
    def first(*names: str) -> str:
        values = (value for name in names for value in columns.get(name, [])[:1])
        return next((" ".join(value.split()) for value in values if value not in _ABSENT and value.strip()), "")

    facts = {
        "structure": first("_entry.id"),
        "title": first("_struct.title"),
        "method": first("_exptl.method"),
        "organism": first(
            "_entity_src_gen.pdbx_gene_src_scientific_name",
            "_entity_src_nat.pdbx_organism_scientific",
            "_pdbx_entity_src_syn.organism_scientific",
            "_ma_target_ref_db_details.organism_scientific",
        ),
    }
    resolution = first("_refine.ls_d_res_high", "_em_3d_reconstruction.resolution")
    found.facts.update({**facts, "resolution": f"{resolution} ANGSTROMS" if resolution else ""})
    found.date = written_date(first("_pdbx_database_status.recvd_initial_deposition_date"))
    names = columns.get("_struct_ref.db_name", [])
    accessions = columns.get("_struct_ref.pdbx_db_accession", [])
    strands = columns.get("_entity_poly.pdbx_strand_id", [])
    for name, accession, chains in zip(names, accessions, strands, strict=False):
        if name == "UNP":
            found.references.update(dict.fromkeys(chains.split(","), accession))


def _cif_deposited(columns: dict[str, list[str]], found: Found) -> None:
    scheme = "_pdbx_poly_seq_scheme"
    chains = columns.get(f"{scheme}.pdb_strand_id") or columns.get(f"{scheme}.asym_id") or []
    places = columns.get(f"{scheme}.seq_id", [])
    seen: set[tuple[str, str]] = set()
    for chain, place, name in zip(chains, places, columns.get(f"{scheme}.mon_id", []), strict=False):
        if (chain, place) not in seen:  # one of several residues at a place is enough
            seen.add((chain, place))
            found.deposited.setdefault(chain, []).append(name.upper())
    if found.deposited:
        return
    entities = columns.get("_entity_poly_seq.entity_id", [])
    asyms = zip(columns.get("_struct_asym.id", []), columns.get("_struct_asym.entity_id", []), strict=False)
    polymers: dict[str, list[str]] = {}
    for entity, name in zip(entities, columns.get("_entity_poly_seq.mon_id", []), strict=False):
        polymers.setdefault(entity, []).append(name.upper())
    found.deposited.update({chain: list(polymers[entity]) for chain, entity in asyms if entity in polymers})


def _cif_observed(columns: dict[str, list[str]], found: Found) -> None:
    site = "_atom_site"
    chains = columns.get(f"{site}.auth_asym_id") or columns.get(f"{site}.label_asym_id") or []
    if found.deposited and not set(chains) & found.deposited.keys():
        chains = columns.get(f"{site}.label_asym_id", [])
    names = columns.get(f"{site}.label_comp_id") or columns.get(f"{site}.auth_comp_id") or []
    numbers = columns.get(f"{site}.auth_seq_id") or columns.get(f"{site}.label_seq_id") or []
    codes = columns.get(f"{site}.pdbx_PDB_ins_code") or ["?"] * len(numbers)
    models = columns.get(f"{site}.pdbx_PDB_model_num") or ["1"] * len(numbers)
    for chain, name, number, code, model in zip(chains, names, numbers, codes, models, strict=False):
        if model == models[0]:
            _see(found, chain, name, number=number, code="" if code in _ABSENT else code)
