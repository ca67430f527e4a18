"""Safety reports (FAERS, in openFDA's JSON): the drugs, the reactions and the outcome of one adverse event."""

from collections.abc import Mapping
from typing import Any

from corpus.formats import papers
from corpus.formats.dates import iso_date
from corpus.modality import Record, UnusableError

_ROLES = {"1": "suspect", "2": "concomitant", "3": "interacting"}
_OUTCOMES = {
    "1": "recovered",
    "2": "recovering",
    "3": "not recovered",
    "4": "recovered with sequelae",
    "5": "fatal",
    "6": "unknown",
}
_ACTIONS = {"1": "withdrawn", "2": "dose reduced", "3": "dose increased", "4": "dose not changed"}
_SEXES = {"1": "male", "2": "female"}
_UNITS = {"800": "decades", "801": "years", "802": "months", "803": "weeks", "804": "days", "805": "hours"}
_REPORTERS = {"1": "physician", "2": "pharmacist", "3": "other health professional", "4": "lawyer", "5": "consumer"}
_GRAVE = ("death", "lifethreatening", "hospitalization", "disabling", "congenitalanomali", "other")
_GRAVE_WORDS = ("death", "life-threatening", "hospitalization", "disability", "congenital anomaly", "other")
_ROUTE_NAMES = (  # E2B codes 001 to 067
    "auricular;buccal;cutaneous;dental;endocervical;endosinusial;endotracheal;epidural;extra-amniotic;hemodialysis;"
    "intra corpus cavernosum;intra-amniotic;intra-arterial;intra-articular;intra-uterine;intracardiac;intracavernous;"
    "intracerebral;intracervical;intracisternal;intracorneal;intracoronary;intradermal;intradiscal;intrahepatic;"
    "intralesional;intralymphatic;intramedullar;intrameningeal;intramuscular;intraocular;intrapericardial;"
    "intraperitoneal;intrapleural;intrasynovial;intratumor;intrathecal;intrathoracic;intratracheal;intravenous bolus;"
    "intravenous drip;intravenous;intravesical;iontophoresis;nasal;occlusive dressing;ophthalmic;oral;oropharyngeal;"
    "other;parenteral;periarticular;perineural;rectal;respiratory;retrobulbar;subconjunctival;subcutaneous;subdermal;"
    "sublingual;topical;transdermal;transmammary;transplacental;unknown;urethral;vaginal"
)
_ROUTES = _ROUTE_NAMES.split(";")


def is_report(value: Mapping[str, Any]) -> bool:
    """Says whether an object is a safety report."""
    patient = value.get("patient")
    return isinstance(patient, dict) and ("drug" in patient or "reaction" in patient)


def record(value: Mapping[str, Any], where: str) -> Record:
    """Returns a safety report as a record.

    Raises:
        UnusableError: it names no drug or no reaction, or a text cannot be written.
    """
    patient = value["patient"]
    drugs = [_drug(drug) for drug in objects(patient.get("drug"))]
    reactions = [_reaction(reaction) for reaction in objects(patient.get("reaction"))]
    if not any(drugs) or not any(reactions):
        raise UnusableError("no_reaction", "a safety report must name a drug and a reaction, but does not")
    identity = text(value.get("safetyreportid") or value.get("@case_number"))
    received = e2b_date(value.get("receivedate") or value.get("receiptdate"))
    source = value.get("primarysource")
    facts = {
        "kind": "adverse event report",
        "report": identity,
        "received": received,
        "country": text(value.get("occurcountry") or value.get("primarysourcecountry")),
        "reporter": _REPORTERS.get(text(source.get("qualification")) if isinstance(source, dict) else "", ""),
        "serious": _seriousness(value),
        "patient": _patient(patient),
    }
    sections = [("Drugs", "\n".join(filter(None, drugs))), ("Reactions", "\n".join(filter(None, reactions)))]
    number = identity.partition("-")[0]
    return papers.record(
        facts,
        sections,
        where=where,
        language="en",
        ids=[f"faers:{identity}"] if identity else [],
        date=received or None,
        group=f"faers:{number}" if number else None,
    )


def objects(value: Any) -> list[dict[str, Any]]:
    """Returns the objects of a list, or of a single object, which JSON made from XML has instead of a list of one."""
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, dict)]


def text(value: Any) -> str:
    """Returns a text or number on one line; empty for everything else."""
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


def e2b_date(value: Any) -> str:
    """Reads 20050127, 200501 or 2005; empty for anything else."""
    written = text(value).replace("-", "")
    return iso_date(written[:4], written[4:6], day=written[6:8]) or "" if written[:4].isdigit() else ""


def _drug(drug: Mapping[str, Any]) -> str:
    named = text(drug.get("medicinalproduct"))
    substance = drug.get("activesubstance")
    active = text(substance.get("activesubstancename")) if isinstance(substance, dict) else ""
    called = f"{named} ({active})" if named and active and active.casefold() != named.casefold() else named or active
    if not called:
        return ""
    started, ended = e2b_date(drug.get("drugstartdate")), e2b_date(drug.get("drugenddate"))
    details = [
        _ROLES.get(text(drug.get("drugcharacterization")), ""),
        _route(text(drug.get("drugadministrationroute"))),
        text(drug.get("drugdosagetext")),
        f"for {text(drug.get('drugindication'))}" if text(drug.get("drugindication")) else "",
        f"{started} to {ended}".strip() if started and ended else f"from {started}" if started else "",
        _ACTIONS.get(text(drug.get("actiondrug")), ""),
    ]
    return f"- {called}: {', '.join(filter(None, details))}".removesuffix(": ")


def _route(code: str) -> str:
    known = code.isascii() and code.isdigit() and 1 <= int(code) <= len(_ROUTES)
    return _ROUTES[int(code) - 1] if known and code != "065" else ""


def _reaction(reaction: Mapping[str, Any]) -> str:
    called = text(reaction.get("reactionmeddrapt"))
    outcome = _OUTCOMES.get(text(reaction.get("reactionoutcome")), "")
    return f"- {called}: {outcome}".removesuffix(": ") if called else ""


def _seriousness(value: Mapping[str, Any]) -> str:
    grave = [
        word for kind, word in zip(_GRAVE, _GRAVE_WORDS, strict=True) if text(value.get(f"seriousness{kind}")) == "1"
    ]
    known = {"1": "yes", "2": "no"}.get(text(value.get("serious")), "yes" if grave else "")
    return f"{known} ({', '.join(grave)})" if grave else known


def _patient(patient: Mapping[str, Any]) -> str:
    sex = _SEXES.get(text(patient.get("patientsex")), "")
    age, unit = text(patient.get("patientonsetage")), _UNITS.get(text(patient.get("patientonsetageunit")), "")
    return ", ".join(filter(None, [sex, f"{age} {unit}" if age and unit else ""]))
