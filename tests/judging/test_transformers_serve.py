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

import numpy as np
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


def test_nonsense_is_unscored_and_nothing_is_asked_twice(tmp_path):
    run = make_run(tmp_path / "run", n_attributes=1)
    images, subjects = StoredImages(run, run.samples()[:3]), [Subject("wearing a turban"), Subject("bald")]
    folder, path = save_model(tmp_path / "model"), tmp_path / "answers.jsonl"
    with serving(folder, tmp_path / "log") as server:
        for _ in range(2):
            for verdicts in VlmJudge(server.address, Answers(path), CONFIG).verdicts(images, subjects):
                assert np.isnan(verdicts.shows).all() and verdicts.judge == server.address.name
                assert verdicts.why == dict.fromkeys(range(3), "the answer cannot be read")
        # One question climbs the ladder: two forms are taken and ignored, one is refused, the last is bare text.
        assert server.statuses() == [200, 422, 200, 200] + 5 * [200]
    text = path.read_text()
    assert text.count("\n") == 6 and text.count('"rung": "text"') == 6 and '"tokens_in": 0' not in text


def test_a_model_that_can_see_is_understood(tmp_path):
    question = presence_question("red")
    folder, answers = save_model(tmp_path / "model", question), Answers(tmp_path / "answers.jsonl")
    jobs = [Job((image,), question, name) for name, image in (("red", RED), ("blue", BLUE))]
    with serving(folder, tmp_path / "log") as server:
        replies = {result.tag: result.reply for result in ask_all(server.address, jobs, answers, CONFIG)}
        assert {tag: reply.text for tag, reply in replies.items()} == {"red": ANSWERS["yes"], "blue": ANSWERS["no"]}
        assert [read_presence(replies[tag].text) for tag in ("red", "blue")] == ["yes", "no"]
        assert server.statuses() == [200, 200] and replies["red"].tokens_out == len(ANSWERS["yes"]) + 1
        other = server.address._replace(model="another")
        with pytest.raises(RaigenError, match=r"another at .* came to nothing \(.*Server is pinned to .*/model'"):
            list(ask_all(other, [Job((RED,), presence_question(str(n)), n) for n in range(5)], answers, CONFIG))
