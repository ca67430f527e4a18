"""The command line: `python -m jobs <stage>` runs one stage; status, cancel, ship and others serve the operator."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from jobs._planning import describe, require_place
from jobs._run import ROOT, PlanningError, Run, load, load_site, stages
from jobs._stage import STOPPED
from slurm.site import Site

_RESULTS = ROOT / "results"
_EXAMPLES = """examples:
  .venv/bin/python -m jobs check --run demo --site laptop
  .venv/bin/python -m jobs plan dense_32b --site b200-cloud    memory, time and better layouts, before any queue
  .venv/bin/python -m jobs rehearse dense_32b --site b200-cloud    one step of its 256 ranks, here, without data
  .venv/bin/python -m jobs pretrain --run demo --site laptop --after results/demo/{tokenize,plan}/record.json
  .venv/bin/python -m jobs status demo --follow    what every stage is doing, live
  .venv/bin/python -m jobs corpus show demo        sources, licences, rejects, tokens; trace and licences say more
  .venv/bin/python -m jobs cancel demo             end its jobs; release lets it go on
  .venv/bin/python -m jobs ship                    deliver what the tracking server has not got yet
  .venv/bin/python -m jobs dashboard               open MLflow on this machine

Snakemake calls the stages for you: make demo, or
  .venv/bin/snakemake --workflow-profile workflows/profiles/local --config run=demo site=laptop
