"""How each word of a site file may be written, and what it may not say; people are told in words why not."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainValidator

OWN_OPTIONS = frozenset(
    (
        "account",
        "array",
        "begin",
        "chdir",
        "clusters",
        "comment",
        "constraint",
        "cpus-per-gpu",
        "cpus-per-task",
        "dependency",
        "error",
        "exclude",
        "exclusive",
        "export",
        "gid",
        "gpus",
        "gpus-per-node",
        "gpus-per-socket",
        "gpus-per-task",
        "gres",
        "hold",
        "input",
        "job-name",
        "mem",
        "mem-per-cpu",
        "mem-per-gpu",
        "no-requeue",
        "nodelist",
        "nodes",
        "ntasks",
        "ntasks-per-core",
        "ntasks-per-gpu",
        "ntasks-per-node",
        "ntasks-per-socket",
        "open-mode",
        "output",
        "parsable",
        "partition",
        "qos",
        "quiet",
        "requeue",
        "reservation",
        "signal",
        "test-only",
        "time",
        "time-min",
        "uid",
        "wait",
        "wckey",
        "wrap",
    )
)
"""Options of sbatch that medscale gives itself, or that would take a job out of its hands."""
OWN_SRUN_ARGUMENTS = OWN_OPTIONS | frozenset(("kill-on-bad-exit", "unbuffered", "multi-prog", "pty"))
OWN_VARIABLES = re.compile(
    "RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT|PYTHONPATH"
    "|(SLURM|SBATCH|SRUN|SUBMITIT|RAY_AUTH|MEDSCALE)_.*"
)
"""Variables that the scheduler and medscale set for each process."""
_SECRETS = re.compile(r"(.*_)?(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|CREDENTIALS|SECRET_ACCESS_KEY)")


def _written(pattern: str, what: str) -> AfterValidator:
    """Accepts text of one pattern; people are told in words what it must be, not in a regular expression."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}, but is {value[:60]!r}; change it")
        return value

    return AfterValidator(check)


def _option(name: str) -> str:
    # Slurm takes an option's beginning for the option: `requeu` requeues.
    if any(own.startswith(name) for own in OWN_OPTIONS):
        raise ValueError(f"must not give what medscale gives itself, but gives {name}; remove it (docs/sites.md)")
    return name


def _option_value(value: Any) -> str | int | Literal[True]:
    plain = isinstance(value, str) and re.fullmatch(_WORD, value)
    if value is True or (isinstance(value, int) and not isinstance(value, bool)) or plain:
        return value  # type: ignore[no-any-return]
    raise ValueError(f"must be one word, a whole number, or true for a bare flag, but is {value!r:.60}; change it")


def _srun_argument(value: str) -> str:
    name = value.removeprefix("--").partition("=")[0]
    if any(own.startswith(name) for own in OWN_SRUN_ARGUMENTS):
        raise ValueError(f"must not give what medscale gives itself, but gives --{name}; remove it (docs/sites.md)")
    return value


def _variable(name: str) -> str:
    if OWN_VARIABLES.fullmatch(name):
        raise ValueError(f"must not set what medscale or Slurm sets, but sets {name}; remove it")
    if _SECRETS.fullmatch(name):
        raise ValueError(f"must hold no secret, as a site file is shared, but sets {name}; export it where you submit")
    return name


def _tracking_uri(value: str) -> str:
    # What is wrong here may be a password: it is never shown.
    try:
        parts = urlsplit(value)
        secret = parts.password is not None or re.search(r"(password|token|secret|key)=", parts.query, re.IGNORECASE)
    except ValueError:
        raise ValueError("must be a URI such as https://mlflow.example.org, but is not; mend it") from None
    if secret:
        raise ValueError(
            "must hold no password, as a site file is shared, but holds one; take it out and export "
            "MLFLOW_TRACKING_PASSWORD or the whole MLFLOW_TRACKING_URI where you submit"
        )
    if not re.match(r"[a-z][a-z0-9+.-]*://\S+$", value):
        raise ValueError("must be a URI such as https://mlflow.example.org, but has no scheme or a space; mend it")
    return value


_PATH = r"[A-Za-z0-9._,@/+=-]*"
_WORD = r"[A-Za-z0-9._,:@/+=%&|()*\[\]-]+"
Word = Annotated[str, _written(_WORD, "one word without spaces, quotes or what a shell expands")]
"""A value of an sbatch option: no space, no quote, nothing a shell would expand."""
Name = Annotated[str, _written(r"[A-Za-z0-9][A-Za-z0-9._,:@/+-]*", "a name of letters, digits and . _ , : @ / + -")]
Text = Annotated[str, _written(r"[^\x00-\x1f\x7f]*", "text of one line")]
Variable = Annotated[str, _written(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name"), AfterValidator(_variable)]
OptionName = Annotated[
    str, _written(r"[a-z][a-z0-9-]*", "a long option of sbatch without its dashes"), AfterValidator(_option)
]
OptionValue = Annotated[str | int | Literal[True], PlainValidator(_option_value)]
SrunArgument = Annotated[
    str, _written(rf"--[a-z][a-z0-9-]*(={_WORD})?", "written --name or --name=value"), AfterValidator(_srun_argument)
]
AbsolutePath = Annotated[
    str, _written(r"/[^\x00-\x20'\"$`;]*", "a path from / without spaces, quotes or what a shell expands")
]
Mount = Annotated[str, _written(rf"(/{_PATH}):(/{_PATH})(:r[ow])?", "written /path/outside:/path/inside")]
TrackingUri = Annotated[str, AfterValidator(_tracking_uri)]
