"""Shows runs and studies in a browser: serves their folders to this machine only."""

import mimetypes
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from raigen.errors import RaigenError
from raigen.report.html import fill
from raigen.runs.run import Run
from raigen.runs.study import Study

OF_A_STUDY = ("report.html", "comparison.csv", "comparison.json", "comparison.parquet", "axes.csv", "axes.parquet",
              "verdicts.jsonl", "cards")  # fmt: skip
HOST = "127.0.0.1"  # never another one: run folders are private


def server_of(place: Path, port: int) -> ThreadingHTTPServer:
    """A server of `place` (a run folder, a folder of runs or a study) on 127.0.0.1 and `port` (0: any free one).

    `serve_forever` starts it. Raises RaigenError when `place` has neither a run nor a study, or the port is taken.
    """
    if not runs_in(place) and not Study.is_at(place):
        raise RaigenError(f"{place}: expected a run folder, a folder of them or a study; found no run.json in it")
    root = place.resolve().parent if Run.is_at(place) else place.resolve()  # so that all URLs begin with a run
    handler = type("Handler", (_Handler,), {"root": root, "place": place})
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:
        raise RaigenError(
            f"port: expected a free port; {port} cannot be used ({error}). Choose another --port"
        ) from error


def runs_in(place: Path) -> list[Path]:
    """The run folders at `place`: itself, or its direct subfolders, sorted by name."""
    if Run.is_at(place):
        return [place]
    return sorted(path.parent for path in place.glob("*/run.json")) if place.is_dir() else []


def file_at(root: Path, path: str) -> Path | None:
    """The file below `root` that the path of a URL names, or None if there is none.

    Also None for hidden files, and for paths that leave `root` by `..`, an encoded slash or a symbolic link.
    """
    parts = [unquote(part) for part in path.split("/") if part]
    if any(part.startswith(".") or set(part) & set("/\\\0") for part in parts):
        return None
    found = root.joinpath(*parts).resolve()
    return found if found.is_relative_to(root.resolve()) and found.is_file() else None


def index(place: Path) -> str:
    """The page that lists the runs at `place`, and for a study the files of its comparison."""
    entries = [_entry(path) for path in runs_in(place)]
    study = _study_entry(place) if Study.is_at(place) else None
    return fill("index.html.jinja", {"runs": entries, "place": place.resolve().name, "study": study})


def _study_entry(place: Path) -> dict[str, Any]:
    """The report and the files of a study; and its runs in other folders, which are not served."""
    study = Study(place)
    files = [study.report_path, study.table_path, study.axes_path, *sorted(study.cards_dir.glob("*.md"))]
    found = [file.relative_to(study.dir) for file in files if file.is_file()]
    return {
        "links": [(file.as_posix(), quote(file.as_posix())) for file in found],
        "elsewhere": [entry.folder for entry in study.entries if entry.folder.startswith("..")],
    }


def _entry(path: Path) -> dict[str, Any]:
    name = path.resolve().name
    try:
        run = Run(path)
        capture = run.config.capture
        attributes = run.attributes if run.attributes_path.is_file() else []
    except RaigenError as error:
        return {"name": name, "trouble": str(error)}
    finished = [stage for stage, record in run.manifest["stages"].items() if record.get("finished")]
    files = [file for file in (run.report_path, run.sheet_path) if file.is_file()]
    return {
        "name": name, "trouble": None, "prompt": capture.prompt, "model": capture.model, "n_images": capture.n_images,
        "n_listed": len(attributes), "n_named": sum(attribute.name is not None for attribute in attributes),
        "finished": finished, "links": [(file.stem, f"{quote(name)}/{quote(file.name)}") for file in files],
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    root: Path
    place: Path

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: the requests of one page of images would fill the terminal."""

    def _answer(self, with_body: bool) -> None:
        # Against DNS rebinding: a foreign page can resolve its own name to 127.0.0.1, but this header shows the name.
        port = self.connection.getsockname()[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._send(index(self.place).encode(), "text/html; charset=utf-8", with_body)
            return
        found = file_at(self.root, path) if self._is_of_a_run(path) else None
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
        text = kind.startswith("text/") or kind == "application/json"
        self._send(found.read_bytes(), f"{kind}; charset=utf-8" if text else kind, with_body)

    def _is_of_a_run(self, path: str) -> bool:
        """Whether the path begins with a listed run or a file of the study; nothing else is served."""
        names = {run.resolve().name for run in runs_in(self.place)} | set(OF_A_STUDY if Study.is_at(self.place) else ())
        return unquote([*path.split("/"), ""][1]) in names

    def _send(self, data: bytes, kind: str, with_body: bool) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(data)
