"""Autoencoders that travel: written by `raigen share`, used by `raigen audit --sae`, on the Hub."""

import base64
import csv
import json
import shutil
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import ModelCard, constants

from raigen.auditing.audit import run_stage, walk
from raigen.cli.main import main
from raigen.config import AuditConfig, TrainConfig
from raigen.errors import RaigenError
from raigen.report.autoencoder import share
from raigen.runs.run import Run
from raigen.runs.study import Study
from raigen.sae.hub import push
from raigen.sae.model import MatryoshkaSAE
from tests.support.tiny import save_pipeline, stable_diffusion

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
PROMPT, OTHER = "a photo of a doctor", "a photo of a nurse"
SMALL = {"n_images": 50, "batch_size": 25, "min_images": 1, "max_frequency": 1.0, "n_look_images": 0,
         "n_fresh_images": 4, "n_suggested_images": 0, "n_label_images": 0, "vocabulary": "portraits"}  # fmt: skip


def audited(folder: Path, model: Path, clip: Path, prompt: str = PROMPT, until: str = "discover", **options) -> Run:
    """A run, audited up to a stage."""
    run = Run.create(folder)
    config = AuditConfig.of(prompt, model=str(model), embedder=str(clip), **(SMALL | options))
    for step in walk(run, config):
        if (step.stage, step.state) == (until, "finished"):
            break
    return run


@pytest.fixture(scope="module")
def owner(sd_folder, clip_folder, tmp_path_factory) -> Run:
    """A run that trained its autoencoder."""
    shape = {"d_sae": 64, "k": 4, "tokens_per_batch": 512}
    return audited(tmp_path_factory.mktemp("owner"), sd_folder, clip_folder, **shape)


