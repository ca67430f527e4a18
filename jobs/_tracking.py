"""MLflow: the only file that knows it. Runs, points, datasets and artifacts go in; the dashboard shows them.

Every call may be made again with the same arguments, after a crash or a lost answer, and still leaves one copy: a run
is found by its tracking id, and MLflow keeps one point for each (metric, time, step, value).
"""

# ruff: noqa: E402 - the settings must stand before MLflow is imported

import json
import os
import posixpath
import re
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Any

_SETTINGS = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # whoever calls tries again; a second try inside would make runs twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes and 2 GB, for nothing that is used here
}
for _key, _value in _SETTINGS.items():
    os.environ.setdefault(_key, _value)

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from jobs._parcels import MAX_POINTS, Point
from jobs._shipper import default_uri, redact

TRACKING_ID = "medscale.tracking_id"
_SERVERS = ("http://", "https://")
_MAX_PARAMS, _MAX_KEY, _MAX_DATASET_DIGEST = 100, 250, 36


class Tracker:
    """A tracking server, or a database used as one."""

    def __init__(self, uri: str, *, artifacts: Path) -> None:
        """Connects to `uri`. Used directly, a database has its artifacts in `artifacts`; a server has its own."""
        self._client = MlflowClient(tracking_uri=uri)
        self._artifacts = None if uri.startswith(_SERVERS) else artifacts.resolve()

    def ask(self) -> None:
        """Asks for something small: one call tells whether anything can be delivered now."""
        self._client.search_experiments(max_results=1)

    def open(self, start: Mapping[str, Any]) -> tuple[str, str]:
        """Finds or makes the run of a start entry, sets it running, and returns (experiment id, run id)."""
        experiment_id = self._experiment(start["experiment"])
        found = self._find(experiment_id, start["tracking_id"])
        run = found[0] if found else self._create(experiment_id, start)
        self._client.update_run(run.info.run_id, status="RUNNING")
        new = {key: value for key, value in _named(start["params"]).items() if key not in run.data.params}
        for some in batched((Param(key, value) for key, value in new.items()), _MAX_PARAMS):
            self._client.log_batch(run.info.run_id, params=some)
        self.log(run.info.run_id, points=(), tags={**start["tags"], **_shown(start)})
        return experiment_id, run.info.run_id

    def reopen(self, run_id: str) -> None:
        """Sets a run running again."""
        self._client.update_run(run_id, status="RUNNING")

    def log(self, run_id: str, *, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Logs points and tags, in as few requests as MLflow allows."""
        metrics = [Metric(_name(point.key), point.value, point.time, point.step) for point in points]
        for some in batched(metrics, MAX_POINTS):
            self._client.log_batch(run_id, metrics=some)
        for several in batched((RunTag(key, value) for key, value in _named(tags).items()), _MAX_PARAMS):
            self._client.log_batch(run_id, tags=several)

    def log_datasets(self, run_id: str, datasets: Iterable[Mapping[str, str]]) -> None:
        """Logs the data that a run read. MLflow keeps 36 letters of a digest; the whole one is in the profile."""
        inputs = [
            DatasetInput(
                Dataset(
                    name=dataset["name"],
                    digest=dataset["digest"][:_MAX_DATASET_DIGEST],
                    source_type="local",
                    source=json.dumps({"uri": dataset["source"]}),
                    profile=json.dumps({"sha256": dataset["digest"]}),
                ),
                [InputTag("mlflow.data.context", dataset["context"])],
            )
            for dataset in datasets
        ]
        if inputs:
            self._client.log_inputs(run_id, datasets=inputs)

    def log_artifact(self, run_id: str, path: Path, *, folder: str) -> None:
        """Copies a file into the run's artifacts, below `folder`."""
        self._client.log_artifact(run_id, str(path), artifact_path=folder or None)

    def end(self, run_id: str, *, status: str, time: int) -> None:
        """Ends a run, and deletes its twins: a server that hung while it was asked for a run may have made two."""
        run = self._client.get_run(run_id)
        for twin in self._find(run.info.experiment_id, run.data.tags[TRACKING_ID]):
            if twin.info.run_id != run_id:
                self._client.delete_run(twin.info.run_id)
        self._client.set_terminated(run_id, status=status, end_time=time)

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = (self._artifacts / name).as_uri() if self._artifacts else None
        return str(self._client.create_experiment(name, artifact_location=location, tags=_described(name)))

    def _find(self, experiment_id: str, tracking_id: str) -> list[Run]:
        runs = self._client.search_runs([experiment_id], f"tags.`{TRACKING_ID}` = '{tracking_id}'")
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _create(self, experiment_id: str, start: Mapping[str, Any]) -> Run:
        tags = {TRACKING_ID: start["tracking_id"]}
        return self._client.create_run(experiment_id, start_time=start["time"], tags=tags, run_name=start["name"])


def _shown(start: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags that fill the columns Source and Version of MLflow's table of runs."""
    stage = start["experiment"].rpartition("/")[2]
    source = {"mlflow.source.name": f"python -m jobs {stage}", "mlflow.source.type": "JOB"}
    commit = start["tags"].get("git_commit")
    return source | ({"mlflow.source.git.commit": commit} if commit else {})


def _described(experiment: str) -> dict[str, str]:
    stage = experiment.rpartition("/")[2]
    note = f"The stage {stage}. A run is named run@site; its journal is `results/<run>/{stage}/journal.jsonl`."
    return {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": note}


def _named(values: Mapping[str, str]) -> dict[str, str]:
    return {_name(key): value for key, value in values.items()}


def _name(key: str) -> str:
    """Returns a key that MLflow takes: letters, digits and _-.: /, a plain relative path, at most 250 long."""
    plain = posixpath.normpath(re.sub(r"[^\w.:/ -]", "_", key).replace("..", "_")).strip("/")
    return plain[:_MAX_KEY]


def dashboard(results_root: Path, *, port: int = 5000, tracking_uri: str | None = None) -> int:
    """Serves MLflow's UI to this machine only, in this one process, until Ctrl-C; returns the exit status.

    MLflow's own command starts a second process for the same work, and takes twice the memory and time.

    Args:
        results_root: where the embedded database and its artifacts are.
        port: on 127.0.0.1.
        tracking_uri: a database to show instead of the embedded one.
    """
    uri = tracking_uri or default_uri(results_root)
    if uri.startswith(_SERVERS):
        print(f"The runs are tracked by a server that shows them itself: open {redact(uri)}")
        return 0
    if not _is_free(port):
        print(f"port: must be free, but {port} is in use; choose another, as in --port {port + 1}", file=sys.stderr)
        return 1
    address = f"http://127.0.0.1:{port}{_START}"
    print(f"Starting MLflow: in a few seconds the runs are at\n\n    {address}\n\nStop it with Ctrl-C.", flush=True)
    results_root.mkdir(parents=True, exist_ok=True)
    import uvicorn

    Tracker(uri, artifacts=results_root / "mlartifacts").ask()  # makes the tables of a new database before anyone asks
    uvicorn.run(_application(results_root, uri), host="127.0.0.1", port=port, log_level="warning")
    return 0


def _application(results_root: Path, uri: str) -> Callable[..., Awaitable[None]]:
    """Returns MLflow's server application (ASGI) without its assistant.

    The assistant runs commands as the user who started the server, for anyone who reaches it, and on a shared machine
    that is every user: 127.0.0.1 is no border between them. MLflow 3.17.2 has no switch to leave it out.
    """
    from mlflow.server import constants

    artifacts = (results_root / "mlartifacts").resolve()
    artifacts.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts.as_uri(),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    from mlflow.server.fastapi_app import app

    async def guarded(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path == _START:
            await _answer(send, 200, _START_PAGE)
        elif "/mlflow/assistant" in path:
            await _answer(send, 403, "medscale leaves MLflow's assistant out")
        else:
            await app(scope, receive, send)

    return guarded


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


# MLflow's UI opens on traces of language-model applications, with its assistant beside them, and keeps in the browser
# what a person chose instead. This page makes the choice that suits training runs, once, and goes on to the runs.
_START = "/medscale"
_START_PAGE = """<!doctype html><title>medscale</title><script>
const wanted = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.panelOpen_v1": "false",
                "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"};
for (const [key, value] of Object.entries(wanted))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
location.replace("/#/experiments");
</script>"""


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
