"""Studies: which runs a sweep makes, what it resumes, and that a failure costs one run only."""

import json
import os
import signal
import sys
from dataclasses import asdict
from importlib.util import find_spec

import pytest

from raigen.auditing.processes import Message, spread
from raigen.auditing.ray_cluster import spread_over
from raigen.auditing.sweep import sweep
from raigen.cli import main as cli
from raigen.config import STAGES, AuditConfig
from raigen.config.prompts import LISTS, prompts_of
from raigen.errors import RaigenError
from raigen.runs.device import gpus_for
from raigen.runs.records import Presence, RareAttribute
from raigen.runs.run import Run
from raigen.runs.steps import Tick
from raigen.runs.study import Entry, Study
from raigen.world.attributes import PROMPTS

DOCTOR, NURSE = "a photo of a doctor", "a photo of a nurse"
CAT = RareAttribute(1, 12, 0.912, 0.012, 0.8, (), label="a cat",
                    presence=Presence(0.01, 0.003, 0.029, 3, 300, 0, "judge", "wilson"))  # fmt: skip
CONFIG = AuditConfig.of(DOCTOR, store=True, n_images=60)


@pytest.fixture
def study(tmp_path):
    return Study.create(tmp_path / "study")


def test_a_sweep_makes_a_run_for_every_prompt_and_model(stages, study):
    steps = list(sweep(study, CONFIG, [DOCTOR, NURSE], ["a", "x/b"]))
    assert study.entries == [
        Entry(DOCTOR, "a", "a-photo-of-a-doctor--a"), Entry(NURSE, "a", "a-photo-of-a-nurse--a"),
        Entry(DOCTOR, "x/b", "a-photo-of-a-doctor--b"), Entry(NURSE, "x/b", "a-photo-of-a-nurse--b"),
    ]  # fmt: skip
    made = [run.config.capture for run in study.runs()]
    assert [(capture.prompt, capture.model, capture.n_images) for capture in made] == [
        (entry.prompt, entry.model, 60) for entry in study.entries
    ]
    ends = [step for step in steps if step.step is None]
    assert [(end.number, end.total, end.error) for end in ends] == [(n, 4, None) for n in range(1, 5)]
    assert stages.calls == list(STAGES) * 4
    assert study.manifest["options"]["capture"]["n_images"] == 60


def test_the_same_sweep_again_does_what_is_missing_only(stages, study):
    list(sweep(study, CONFIG, [DOCTOR], ["a"]))
    stages.calls, stages.fails, stages.fails_after = [], {"capture": KeyboardInterrupt()}, 1
    with pytest.raises(KeyboardInterrupt):
        list(sweep(study, CONFIG, [DOCTOR, NURSE], ["a"]))
    stages.fails = {}
    steps = list(sweep(study, CONFIG, [DOCTOR, NURSE], ["a"]))
    assert stages.calls == ["capture", *STAGES]
    assert {step.step.state for step in steps if step.number == 1 and step.step} == {"skipped"}
    running = next(step for step in steps if step.number == 2 and step.step and step.step.tick)
    assert running.step.tick == Tick(2, 3, "working")


def test_a_run_that_fails_does_not_stop_the_others(stages, study):
    whole = stages.__call__

    def failing(name):
        stages.fails = {"train": RaigenError("broken")} if stages.calls.count("capture") == 1 else {}
        return whole(name)

    sys.modules["raigen.auditing.audit"].stage_function = failing
    with pytest.raises(RaigenError, match=r"^1 of 2 runs failed; .* same command .* a-photo-of-a-doctor--a: broken$"):
        list(sweep(study, CONFIG, [DOCTOR, NURSE], ["a"]))
    assert Run(study.dir / "a-photo-of-a-nurse--a").report().is_file()


def test_another_configuration_is_refused_and_redo_takes_it(stages, study):
    list(sweep(study, CONFIG, [DOCTOR], ["a"]))
    other = AuditConfig.of(DOCTOR, store=True, n_images=60, percentile=80.0)
    with pytest.raises(RaigenError, match=r"this study has percentile = None, now asked for 80\.0.*--redo discover"):
        list(sweep(study, other, [DOCTOR], ["b"]))
    assert len(study.entries) == 1
    stages.calls = []
    list(sweep(study, other, [DOCTOR], ["a"], redo="discover"))
    assert stages.calls == ["discover", "look", "annotate", "evaluate", "report"]
    assert study.manifest["options"]["discover"]["percentile"] == 80.0
    list(sweep(study, AuditConfig.of(DOCTOR, store=True, n_images=60, percentile=80.0, batch_size=3), [DOCTOR], ["a"]))


