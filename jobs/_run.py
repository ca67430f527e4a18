"""Run files and site files: found, read strictly, checked as a whole; every mistake is one line."""

import importlib
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jobs._stage import Context, StageConfig
from slurm.site import Site

ROOT = Path(__file__).resolve().parents[1]
_RUNS, _SITES = "workflows/runs", "slurm/sites"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_TYPES = {
    "bool": "true or false",
    "dict": "settings, one `name: value` a line",
    "float": "a number",
    "int": "a whole number",
    "int_from_float": "a whole number",
    "string": "text, in quotes where it looks like a number",
}


class PlanningError(Exception):
    """Everything that is wrong with a run or a site, one line each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run file, read and checked.

    Attributes:
        deadline: the day by whose end the run should be done; what is planned and shown, never what is computed.
        sections: a validated config for every stage.
        given: the settings of each section, without `resources`.
    """

    name: str
    path: Path
    seed: int
    deadline: date | None
    sections: Mapping[str, StageConfig]
    given: Mapping[str, Mapping[str, Any]]

    def asked(self, stage: str, *, site: Site) -> dict[str, Any]:
        """Returns what a stage's result depends on besides the stages before it; when it changes, the stage runs again.

        `resources` and the site are left out: more time or another cluster ask for the same result; not so where a
        stage reads them. Files are known by size and time, which is cheap enough for planning.
        """
        section = self.sections[stage]
        stats = {str(path): path.stat() for path in section.files(ROOT)}
        files = {path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}
        sizes = {"nodes", "tasks_per_node", "mem_gb"}
        read = {
            name: [self.given[name], self.sections[name].resources.model_dump(include=sizes), site.mem_gb]
            for name in section.reads
        }
        return {"seed": self.seed, "settings": self.given[stage], "files": files, "read": read}


def stages() -> tuple[str, ...]:
    """Returns the stages in the order they run: the includes of the Snakefile."""
    return tuple(
        re.findall(r'^include: "workflows/rules/(\w+)\.smk"', (ROOT / "Snakefile").read_text(), re.MULTILINE)[1:]
    )


def load(run: str, site: str, *, root: Path = ROOT, only: Collection[str] | None = None) -> tuple[Run, Site]:
    """Reads and checks a run and a site, given by name or by path; of its sections, all or `only` these.

    Raises:
        PlanningError: with every mistake found, one line each.
    """
    problems: list[str] = []
    run_path = _find(run, _RUNS, root, problems)
    site_path = _find(site, _SITES, root, problems)
    run_value = _based(_read_yaml(run_path, problems), root, problems)
    site_value = _read_yaml(site_path, problems)
    checked_site = _check(Site, site_value, f"site {Path(site).stem}", problems)
    sections = _check_sections(run_value, problems, only=stages() if only is None else only)
    problems += _cross_check(sections, checked_site, root)
    if problems or run_path is None or run_value is None or checked_site is None:
        raise PlanningError(problems)
    given = {name: section.model_dump(mode="json", exclude={"resources"}) for name, section in sections.items()}
    checked_run = Run(
        name=run_path.stem,
        path=run_path,
        seed=run_value.get("seed", 0),
        deadline=run_value.get("deadline"),
        sections=sections,
        given=given,
    )
    return checked_run, checked_site


def load_site(site: str, *, root: Path = ROOT) -> Site:
    """Reads and checks a site alone.

    Raises:
        PlanningError: with every mistake found, one line each.
    """
    problems: list[str] = []
    value = _read_yaml(_find(site, _SITES, root, problems), problems)
    checked = _check(Site, value, f"site {Path(site).stem}", problems)
    if checked is None:
        raise PlanningError(problems)
    return checked


def _find(name: str, folder: str, root: Path, problems: list[str]) -> Path | None:
    if name.endswith((".yaml", ".yml")):
        path = Path(name) if Path(name).is_absolute() else root / name
        known = []
    else:
        path = root / folder / f"{name}.yaml"
        known = sorted(file.stem for file in (root / folder).glob("*.yaml"))
    if path.is_file() and not _NAME.fullmatch(path.stem):
        problems.append(f"{path.name}: must be named in lower-case letters, digits, - and _, but is not; rename it")
    if path.is_file():
        return path
    kind = "run" if folder == _RUNS else "site"
    problems.append(
        f"{kind}: must be a file of {folder} or a path to a .yaml file, but is {name!r}{_hint(name, known)}"
    )
    return None


def _read_yaml(path: Path | None, problems: list[str]) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{path.name}: must be YAML in UTF-8, but {_one_line(error)}; mend that line")
        return None
    if not isinstance(value, dict):
        problems.append(f"{path.name}: must hold `name: value` lines, but holds {_shown(value)}; see {_RUNS}/demo.yaml")
        return None
    return value


def _based(value: dict[str, Any] | None, root: Path, problems: list[str]) -> dict[str, Any] | None:
    """Returns a run with what it says on top of the run that its `base` names; lists are replaced whole."""
    if value is None or "base" not in value:
        return value
    path = _find(str(value["base"]), _RUNS, root, problems)
    base = _read_yaml(path, problems)
    if base is not None and "base" in base:
        problems.append(f"base: must name a run without a base of its own, but {path and path.stem} has one; name that")
        return None
    own = {key: item for key, item in value.items() if key != "base"}
    return None if base is None else _merged(base, own)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(base[key], item) for key, item in own.items() if _are_settings(base.get(key), item)}
    return {**base, **own, **both}