Exit status: 0 done, 1 a stage failed, 2 the run or site file must change, 85 stopped or cancelled, 130 Ctrl-C.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status (docs/exit-codes.md)."""
    options = _parser().parse_args(arguments)
    if getattr(options, "shown", None):
        options.run = options.shown
    commands = {
        "cancel": _cancel,
        "corpus": _corpus,
        "dashboard": _dashboard,
        "release": _release,
        "ship": _ship,
        "status": _status,
    }
    try:
        if options.command in commands:
            return commands[options.command](options)
        if options.command == "plan" and not options.after:
            return _plan(options)
        if options.command == "rehearse":
            return _rehearse(options)
        run, site = load(options.run, options.site)
        if options.command == "check":
            print(describe(run, site, site_name=_name(options.site)))
            return 0
        require_place(site, options.results)
    except PlanningError as error:
        print("\n".join(error.lines), file=sys.stderr)
        return 2
    return _stage(options, run, site)


def _plan(options: argparse.Namespace) -> int:
    from jobs._plan_view import SECTIONS, show

    run, site = load(options.run, options.site, only=SECTIONS)
    return show(run, site, site_name=_name(options.site), results=options.results)


def _rehearse(options: argparse.Namespace) -> int:
    from jobs._plan_view import SECTIONS
    from jobs._rehearse import show

    run, _ = load(options.run, options.site, only=SECTIONS)
    return show(
        run, results=options.results, ranks=options.ranks, processes=options.processes, whole=options.every_microbatch
    )


def _stage(options: argparse.Namespace, run: Run, site: Site) -> int:
    from jobs._submit import StageFailedError, StageStoppedError, ensure

    after = {path.parent.name: path for path in options.after}
    root = options.results / run.name
    try:
        ensure(options.command, run, site=site, site_name=_name(options.site), root=root, after=after)
    except StageFailedError as error:
        print(error, file=sys.stderr)
        return 1
    except StageStoppedError as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from jobs._tracking import dashboard

    uri = load_site(options.site).mlflow_tracking_uri
    return dashboard(options.results, port=options.port, tracking_uri=uri)


def _ship(options: argparse.Namespace) -> int:
    from jobs._shipper import ship_command

    uri = load_site(options.site).mlflow_tracking_uri
    return ship_command(options.results, tracking_uri=uri, strict=options.strict)


def _status(options: argparse.Namespace) -> int:
    from jobs._look import last_site
    from jobs._status import status

    name = options.site or last_site(options.results / _name(options.run)) or "laptop"
    run, site = load(options.run, name)
    results, follow, as_json = options.results, options.follow, options.json
    return status(run, site, site_name=_name(name), results=results, follow=follow, as_json=as_json)


def _corpus(options: argparse.Namespace) -> int:
    from jobs._corpus_view import corpus_command

    try:
        return corpus_command(options)
    except BrokenPipeError:  # who reads has seen enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _cancel(options: argparse.Namespace) -> int:
    from jobs._cancel import cancel

    return cancel(_name(options.run), results=options.results, stages=options.stage, yes=options.yes)


def _release(options: argparse.Namespace) -> int:
    from jobs._cancel import release

    return release(_name(options.run), results=options.results, stages=options.stage)


def _name(site: str) -> str:
    return Path(site).stem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add(commands, "check", "check a run and a site, and show what would run, where and how long")
    for stage in stages():
        _add_stage(commands, stage)
    _add_rehearse(commands)
    status = _add_for_operators(commands, "status", "show every stage of a run, what it costs and when it will be done")
    status.add_argument("--site", help="a file of slurm/sites, or a path (default: the site where it was last started)")
    status.add_argument("--follow", action="store_true", help="go on showing it, on a terminal")
    status.add_argument("--json", action="store_true", help="print one JSON document, for scripts")
    cancel = _add_for_operators(commands, "cancel", "end the jobs of a run; its stages stay cancelled until released")
    cancel.add_argument("--stage", nargs="+", default=[], help="only these stages (default: those with a live job)")
    cancel.add_argument("--yes", action="store_true", help="do not ask")
    release = _add_for_operators(commands, "release", "let cancelled stages start again")
    release.add_argument("--stage", nargs="+", default=[], help="only these stages (default: all that are cancelled)")
    _add_corpus(commands)
    ship = _add(commands, "ship", "deliver journals to MLflow")
    ship.add_argument("--strict", action="store_true", help="exit 1 when something could not be delivered")
    dashboard = _add(commands, "dashboard", "serve the MLflow UI on 127.0.0.1")
    dashboard.add_argument("--port", type=int, default=5000)
    return parser


def _add_stage(commands: Any, stage: str) -> None:
    first, shown = stage == stages()[0], stage == "plan"
    text = f"run the stage {stage}, unless its result is there"
    if shown:
        text = f"show what a run's layout costs, better ones, and what is refused; with --after, {text}"
    command = _add(commands, stage, text)
    if shown:
        command.add_argument(
            "shown",
            nargs="?",
            metavar="run",
            help="a file of workflows/runs, or a path; the same as --run",
        )
    command.add_argument(
        "--after",
        type=Path,
        nargs="*" if first else "+",
        default=[],
        required=not first and not shown,
        help="record.json of each stage it stands on, as the rule names them",
    )


def _add_rehearse(commands: Any) -> None:
    text = "do one step of every distinct rank of a run's layout on this machine, without data, and check the planner"
    command = _add_for_operators(commands, "rehearse", text)
    command.add_argument("--site", default="laptop", help="a file of slurm/sites, or a path (default: %(default)s)")
    command.add_argument("--ranks", action="store_true", help="print every rank too")
    command.add_argument("--processes", type=int, default=2, help="ranks rehearsed at a time (default: %(default)s)")
    command.add_argument(
        "--every-microbatch", action="store_true", help="run every microbatch; unless given, a few stand for all"
    )


def _add_corpus(commands: Any) -> None:
    text = "look at a run's corpus: what is in it, where a token comes from, under which licences"
    actions = commands.add_parser("corpus", help=text, description=text).add_subparsers(
        dest="action", required=True, metavar="action"
    )
    show = _add_for_operators(actions, "show", "sources, licences, counts, rejects, tokens, overlaps and samples")
    show.add_argument("--json", action="store_true", help="print one JSON document, for scripts")
    trace = _add_for_operators(actions, "trace", "say which record, file and licence a token or a document comes from")
    trace.add_argument("stream", help="such as text.en")
    trace.add_argument("place", help="number of a token, or the id of a record (24 hexadecimal digits)")
    trace.add_argument("--document", action="store_true", help="the number is that of a document")
    trace.add_argument("--split", choices=("train", "valid"), default="train", help="default: %(default)s")
    licences = _add_for_operators(actions, "licences", "list every source with its terms, share and digests")
    licences.add_argument("--csv", action="store_true", help="print a table with a line for each file")


def _add_for_operators(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("run", help="a file of workflows/runs, or a path")
    command.add_argument("--results", type=Path, default=_RESULTS, help="where results lie (default: %(default)s)")
    return command


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    if name not in ("ship", "dashboard"):
        command.add_argument("--run", default="demo", help="a file of workflows/runs, or a path (default: %(default)s)")
    command.add_argument("--site", default="laptop", help="a file of slurm/sites, or a path (default: %(default)s)")
    command.add_argument("--results", type=Path, default=_RESULTS, help="where results lie (default: %(default)s)")
    return command


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