def test_models_of_one_name_have_folders_of_their_own(stages, study):
    list(sweep(study, CONFIG, [DOCTOR], ["one/model", "two/model"]))
    assert [entry.folder for entry in study.entries] == ["a-photo-of-a-doctor--model", "a-photo-of-a-doctor--model-2"]


def test_a_study_says_what_is_wrong_with_its_folder(tmp_path, study):
    with pytest.raises(RaigenError, match=r"expected a study folder with a study\.json; found none"):
        Study(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RaigenError, match=r"it holds other files\. Choose another --study"):
        Study.create(tmp_path / "full")
    study.enroll([DOCTOR], ["a"], {})
    with pytest.raises(RaigenError, match="“a photo of a doctor” was not audited with a yet"):
        study.runs()
    with study.locked(), pytest.raises(RaigenError, match="wait for it or choose another --study"):
        list(sweep(study, CONFIG, [DOCTOR], ["a"]))
    with pytest.raises(RaigenError, match="workers: expected 1 or more; got 0"):
        list(sweep(study, CONFIG, [DOCTOR], ["a"], workers=0))
    study.manifest_path.write_text(json.dumps({"format": 99, "options": {}, "runs": []}))
    with pytest.raises(RaigenError, match="written in format 99"):
        Study(study.dir)


