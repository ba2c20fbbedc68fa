"""Owns a run folder: every path in it, what is written there, and which stages are done."""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raigen.config import STAGE_CONFIGS, STAGES, AuditConfig, identity
from raigen.errors import RaigenError
from raigen.runs.facts import Facts
from raigen.runs.files import sha256, write_text
from raigen.runs.folder import Folder
from raigen.runs.notebook import N_IMAGES, frame, html_image, html_table
from raigen.runs.records import RareAttribute, Sample, label_columns, rate_text
from raigen.runs.steps import Outcome

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import torch
    from jaxtyping import Bool, Float

SCORES = ("rank", "neuron", "label", "perhaps", "minority_score", "frequency", "distinctiveness", "label_auroc",
          "found_by", "suggested_prompt")  # fmt: skip
RATES = ("rate", "low", "high", "hits", "n", "unscored", "judge")
RECORDED_PACKAGES = ("raigen", "torch", "diffusers", "transformers", "numpy", "scikit-learn")


class Run(Folder):
    """A run folder: what was made of one prompt and one model. It owns every path in the folder.

    `Run(dir)` opens one that is there, `Run.create(dir)` makes it if need be. Raises RaigenError when the folder is no
    run, or was written in a newer format.

        run = raigen.Run("runs/a-photo-of-a-doctor")
        print(run.config.capture.n_images, run.facts.capture.hookpoint, run.table())
    """

    MANIFEST, EMPTY, FLAG, START = "run.json", {"stages": {}}, "--run-dir", 'raigen audit "a photo of a doctor"'

    def __init__(self, dir: str | Path):
        super().__init__(dir)
        self.samples_path = self.dir / "samples.jsonl"
        self.images_dir = self.dir / "images"
        self.activations_dir = self.dir / "activations"
        self.sae_dir = self.dir / "sae"
        self.metrics_path = self.dir / "sae" / "metrics.jsonl"
        self.checkpoint_path = self.dir / "sae" / "checkpoint.safetensors"
        self.codes_path = self.dir / "codes.safetensors"
        self.embeddings_path = self.dir / "embeddings.safetensors"
        self.heatmaps_path = self.dir / "heatmaps.safetensors"
        self.neurons_path = self.dir / "neurons.csv"
        self.kin_path = self.dir / "kin.jsonl"
        self.attributes_path = self.dir / "attributes.json"
        self.annotations_path = self.dir / "annotations.jsonl"
        self.fresh_dir = self.dir / "fresh"
        self.fresh_samples_path = self.dir / "fresh.jsonl"
        self.answers_path = self.dir / "answers.jsonl"
        self.judgements_path = self.dir / "judgements.jsonl"
        self.label_scores_path = self.dir / "label_scores.jsonl"
        self.presence_path = self.dir / "presence.csv"
        self.unjudged_path = self.dir / "unjudged.csv"
        self.truth_path = self.dir / "truth.json"
        self.report_path = self.dir / "report.html"
        self.card_path = self.dir / "model-card.md"
        self.sheet_path = self.dir / "review.html"
        self.review_path = self.dir / "review.json"
        self.table_path = self.dir / "attributes.csv"
        self.figures_dir = self.dir / "figures"
        self.amplified_dir = self.dir / "amplified"
        self.asked_root_dir = self.dir / "asked"
        self.compared_dir = self.dir / "compared"
        self.compared_samples_path = self.dir / "compared" / "fresh.jsonl"

    def amplification_path(self, name: str) -> Path:
        """The result of one attribute and method; `name` is for example `12-steer` for neuron 12."""
        return self.amplified_dir / name / "amplification.json"

    def amplifications(self) -> list[Path]:
        """Every amplification.json there is, by name."""
        return sorted(self.amplified_dir.glob("*/amplification.json"))

    def asked_dir(self, key: str) -> Path:
        """The folder with images of a suggested prompt; `key` is a hash of the prompt."""
        return self.asked_root_dir / key

    def recipe_dir(self, name: str, key: str) -> Path:
        """The folder with the images of one recipe; `key` is a hash of the recipe."""
        return self.amplified_dir / name / key

    @property
    def attributes(self) -> list[RareAttribute]:
        """The listed attributes, by falling minority score. Raises RaigenError before `discover` has run."""
        entries = self._parsed(self.read_text(self.attributes_path, "discover"), self.attributes_path, "discover")
        return [RareAttribute.from_json(entry) for entry in entries]

    def write_attributes(self, attributes: Iterable[RareAttribute]) -> None:
        """Writes attributes.json."""
        write_text(self.attributes_path, json.dumps([asdict(attribute) for attribute in attributes], indent=1))

    def seed_dir(self, number: int) -> Path:
        """The folder of the autoencoder with this number: `sae_dir` for 0, a folder in it for the others."""
        return self.sae_dir / f"seed-{number}" if number else self.sae_dir

    def seed_dirs(self) -> list[Path]:
        """The folders of the autoencoders that were trained beside the first."""
        return sorted(path.parent for path in self.sae_dir.glob("seed-*/config.json"))

    def report(self) -> Path:
        """The path of the finished report. Raises RaigenError before `report` has run."""
        self._require_file(self.report_path, "report")
        return self.report_path

    def samples(self, path: Path | None = None) -> list[Sample]:
        """The images of samples.jsonl (or of another list of the same form), in order."""
        return [Sample(**line) for line in self.read_lines(path or self.samples_path, "capture")]

    def __repr__(self) -> str:
        if not self.is_at(self.dir):
            return f"Run({str(self.dir)!r}): the folder is gone"
        if "capture" not in self.manifest["stages"]:
            return f"Run({str(self.dir)!r}): nothing captured yet"
        capture = self.config_of("capture")
        done = [stage for stage in STAGES if self.has_finished(stage)]
        listed = f", {len(self.attributes)} attributes listed" if "discover" in done else ""
        return (f"Run({str(self.dir)!r}): “{capture.prompt}” with {capture.model}, {capture.n_images:,} images; "
                f"finished: {', '.join(done) or 'no stage'}{listed}")  # fmt: skip

    def _repr_html_(self) -> str:
        if not self.has_finished("discover"):
            return f"<p>{escape(repr(self))}</p>"
        samples, rows = self.sample_of, []
        for attribute in self.attributes:
            images = "".join(self._shown(samples[file]) for file in attribute.top_images[:N_IMAGES])
            presence = attribute.presence
            rate = "not measured" if presence is None else rate_text(presence) if presence.n else "no usable answer"
            rows.append([str(attribute.rank), escape(attribute.title), images, rate])
        return html_table(repr(self), ["rank", "attribute", "strongest images", "presence"], rows)

    def _shown(self, sample: Sample) -> str:
        """The image of a sample for a notebook, which can be read without an image that is gone."""
        try:
            return html_image(self.read_image(sample), f"seed {sample.seed}")
        except RaigenError:
            return html_image(None, f"{sample.file} is missing")

    def table(self) -> "pandas.DataFrame":
        """The listed attributes as a pandas DataFrame, one row each: rank, neuron, label, scores, and the rate with
        its interval. Raises RaigenError before `discover` has run, and when pandas is not installed."""
        rows = [asdict(a) | label_columns(a) | {name: getattr(a.presence, name, None) for name in RATES}
                for a in self.attributes]  # fmt: skip
        return frame(rows, (*SCORES, *RATES))

    @property
    def config(self) -> AuditConfig:
        """The settings of every stage: those with which it was begun, or the defaults. Raises RaigenError before
        anything was captured."""
        records = self.manifest["stages"]  # read once: it lists every image
        return AuditConfig(**{stage: self._settings(records, stage) for stage in STAGES})

    @property
    def facts(self) -> Facts:
        """What each stage noted when it finished. A stage that has not finished raises RaigenError."""
        return Facts(self.facts_of)

    def config_of(self, stage: str) -> Any:
        """The settings of one stage, by its name."""
        return self._settings(self.manifest["stages"], stage)

    def _settings(self, records: Mapping[str, Any], stage: str) -> Any:
        if stage in records:
            return STAGE_CONFIGS[stage](**records[stage]["config"])
        if stage == "capture":
            raise RaigenError(f"{self.dir}: nothing was captured yet; run: raigen capture PROMPT --run-dir {self.dir}")
        return STAGE_CONFIGS[stage]()

    def facts_of(self, stage: str) -> dict[str, Any]:
        """What one stage noted, as JSON. Raises RaigenError when it has not finished."""
        self.require(stage)
        return self.manifest["stages"][stage]["facts"]

    def require(self, *stages: str) -> None:
        """Raises RaigenError, saying what to run, when one of the `stages` has not finished."""
        for stage in stages:
            if not self.has_finished(stage):
                raise RaigenError(f"{self.dir}: {stage} has not finished; run: raigen {stage} {self.dir}")

    def has_finished(self, stage: str) -> bool:
        """Whether one stage has finished."""
        return bool(self.manifest["stages"].get(stage, {}).get("finished"))

    def is_done(self, stage: str, config: Any) -> bool:
        """Whether `stage` has finished with `config`, its outputs are there, whole, and the files of the user's that it
        read have not changed. (One that is gone is taken as unchanged.)

        Raises RaigenError, naming the field, when the folder holds the stage with another configuration.
        """
        record = self.manifest["stages"].get(stage)
        if record is None:
            return False
        wanted, found = identity(config), identity(STAGE_CONFIGS[stage](**record["config"]))
        for name, value in wanted.items():
            if found[name] != value:
                raise RaigenError(
                    f"{self.dir}: {stage} was run with {name} = {found[name]!r}, now asked for {value!r}. "
                    f"Choose another --run-dir, or add --redo {stage} to replace it and all that follows"
                )
        if not record.get("finished"):
            return False
        sources = record["facts"].get("sources", {})
        if any(Path(file).is_file() and sha256(Path(file).read_bytes()) != was for file, was in sources.items()):
            return False
        return all(self._is_whole(file, size) for file, size in record["outputs"].items())

    @property
    def sample_of(self) -> dict[str, Sample]:
        """The audited images by file."""
        return {sample.file: sample for sample in self.samples()}

    @property
    def index_of(self) -> dict[str, int]:
        """The indices of the audited images by file."""
        return {sample.file: sample.index for sample in self.samples()}

    def is_shown(self) -> "Bool[np.ndarray, ' image']":
        """Which audited images show anything: True for all but the wholly black ones."""
        import numpy as np

        shown = np.ones(len(self.samples()), bool)
        shown[list(self.facts.capture.black_images)] = False
        return shown

    def image_codes(self) -> "Float[np.ndarray, 'image neuron']":
        """How strongly each neuron fires on each audited image, 0 or more."""
        return self.read_tensors(self.codes_path, "discover")["image_codes"].numpy()

    def embeddings(self) -> "Float[np.ndarray, 'image width']":
        """The embeddings of the audited images, each of length 1."""
        return self.read_tensors(self.embeddings_path, "discover")["embeddings"].numpy()

    def heatmaps(self) -> "Float[np.ndarray, 'neuron image row column']":
        """Where each listed neuron fires in its top images, 0 or more."""
        return self.read_tensors(self.heatmaps_path, "discover")["heatmaps"].numpy()

    def begin(self, stage: str, config: Any) -> None:
        """Notes that `stage` runs now, and forgets the stages after it, because their inputs change."""
        manifest = self.manifest
        before = STAGES[: STAGES.index(stage)]
        kept = {name: record for name, record in manifest["stages"].items() if name in before}
        started = {"config": asdict(config), "started": _now(), "finished": None}
        manifest["stages"] = kept | {stage: started}
        self._write_manifest(manifest)

    def finish(self, stage: str, outcome: Outcome, seconds: float) -> None:
        """Notes that `stage` has finished: the sizes of its outputs, its facts, its duration."""
        manifest = self.manifest
        # These have no fixed size: annotate, evaluate and review add to them.
        growing = (self.attributes_path, self.presence_path)
        sizes = {
            path.relative_to(self.dir).as_posix(): None if path in growing else path.stat().st_size
            for path in outcome.outputs
        }
        manifest["stages"][stage] |= {
            "finished": _now(),
            "seconds": round(seconds, 2),
            "facts": outcome.facts,
            "outputs": sizes,
        }
        versions = {package: version(package) for package in RECORDED_PACKAGES}
        manifest["machine"] = {"python": platform.python_version(), "cpus": os.cpu_count()} | versions
        self._write_manifest(manifest)

    def outdate(self, stage: str) -> None:
        """Notes that the inputs of `stage` have changed, so that it runs again. Its files stay until then."""
        manifest = self.manifest
        if stage in manifest["stages"]:
            manifest["stages"][stage]["finished"] = None
            self._write_manifest(manifest)

    def forget(self, stage: str) -> None:
        """Drops `stage` and all that follow: records, outputs, and the lists that a stopped one would resume from.

        Fresh images and images of suggested prompts depend on the capture alone. They stay until it is dropped: other
        judges see the same images, and answers about them are used again.
        """
        manifest = self.manifest
        for name in STAGES[STAGES.index(stage) :]:
            record = manifest["stages"].pop(name, None)
            for file in (record or {}).get("outputs", {}):
                path = self.dir / file
                is_fresh = path == self.fresh_samples_path or {self.fresh_dir, self.asked_root_dir} & {*path.parents}
                if stage == "capture" or not is_fresh:
                    path.unlink(missing_ok=True)
        folders = []
        if stage == "capture":
            self.samples_path.unlink(missing_ok=True)
            self.fresh_samples_path.unlink(missing_ok=True)
            folders += [self.compared_dir, self.asked_root_dir]
        if stage in ("capture", "train"):
            self.checkpoint_path.unlink(missing_ok=True)
            folders += [*self.seed_dirs(), self.amplified_dir]  # seeds of a training that was stopped, too
        for folder in folders:
            if folder.is_dir():
                shutil.rmtree(folder)
        self._write_manifest(manifest)

    def read_text(self, path: Path, stage: str) -> str:
        """The text of a file that `stage` makes.

        Raises RaigenError with the command that makes it when it is missing.
        """
        self._require_file(path, stage)
        return path.read_text(encoding="utf-8")

    def read_lines(self, path: Path, stage: str) -> list[dict[str, Any]]:
        """The entries of a JSONL file that `stage` makes. Raises RaigenError as `read_text` does."""
        return [self._parsed(line, path, stage) for line in self.read_text(path, stage).splitlines()]

    def _parsed(self, text: str, path: Path, stage: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            redo = "" if stage == "capture" else f" --redo {stage}"  # a capture keeps the images that are whole
            raise RaigenError(
                f"{path}: expected whole JSON; it is broken ({error}). "
                f"Make it again with: raigen {stage} {self.dir}{redo}"
            ) from error

    def read_tensors(self, path: Path, stage: str) -> dict[str, "torch.Tensor"]:
        """The tensors of a safetensors file that `stage` makes. Raises RaigenError when it is missing or broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        self._require_file(path, stage)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise RaigenError(
                f"{path}: expected a whole safetensors file; it is broken ({error}). "
                f"Make it again with: raigen {stage} {self.dir} --redo {stage}"
            ) from error

    def read_image(self, sample: Sample, stage: str = "capture") -> Any:
        """The RGB image of a sample. Raises RaigenError when its file is missing or not the one that was written."""
        from PIL import Image

        path = self.dir / sample.file
        if not path.is_file() or sha256(path.read_bytes()) != sample.sha256:
            state = "is not the file that was written" if path.is_file() else "is missing"
            remedy = "the same amplify command" if stage == "amplify" else f"raigen {stage} {self.dir} --redo {stage}"
            raise RaigenError(f"{path} (seed {sample.seed}) {state}. Make it again with: {remedy}")
        return Image.open(path).convert("RGB")

    def _require_file(self, path: Path, stage: str) -> None:
        if not path.is_file():
            raise RaigenError(f"{path} is missing; make it with: raigen {stage} {self.dir}")

    def _is_whole(self, file: str, size: int | None) -> bool:
        path = self.dir / file
        return path.is_file() and (size is None or path.stat().st_size == size)

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_text(self.manifest_path, json.dumps(manifest, indent=1))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
