"""A server that is not ours is asked: `transformers serve`, with a tiny vision-language model made in code."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest

from raigen.config import AskConfig, ModelAddress, address_of
from raigen.errors import RaigenError
from raigen.judging.judges import StoredImages, Subject, VlmJudge
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import Job, ask_all
from raigen.judging.vlm.questions import presence_question, read_presence
from tests.support.run_folder import make_run
from tests.support.tiny_vlm import ANSWERS, BLUE, RED, save_model

for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason="transformers serve needs it; install it with: pip install 'raigen[serve]'")

CONFIG = AskConfig(timeout=60.0, concurrency=2)
PATIENCE = 120.0  # seconds until the server is there: it imports torch and loads the model first


class Served:
    """A model that is served: its address, and how often it was asked, by the server's own log."""

    def __init__(self, folder: Path, port: int, log: Path):
        self.address: ModelAddress = address_of(f"openai:{folder}@http://127.0.0.1:{port}/v1")
        self._log = log

    def statuses(self) -> list[int]:
        """What the server answered to each question, in their order."""
        return [int(status) for status in re.findall(r'"POST \S+ HTTP/1.1" (\d+)', self._log.read_text())]


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[Served]:
    """The model in `folder`, served on a free port of 127.0.0.1 until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(port):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield Served(folder, port, log)
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except URLError:
        return False


def test_a_model_that_talks_nonsense_is_refused(tmp_path):
    """By the first question, whose form is tried in four ways: two are taken and ignored, one is refused."""
    run = make_run(tmp_path / "run", n_attributes=1)
    images, folder = StoredImages(run, run.samples()[:3]), save_model(tmp_path / "model")
    with serving(folder, tmp_path / "log") as server:
        judge = VlmJudge(server.address, Answers(tmp_path / "answers.jsonl"), CONFIG)
        with pytest.raises(RaigenError, match=r"expected (a model that sees images|an answer to the first question)"):
            judge.verdicts(images, [Subject("wearing a turban"), Subject("bald")])
        assert server.statuses()[:4] == [200, 422, 200, 200] and len(server.statuses()) <= 5


def test_a_model_that_can_see_is_understood(tmp_path):
    question = presence_question("red")
    folder, answers = save_model(tmp_path / "model", question), Answers(tmp_path / "answers.jsonl")
    jobs = [Job((image,), question, name) for name, image in (("red", RED), ("blue", BLUE))]
    with serving(folder, tmp_path / "log") as server:
        replies = {result.tag: result.reply for result in ask_all(server.address, jobs, answers, CONFIG)}
        assert {tag: reply.text for tag, reply in replies.items()} == {"red": ANSWERS["yes"], "blue": ANSWERS["no"]}
        assert [read_presence(replies[tag].text) for tag in ("red", "blue")] == ["yes", "no"]
        assert server.statuses() == [200] * 4 and replies["red"].tokens_out == len(ANSWERS["yes"]) + 1
        other = server.address._replace(model="another")
        with pytest.raises(RaigenError, match=r"another at .*Server is pinned to .*/model'"):
            list(ask_all(other, [Job((RED,), presence_question(str(n)), n) for n in range(5)], answers, CONFIG))