def _are_settings(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _check_sections(
    value: dict[str, Any] | None, problems: list[str], *, only: Collection[str]
) -> dict[str, StageConfig]:
    """Returns the sections that are sound in themselves."""
    if value is None:
        return {}
    names = stages()
    known = [*names, "base", "seed", "deadline"]
    problems += [f"{key}: no such section{_hint(str(key), known)}" for key in value if key not in known]
    seed = value.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        problems.append(f"seed: must be a whole number >= 0, but is {_shown(seed)}; write for example seed: 1234")
    deadline = value.get("deadline")
    if deadline is not None and not (isinstance(deadline, date) and not isinstance(deadline, datetime)):
        problems.append(f"deadline: must be a day, but is {_shown(deadline)}; write for example deadline: 2026-12-31")
    read = [name for name in names if name in only]
    checked = {name: _check(config_type(name), value.get(name) or {}, name, problems) for name in read}
    return {name: section for name, section in checked.items() if section is not None}


def config_type(stage: str) -> type[StageConfig]:
    """Returns the config class of a stage: the annotation of its run()'s first argument."""
    hints = get_type_hints(importlib.import_module(f"jobs.{stage}").run)
    found: type[StageConfig] = hints["config"]
    return found


def _cross_check(sections: Mapping[str, StageConfig], site: Site | None, root: Path) -> Iterator[str]:
    context = Context(sections=sections, root=root)
    for name, section in sections.items():
        if site is not None:
            lines = section.resources.problems(site, spread=section.spread, purpose=section.purpose)
            yield from (f"{name}.resources.{line}" for line in lines)
        yield from (f"{name}.{line}" for line in section.problems(context))
    if site is not None:
        yield from _over_budget(sections, site)
        yield from _not_shared(site)


def _over_budget(sections: Mapping[str, StageConfig], site: Site) -> Iterator[str]:
    """Yields a run that could need more GPU-hours than the site gives to one run."""
    hours = {name: section.resources.gpu_hours for name, section in sections.items()}
    total, budget = sum(hours.values()), site.policies.gpu_hours
    if budget is None or total <= budget:
        return
    parts = ", ".join(f"{name} {_hours(need)}" for name, need in hours.items() if need)
    yield (
        f"resources: must need at most the site's {_hours(budget)} GPU-hours (policies.gpu_hours), but could need "
        f"{_hours(total)} ({parts}); lower timeout_min, nodes or gpus_per_node, or have the budget raised"
    )


def _hours(hours: float) -> str:
    return f"{hours:,.1f}".removesuffix(".0")


def _not_shared(site: Site) -> Iterator[str]:
    """Yields a shared folder that is not there. Where there is no sbatch it need not be: plans are made anywhere."""
    if site.executor == "slurm" and site.shared and shutil.which("sbatch") and not Path(site.shared).is_dir():
        yield f"site.shared: must be a folder where jobs are submitted, but {site.shared} is not there; mend the path"


def _check[Model: BaseModel](model: type[Model], value: Any, where: str, problems: list[str]) -> Model | None:
    if value is None:
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        items = error.errors(include_url=False)
        causes = [item for item in items if not any(_follows(item, other) for other in items)]
        problems += [_line(where, item, model) for item in causes]
        return None


def _follows(item: ErrorDetails, other: ErrorDetails) -> bool:
    """Tells whether `item` is said of the whole because `other` is wrong inside it."""
    inside = other["loc"]
    return len(inside) > len(item["loc"]) and inside[: len(item["loc"])] == item["loc"]


def _line(where: str, item: ErrorDetails, model: type[BaseModel]) -> str:
    place, text = ".".join([where, *(str(part) for part in item["loc"] if part != "[key]")]), _explain(item, model)
    names_a_setting = item["type"] == "value_error" and re.match(r"[\w.]+: ", text)
    return f"{place}.{text}" if names_a_setting else f"{place}: {text}"


def _explain(item: ErrorDetails, model: type[BaseModel]) -> str:
    """Turns one pydantic error into the house's grammar: what must hold, what was found, what to do."""
    kind, found = item["type"], _shown(item["input"])
    if kind == "extra_forbidden":
        return f"no such setting{_hint(str(item['loc'][-1]), _settings(model, item['loc'][:-1]))}"
    if kind == "missing":
        return "must be given, but is not there; add it"
    if kind in ("value_error", "assertion_error"):
        return item["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return f"must be written as {item['ctx']['pattern']}, but is {found}; change it"
    stem = kind.removesuffix("_type").removesuffix("_parsing")
    message = item["msg"].removeprefix("Input ").removeprefix("should ")
    wanted = f"be {_TYPES[stem]}" if stem in _TYPES else message[0].lower() + message[1:]
    return f"must {wanted}, but is {found}; change it"


def _settings(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """Returns the names allowed at `location`, following nested models and the items of lists."""
    for part in location:
        if isinstance(part, int) or not hasattr(model, "model_fields") or part not in model.model_fields:
            continue
        model = _model_in(model.model_fields[part].annotation)
    return sorted(getattr(model, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    found = [_model_in(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in found if model is not None), None)


def _hint(name: str, known: Iterable[str]) -> str:
    options = sorted(known)
    close = get_close_matches(name, options, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; choose one of {', '.join(options)}" if options else "; remove it or mend the path"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()


class _StrictLoader(yaml.SafeLoader):
    """YAML as people mean it: 1e-4 is a number, and a key that occurs twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)