@pytest.fixture(scope="module")
def shared(owner, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("shared") / "sae"
    share(owner, to)
    return to


def weights(dir: Path) -> bytes:
    return (dir / "model.safetensors").read_bytes()


def test_the_folder_says_what_it_is(owner, shared, sd_folder):
    assert weights(shared) == weights(owner.sae_dir)
    origin, facts = json.loads((shared / "training.json").read_text()), owner.facts
    assert (origin["model"], origin["prompts"], origin["n_images"]) == (str(sd_folder), [PROMPT], 50)
    assert origin["hookpoint"] == facts.capture.hookpoint and origin["weights"] == facts.capture.weights
    assert origin["fvu"] > 0 and origin["l0"] == facts.train.l0
    card = ModelCard.load(shared / "README.md")
    assert "sparse-autoencoder" in card.data.tags
    for text in (PROMPT, facts.capture.hookpoint, f"{origin['fvu']:.1%}", "--sae FOLDER_OR_HUB_ID"):
        assert text.replace("_", "\\_") in card.text or text in card.text
    assert f'raigen audit "{PROMPT}" --model {sd_folder} --sae'.replace('"', "'") in card.text
    pictures = sorted((shared / "images").iterdir())
    listed = [one.neuron for one in owner.attributes]
    assert 1 < len(pictures) <= 40 and listed
    assert {f"neuron-{neuron}.webp" for neuron in listed} <= {path.name for path in pictures}
    assert all(f"images/{path.name}" in card.text for path in pictures)


def test_the_license_of_the_image_model_stands_in_the_card(owner, tmp_path):
    run = Run(shutil.copytree(owner.dir, tmp_path / "run"))
    manifest = run.manifest
    manifest["stages"]["capture"]["facts"] |= {"licence": "openrail++", "revision": "c" * 40, "model": "someone/model"}
    run.manifest_path.write_text(json.dumps(manifest))
    share(run, tmp_path / "sae")
    card = ModelCard.load(tmp_path / "sae" / "README.md")
    assert (card.data.license, card.data.base_model) == ("openrail++", "someone/model") and "c" * 40 in card.text


def test_an_audit_with_it_trains_nothing_and_measures_it_on_its_images(owner, shared, sd_folder, clip_folder, tmp_path):
    run = audited(tmp_path / "run", sd_folder, clip_folder, OTHER, sae=str(shared))
    assert weights(run.sae_dir) == weights(shared) and not run.metrics_path.exists()
    facts = run.facts.train
    own = json.loads((shared / "training.json").read_text())["fvu"]
    assert (facts.fvu_own, facts.steps, facts.tokens, facts.d_sae) == (own, 0, 0, 64)
    assert 0 < facts.fvu != own and facts.adopted and facts.dead_share == owner.facts.train.dead_share
    assert run.facts.capture.hookpoint == owner.facts.capture.hookpoint == run.config.capture.hookpoint
    assert run.attributes
    same = audited(tmp_path / "same", sd_folder, clip_folder, PROMPT, sae=str(shared))
    assert [sample.sha256 for sample in same.samples()] == [sample.sha256 for sample in owner.samples()]
    assert same.facts.train.fvu == pytest.approx(own) and torch.equal(
        torch.from_numpy(same.image_codes()), torch.from_numpy(owner.image_codes())
    )
    with pytest.raises(RaigenError, match=r"trained here; this one comes from .*sae\. Share that"):
        share(run, tmp_path / "again")


def test_the_same_audit_again_resumes(owner, shared, sd_folder, clip_folder, tmp_path):
    run = audited(tmp_path / "run", sd_folder, clip_folder, sae=str(shared), until="train")
    config = AuditConfig.of(PROMPT, model=str(sd_folder), embedder=str(clip_folder), **SMALL, sae=str(shared))
    states = [step.state for step in walk(run, config) if step.stage in ("capture", "train")]
    assert states == ["skipped", "skipped"]
    before = {path: path.stat().st_mtime_ns for path in run.images_dir.glob("*.png")}
    run_stage(run, "train", config.train, redo=True)
    assert weights(run.sae_dir) == weights(shared)
    assert before == {path: path.stat().st_mtime_ns for path in before}  # no image is needed again


def test_a_run_whose_images_are_there_takes_it_too(owner, shared, tmp_path):
    run = Run(shutil.copytree(owner.dir, tmp_path / "run"))
    run_stage(run, "train", TrainConfig(sae=str(shared)), redo=True)
    assert run.facts.train.adopted and run.facts.train.fvu == pytest.approx(run.facts.train.fvu_own)


def changed(shared: Path, to: Path, **origin) -> Path:
    """A copy of the folder whose training.json says something else."""
    shutil.copytree(shared, to)
    known = json.loads((to / "training.json").read_text())
    (to / "training.json").write_text(json.dumps(known | origin))
    return to


def test_other_weights_are_refused_before_most_images(shared, clip_folder, tmp_path):
    pipe = stable_diffusion()
    with torch.no_grad():
        pipe.unet.conv_out.bias.add_(1.0)
    save_pipeline(pipe, tmp_path / "other")
    with pytest.raises(RaigenError, match=r"was trained on images of .*; the weights of .*other differ"):
        audited(tmp_path / "run", tmp_path / "other", clip_folder, sae=str(shared))
    assert not list((tmp_path / "run" / "images").glob("*"))


def test_the_same_weights_under_another_name_are_taken(shared, sd_folder, clip_folder, tmp_path):
    shutil.copytree(sd_folder, tmp_path / "copy")
    assert audited(tmp_path / "run", tmp_path / "copy", clip_folder, sae=str(shared)).facts.train.adopted
    unknown = changed(shared, tmp_path / "unknown", weights=None)
    with pytest.raises(RaigenError, match=r"the weights of .*copy differ"):  # by the name, where nothing else is known
        audited(tmp_path / "run-2", tmp_path / "copy", clip_folder, sae=str(unknown))


def test_another_hookpoint_or_width_is_refused(shared, sd_folder, clip_folder, tmp_path):
    with pytest.raises(RaigenError, match=r"was trained at the hookpoint .*; this run captures unet.up_blocks.0"):
        audited(tmp_path / "run", sd_folder, clip_folder, sae=str(shared), hookpoint="unet.up_blocks.0")
    assert not Run(tmp_path / "run").manifest["stages"]
    wide = changed(shared, tmp_path / "wide")
    sae = MatryoshkaSAE(replace(MatryoshkaSAE.from_pretrained(shared).config, d_in=7))
    sae.save(wide)
    with pytest.raises(RaigenError, match="takes tokens of width 7; those of this run have"):
        audited(tmp_path / "run", sd_folder, clip_folder, sae=str(wide))
    assert not list((tmp_path / "run" / "images").glob("0000[3-9]*"))  # one batch at most


def test_a_bad_fit_is_said_on_the_terminal_and_in_the_report(shared, sd_folder, clip_folder, tmp_path, capsys):
    near = changed(shared, tmp_path / "near", fvu=1e-6)
    args = ["audit", PROMPT, "--model", str(sd_folder), "--embedder", str(clip_folder), "--sae", str(near)]
    for name, value in SMALL.items():
        args += [f"--{name.replace('_', '-')}", str(value)]
    assert main([*args, "--run-dir", str(tmp_path / "run")]) == 0
    assert "leaves" in (said := capsys.readouterr().out) and "expect fewer findings" in said
    assert "of the variance of these images unexplained" in Run(tmp_path / "run").report().read_text()
    assert (
        main([*args[: -len(SMALL) * 2 - 1], str(shared), *args[-len(SMALL) * 2 :], "--run-dir", str(tmp_path / "2")])
        == 0
    )
    assert "unexplained, and" not in capsys.readouterr().out


def test_a_study_with_it_tells_the_rates_of_its_neurons_elsewhere(shared, sd_folder, clip_folder, tmp_path):
    args = ["audit", PROMPT, OTHER, "--model", str(sd_folder), "--embedder", str(clip_folder), "--sae", str(shared),
            "--study", str(tmp_path / "s")]  # fmt: skip
    for name, value in SMALL.items():
        args += [f"--{name.replace('_', '-')}", str(value)]
    assert main(args) == 0
    study = Study(tmp_path / "s")
    with study.rates_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * sum(len(run.attributes) for run in study.runs()) > 0
    assert main([*args, "--shared-sae"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4}, "k: expected none with sae"),
        ({"n_seeds": 2}, "n_seeds: expected none with sae"),
        ({"sae": None, "sae_revision": "v1"}, "sae_revision: expected none without an autoencoder in sae"),
    ],
)
def test_settings_of_a_training_do_not_go_with_it(options, message):
    with pytest.raises(RaigenError, match=message):
        TrainConfig(**{"sae": "someone/sae"} | options)