def test_the_command_line_makes_a_study(stages, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages.texts = {"discover": json.dumps([asdict(CAT)])}
    args = ["audit", DOCTOR, NURSE, "--model", "a", "--model", "b", "--n-images", "60", "--store"]
    assert cli.main(args) == 0
    out, err = capsys.readouterr()
    study = Study("studies/a-photo-of-a-doctor")
    assert len(study.entries) == 4
    row = "a photo of a nurse  │ b     │      1 │     1 │ a cat  │ 1.0% [0.3%, 2.9%] │ a-photo-of-a-nurse--b  "
    assert row in out and out.endswith("what the models differ in: raigen compare studies/a-photo-of-a-doctor\n")
    head = "1 of 4, “a photo of a doctor” with a: capture: "
    few, begun, done, *_ = err.splitlines()
    assert few.startswith("60 images are few: ") and begun == f"{head}working" and done.startswith(f"{head}done in ")
    assert cli.main(args) == 0
    again = capsys.readouterr()
    assert again.out == out
    assert again.err.splitlines()[-1] == "4 of 4, “a photo of a nurse” with b: done before"


def test_prompts_come_from_a_file(tmp_path):
    (tmp_path / "list.txt").write_text(f"# what we ask\n{DOCTOR}\n\n{NURSE}\n{DOCTOR}\n")
    assert prompts_of(str(tmp_path / "list.txt")) == (DOCTOR, NURSE)
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(RaigenError, match=r"expected one prompt a line; .*list\.txt has none"):
        prompts_of(str(tmp_path / "list.txt"))


def test_shipped_prompts():
    assert LISTS["professions"] == PROMPTS
    assert len(set(LISTS["scenes"])) == 10


def counting(job):
    path, until = job
    for done in range(until):
        path.write_text(str(done))
        yield done


def dying(job):
    yield 0
    os.kill(os.getpid(), signal.SIGKILL)


def refusing(job):
    raise RaigenError("no such model")
    yield


def seeing(job):
    yield os.environ.get("CUDA_VISIBLE_DEVICES")
    while len(list(job.parent.iterdir())) < 4:  # the others run meanwhile
        job.touch()


def by_name(job):
    yield from {"dying": dying, "refusing": refusing}.get(job[0].name, counting)(job)


def test_a_process_that_dies_costs_its_own_job_only(tmp_path):
    jobs = [(tmp_path / name, 3) for name in ("first", "dying", "refusing", "last")]
    messages = list(spread(by_name, jobs, workers=2))
    ends = {jobs.index(message.job): message.error for message in messages if message.is_end}
    assert ends == {0: None, 1: "its process was killed by signal 9", 2: "no such model", 3: None}
    assert [message.item for message in messages if message.job == jobs[3] and not message.is_end] == [0, 1, 2]
    assert (tmp_path / "last").read_text() == "2"
    assert Message(jobs[1], 0) in messages


def test_each_worker_sees_a_gpu_of_its_own(tmp_path, monkeypatch):
    jobs = [tmp_path / str(number) for number in range(4)]
    for gpus, seen in ((["0", "1", "2", "3"], "0123"), (["GPU-a", "GPU-b"], ["GPU-a", "GPU-b"] * 2)):
        for job in jobs:
            job.unlink(missing_ok=True)
        found = {message.job: message.item for message in spread(seeing, jobs, 4, gpus) if not message.is_end}
        assert [found[job] for job in jobs] == list(seen)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_for("auto") == gpus_for("cuda") == ["0", "1", "2"] and gpus_for("cpu") == gpus_for("cuda:1") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-x")
    assert gpus_for("auto") == ["2", "GPU-x"]


def test_more_workers_than_gpus_are_told(study, monkeypatch, capsys):
    monkeypatch.setattr("raigen.runs.device.gpus_for", lambda device: ["0", "1"])
    seen = []
    monkeypatch.setattr("raigen.auditing.sweep.spread", lambda *args: seen.append(args[2:]) or iter(()))
    list(sweep(study, AuditConfig.of("x"), ["x", "y", "z"], ["m"], workers=3))
    assert seen == [(3, ["0", "1"])]
    assert "raigen: 3 workers share 2 GPUs; --workers 2 gives each its own" in capsys.readouterr().err


def test_the_name_of_a_folder_fits_every_file_system(study):
    (entry,) = study.enroll(["医" * 99], ["x/" + "模" * 99], {})
    assert len(entry.folder.encode()) <= 255 and entry.folder.startswith("医") and "--模" in entry.folder
    assert Run.create(study.dir_of(entry)).manifest["stages"] == {}


def test_who_stops_listening_ends_the_processes(tmp_path):
    news = spread(counting, [(tmp_path / "endless", 10**9)], workers=1)
    assert next(news).item == 0
    news.close()
    stopped_at = (tmp_path / "endless").read_text()
    assert (tmp_path / "endless").read_text() == stopped_at


def test_a_node_that_dies_costs_its_own_job_only(tmp_path, monkeypatch):
    """A cluster of two nodes; one is removed while its job runs."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)

    def work(job):  # a function of a function travels by value: the workers know nothing of this file
        import time
        from pathlib import Path

        import ray

        place = ray.get_runtime_context().get_node_id()
        if job[1] == "refusing":
            raise RaigenError("no such model")
        yield place
        for _ in range(1 if job[1] == "quick" else 40):
            time.sleep(0.1)
            yield Path("here.txt").read_text()  # relative to the folder of the driver

    (tmp_path / "here.txt").write_text("found")
    jobs = list(enumerate(["slow", "slow", "quick", "refusing"]))
    news, ends, items = spread_over(work, jobs, cluster.address), {}, {}
    removed, lost = False, 0
    for message in news:
        if message.is_end:
            ends[message.job[0]] = message.error
            continue
        items.setdefault(message.job[0], []).append(message.item)
        if not removed and len(items.get(0, [])) > 2 and len(items.get(1, [])) > 2:
            lost = 0 if items[0][0] == node.node_id else 1
            cluster.remove_node(node, allow_graceful=False)
            removed = True
    cluster.shutdown()
    assert removed and ends.pop(lost).startswith("its worker died: ")
    assert ends == {1 - lost: None, 2: None, 3: "no such model"}
    assert items[1 - lost][1:] == ["found"] * 40 and items[2][1:] == ["found"]


def test_a_cluster_that_is_not_there_is_named(study):
    config = AuditConfig.of("x")
    with pytest.raises(RaigenError, match="workers: expected none with a Ray cluster"):
        list(sweep(study, config, ["x"], ["m"], workers=2, ray="auto"))
    if find_spec("ray") is None:
        with pytest.raises(RaigenError, match=r"pip install 'raigen\[ray\]'"):
            list(sweep(study, config, ["x"], ["m"], ray="auto"))
