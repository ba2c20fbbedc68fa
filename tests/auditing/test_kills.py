"""A killed process loses no work: the same command again ends with the same bytes, and pays for nothing twice."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from importlib import import_module

import pytest

from raigen.auditing.audit import HOMES, audit, run_stage
from raigen.config import EvaluateConfig
from raigen.runs.run import Run
from tests.support.forked import forked, succeeds
from tests.support.vlm_server import question_of, serving

PROMPT = "a photo of a doctor"
TINY = {"n_images": 50, "num_inference_steps": 2, "batch_size": 8, "d_sae": 128, "tokens_per_batch": 256,
        "n_attributes": 3, "n_fresh_images": 16, "n_suggested_images": 1, "n_label_images": 0,
        "n_look_images": 0}  # fmt: skip
EQUAL = ("sae/model.safetensors", "codes.safetensors", "neurons.csv", "attributes.json", "samples.jsonl", "fresh.jsonl")
LONGEST = 600  # seconds that a part of an audit may take


def audited(folder):
    audit(PROMPT, run_dir=folder, device="cpu", **TINY)


def killed_when(reached, function, *args):
    """Runs the function in a process of its own, and kills that as soon as `reached` says so."""
    process, started = forked(function, *args), time.monotonic()
    while not reached():
        assert process.is_alive() and time.monotonic() - started < LONGEST, "it ended before it could be killed"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def count(folder):
    return len(list(folder.glob("*.png")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    for home in HOMES.values():
        import_module(home)  # once, not in every process
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert succeeds(audited, folder)
    return folder


def test_an_audit_that_is_killed_three_times_ends_with_the_same_bytes(whole, tmp_path):
    folder, chance = tmp_path / "run", random.Random(20261128)
    first, second = chance.randrange(8, 24), chance.randrange(24, 46)
    fresh = chance.randrange(4, TINY["n_fresh_images"])
    killed_when(lambda: count(folder / "images") >= first, audited, folder)
    killed_when(lambda: count(folder / "images") >= second, audited, folder)
    killed_when(lambda: count(folder / "fresh") >= fresh, audited, folder)
    assert not Run(folder).has_finished("evaluate")
    assert succeeds(audited, folder)
    for name in EQUAL:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def evaluated(folder, config):
    run_stage(Run(folder), "evaluate", config)


def test_an_evaluation_that_is_killed_asks_no_answered_question_again(whole, tmp_path):
    folder, labels, chance = tmp_path / "run", tmp_path / "labels.txt", random.Random(28112026)
    shutil.copytree(whole, folder)
    given = ["wearing glasses", "holding a cat", "bald", "in the snow", "wearing a turban"]
    labels.write_text("\n".join(given))

    def brain(request):
        time.sleep(0.005)
        return json.dumps({"evidence": "none seen", "answer": "no"})

    with serving(brain) as server:
        config = EvaluateConfig(n_fresh_images=TINY["n_fresh_images"], n_suggested_images=1, n_label_images=0,
                                judge=(server.model,), attributes=str(labels), concurrency=4)  # fmt: skip
        Run(folder).forget("evaluate")
        wanted = chance.randrange(20, 40)
        killed_when(lambda: len(server.requests) >= wanted, evaluated, folder, config)
        answered = Run(folder).answers_path.read_text().count('"key"') - len(server.checks)
        asked = len(server.requests)
        assert 0 < answered <= asked < len(given) * TINY["n_fresh_images"]
        assert succeeds(evaluated, folder, config)
        seen = Counter((question_of(request), json.dumps(request["messages"][0]["content"][0]))
                       for request in server.requests)  # fmt: skip
    assert sum(seen.values()) - len(seen) <= asked - answered <= config.concurrency  # only what was on its way
    assert all(any(label in question for question, _ in seen) for label in given)
    assert Run(folder).has_finished("evaluate")