def test_what_is_no_autoencoder_is_named(owner, shared, tmp_path):
    with pytest.raises(RaigenError, match=r"expected training.json, .*raigen share RUN --to FOLDER"):
        run_stage(owner, "train", TrainConfig(sae=str(owner.sae_dir)), redo=True)
    with pytest.raises(RaigenError, match=r"a folder, which has none"):
        MatryoshkaSAE.from_pretrained(shared, revision="v1")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RaigenError, match=r"whole autoencoder; it is broken .*Download it again"):
        MatryoshkaSAE.from_pretrained(tmp_path)
    with pytest.raises(RaigenError, match=r"training.json: expected what raigen share writes"):
        run_stage(owner, "train", TrainConfig(sae=str(changed(shared, tmp_path / "x", prompts=3))), redo=True)
    with pytest.raises(RaigenError, match=r"it holds other files\. Choose another --to"):
        share(owner, owner.dir)
    assert owner.has_finished("train")


def test_it_comes_from_the_cache_of_the_hub_at_a_revision(shared, tmp_path, monkeypatch):
    """The cache as the Hub's own library lays it out: two commits, and a branch that names one."""
    at = tmp_path / "models--someone--sae"
    for commit, scale in (("a" * 40, 1.0), ("b" * 40, 2.0)):
        folder = at / "snapshots" / commit
        shutil.copytree(shared, folder)
        sae = MatryoshkaSAE.from_pretrained(shared)
        with torch.no_grad():
            sae.b_dec.fill_(scale)
        sae.save(folder)
    (at / "refs").mkdir()
    (at / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for revision, scale in ((None, 1.0), ("b" * 40, 2.0)):
        assert MatryoshkaSAE.from_pretrained("someone/sae", revision, offline=True).b_dec[0].item() == scale
    for name, revision in (("someone/nothing", None), ("someone/sae", "v9"), ("a/b/c", None)):
        with pytest.raises(RaigenError, match=f"{name}: expected the folder of an autoencoder, or its id on the Hub"):
            MatryoshkaSAE.from_pretrained(name, revision, offline=True)


class FakeHub(BaseHTTPRequestHandler):
    """Takes one commit as the Hub does."""

    files: dict[str, bytes] = {}
    made: list[dict] = []
    refuses = False

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer: dict = {}
        if self.refuses:
            answer, status = {"error": "no"}, 403
        else:
            status = 200
            if self.path == "/api/repos/create":
                self.made.append(json.loads(body))
                answer = {"url": f"http://{self.headers['Host']}/someone/sae"}
            elif "/preupload/" in self.path:
                names = [entry["path"] for entry in json.loads(body)["files"]]
                answer = {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                answer = {
                    "commitUrl": "https://huggingface.co/someone/sae/commit/" + "c" * 40,
                    "commitOid": "c" * 40,
                    "success": True,
                }
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        data = b'{"id": "someone/sae", "sha": "' + b"c" * 40 + b'", "siblings": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    FakeHub.files, FakeHub.made, FakeHub.refuses = {}, [], False
    yield FakeHub
    server.shutdown()
    server.server_close()


def test_nothing_is_uploaded_unless_it_is_asked_for(owner, hub, tmp_path, capsys):
    assert main(["share", str(owner.dir), "--to", str(tmp_path / "sae")]) == 0
    assert "next: raigen audit PROMPT" in capsys.readouterr().out and not hub.made and not hub.files
    assert main(["share", str(owner.dir), "--to", str(tmp_path / "sae"), "--push", "someone/sae"]) == 0
    assert "uploaded: " in capsys.readouterr().out
    assert hub.made[0].get("private") or hub.made[0].get("visibility") == "private", hub.made
    assert hub.files["model.safetensors"] == weights(owner.sae_dir)
    written = {
        path.relative_to(tmp_path / "sae").as_posix() for path in (tmp_path / "sae").rglob("*") if path.is_file()
    }
    assert hub.files.keys() == written


def test_a_hub_that_refuses_is_named(hub, shared):
    hub.refuses = True
    with pytest.raises(RaigenError, match=r"(?s)push: expected a repository of the Hub .* hf auth login"):
        push(shared, "someone/sae")
