"""Who may take part in a trial: free text cut in what lets a person in and what keeps one out."""

import re

INCLUSION, EXCLUSION, REST = "Inclusion criteria", "Exclusion criteria", "Eligibility"
_LONGEST = 90  # characters of a heading
_MARKS = " \t*#_-–•○●▪‣~[]()<>\uff08\uff09.0123456789"
_IN = re.compile(r"\b(?:inclusion|eligib(?:le|ility))\b|선정|포함", re.IGNORECASE)
_OUT = re.compile(r"\b(?:exclusion|ineligib(?:le|ility))\b|제외", re.IGNORECASE)
_CRITERIA = re.compile(r"\b(?:criteri(?:a|on)|requirements?)\b|기준", re.IGNORECASE)
_ALONE = re.compile(
    r"(?:inclusion|exclusion|eligible|ineligible|eligibility|선정|제외|포함)s?(?: 대상)?", re.IGNORECASE
)
_RUN_IN = re.compile(r"(?<=[.;)])[^\S\n]{1,9}(?=(?:key |main )?(?:inclusion|exclusion) criteria ?:)", re.IGNORECASE)
_ESCAPED = re.compile(r"\\([\\\[\]()<>*_~`#+.!|{}-])")


def split(criteria: str) -> list[tuple[str, str]]:
    """Returns (title, text) of what stands before any heading, of all inclusion and of all exclusion criteria.

    A line that is a heading of either kind starts it; text without any heading stays whole.
    """
    found: dict[str, list[str]] = {REST: [], INCLUSION: [], EXCLUSION: []}
    current = REST
    text = criteria.replace("\r\n", "\n").replace("\r", "\n")
    for line in _RUN_IN.sub("\n", text).split("\n"):
        kind, rest = _heading(line)
        if kind is None:
            found[current].append(line)
        else:
            current = kind
            found[current].extend([rest] if rest else [])
    texts = ((title, "\n".join(lines).strip()) for title, lines in found.items())
    return [(title, text) for title, text in texts if text]


def unescaped(text: str) -> str:
    r"""Returns text without the backslashes of Markdown, in which the registry answers: "\>=18" -> ">=18"."""
    return _ESCAPED.sub(r"\1", text)


def _heading(line: str) -> tuple[str | None, str]:
    """Returns the kind that a line begins and what stands behind its colon; (None, "") for any other line."""
    head, colon, rest = line.replace("\uff1a", ":").partition(":")
    kind = _kind(head, ended=bool(colon))
    if kind:
        return kind, rest.strip(" \t*_")
    behind = _kind(rest, ended=False) if len(head.split()) <= 4 else None
    return behind, ""


def _kind(head: str, *, ended: bool) -> str | None:
    bare = head.strip(_MARKS)
    if not bare or len(bare) > _LONGEST:
        return None
    out, criteria = _OUT.search(bare), _CRITERIA.search(bare)
    found = out or _IN.search(bare)
    if not found or (out and _IN.search(bare)):
        return None  # "Inclusion and exclusion criteria" begins both
    named = criteria is not None and _is_title(bare[: found.start()], bare[criteria.end() :], ended=ended)
    return (EXCLUSION if out else INCLUSION) if named or _ALONE.fullmatch(bare) else None


def _is_title(before: str, behind: str, *, ended: bool) -> bool:
    """Says whether the words around make a heading of it, and not a sentence about criteria."""
    most_behind = 8 if ended else 5
    return len(before.split()) <= 3 + ("-" in before) * 3 and len(behind.split()) <= most_behind
