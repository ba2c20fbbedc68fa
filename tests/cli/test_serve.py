"""The server shows runs and nothing else, to this machine and to no other."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raigen.cli.serve import file_at, runs_in, server_of
from raigen.config import CaptureConfig
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from raigen.runs.study import Study

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two runs in a folder, one with a report, beside a secret; and links that lead out."""
    place = tmp_path / "runs"
    for name, prompt in (("a doctor", HOSTILE), ("b", "a photo of a nurse")):
        run = Run.create(place / name)
        run.begin("capture", CaptureConfig(prompt))
        run.finish("capture", Outcome([], {}), 1.0)
    write_text(place / "b" / "report.html", "<!doctype html>the report")
    write_text(place / "b" / "images" / "0.txt", "inner")
    write_text(tmp_path / "secret.txt", "secret")
    write_text(place / "beside.txt", "secret")
    (place / "b" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (place / "b" / "folder").symlink_to(tmp_path)
    (place / "outside").symlink_to(tmp_path)
    return place


@contextmanager
def served(place: Path) -> Iterator[int]:
    with server_of(place, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def port(place: Path) -> Iterator[int]:
    with served(place) as port:
        yield port


def get(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    """Asks as a client that changes nothing of the path."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_index_lists_the_runs_and_leads_to_their_reports(port: int) -> None:
    status, text = get(port, "/")
    assert status == 200 and "a photo of a nurse" in text and 'href="b/report.html"' in text
    assert HOSTILE not in text and "&lt;script&gt;" in text and "No report yet" in text
    assert get(port, "/b/report.html") == (200, "<!doctype html>the report")
    assert get(port, "/a%20doctor/run.json")[0] == 200 and get(port, "/b/images/0.txt?x=1")[1] == "inner"
    assert get(port, "/b/report.html", "HEAD") == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/b/../../secret.txt", "/b/%2e%2e/%2e%2e/secret.txt", "/b/..%2f..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt", "/b/..%5c..%5csecret.txt", "//secret.txt", "/b//../../secret.txt", "/b/%252e%252e/x",
        "/b/link.txt", "/b/folder/secret.txt", "/outside/secret.txt", "/beside.txt", "/b/../beside.txt", "/b/.lock",
        "/b/report.html%00.txt", "/b", "/b/images", "/b/images/", "/c/report.html", "/b/report.html/", "/etc/passwd",
        "/%2fetc/passwd", "/b/%2fetc%2fpasswd", "/./beside.txt", "/b/./../../secret.txt",
    ],
)  # fmt: skip
def test_nothing_leads_out_of_the_runs(port: int, path: str, place: Path) -> None:
    write_text(place / "b" / ".lock", "secret")
    status, text = get(port, path)
    if path == "/b/report.html/":  # one slash too many is still the file, and no way out
        assert (status, text) == (200, "<!doctype html>the report")
        return
    assert status == 404 and "secret" not in text.replace("secret.txt", "") and "root:" not in text


def test_other_methods_and_other_hosts_are_refused(port: int) -> None:
    assert get(port, "/", host="evil.example")[0] == 403
    assert get(port, "/", host=f"localhost:{port}")[0] == 200
    for method in ("POST", "PUT", "DELETE"):
        assert get(port, "/", method)[0] == 501


def test_it_listens_on_no_other_interface(place: Path) -> None:
    with server_of(place, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", server.server_address[1]))
        with pytest.raises(RaigenError, match="expected a free port"):
            server_of(place, server.server_address[1])


def test_a_single_run_is_shown_as_a_folder_of_one(place: Path) -> None:
    assert runs_in(place / "b") == [place / "b"] and runs_in(place) == [place / "a doctor", place / "b"]
    assert file_at(place, "/b/report.html") == (place / "b" / "report.html").resolve()
    with pytest.raises(RaigenError, match=r"found no run\.json in it"):
        server_of(place / "b" / "images", 0)
    with pytest.raises(RaigenError, match="port: expected a free port; 99999"):
        server_of(place, 99999)


def test_a_study_is_shown_with_its_runs_and_nothing_beside_them(place: Path) -> None:
    study = Study.create(place.parent / "study")
    shutil.copytree(place / "b", study.dir / "b", symlinks=True)
    study.adopt([Run(study.dir / "b"), Run(place / "a doctor")])
    write_text(study.report_path, "<!doctype html>the study")
    write_text(study.cards_dir / "x.md", "a card")
    write_text(study.dir / "secret.txt", "secret")
    with served(study.dir) as port:
        status, text = get(port, "/")
        assert status == 200 and 'href="report.html"' in text and 'href="cards/x.md"' in text
        assert 'href="b/report.html"' in text and "../runs/a doctor is outside this folder" in text
        assert get(port, "/report.html") == (200, "<!doctype html>the study")
        assert get(port, "/b/report.html")[0] == 200 and get(port, "/cards/x.md")[1] == "a card"
        for path in ("/secret.txt", "/study.json", "/b/link.txt", "/../runs/b/report.html", "/cards/../secret.txt"):
            assert get(port, path)[0] == 404


def test_the_command_says_its_address_and_stops_on_ctrl_c(place: Path) -> None:
    code = "import sys; from raigen.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "view", str(place / "b"), "--port", "0"], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # Started in the background of a shell, the tests ignore the signal, and what they start would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    port = int(address.removeprefix("http://127.0.0.1:").rstrip("/"))
    assert get(port, "/b/report.html")[1] == "<!doctype html>the report" and get(port, "/a%20doctor/run.json")[0] == 404
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()
