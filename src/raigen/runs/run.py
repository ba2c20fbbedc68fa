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

from raigen.config import STAGE_CONFIGS, STAGES, AuditConfig, identity, in_a_line, shaped
from raigen.errors import RaigenError
from raigen.runs.facts import Facts
from raigen.runs.files import sha256, write_text
from raigen.runs.notebook import N_IMAGES, frame, html_image, html_table
from raigen.runs.reading import RunFiles
from raigen.runs.records import RareAttribute, Sample, label_columns, rate_text
from raigen.runs.steps import Outcome

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from jaxtyping import Bool, Float

SCORES = ("rank", "neuron", "label", "perhaps", "minority_score", "frequency", "distinctiveness", "label_auroc",
          "found_by", "suggested_prompt")  # fmt: skip
RATES = ("rate", "low", "high", "hits", "n", "unscored", "judge")
RECORDED_PACKAGES = ("raigen", "torch", "diffusers", "transformers", "numpy", "scikit-learn")


class Run(RunFiles):
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
        self.aside_path = self.dir / "set_aside.json"
        self.look_path = self.dir / "look.safetensors"
        self.look_dir = self.dir / "look"
        self.relatives_path = self.dir / "look" / "relatives.jsonl"
        self.relatives_dir = self.dir / "look" / "images"
        self.relative_activations_dir = self.dir / "look" / "activations"
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
        self.sheet_path, self.review_path = self.dir / "review.html", self.dir / "review.json"
        self.table_path = self.dir / "attributes.csv"
        self.figures_dir = self.dir / "figures"
        self.amplified_dir = self.dir / "amplified"
        self.studio_dir, self.by_hand_path = self.dir / "studio", self.dir / "by_hand.safetensors"
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
        return self.read_attributes(self.attributes_path, "discover")

    @property
    def set_aside(self) -> list[RareAttribute]:
        """What the look set aside, with the reason (`why_aside`). Empty before it."""
        return self.read_attributes(self.aside_path, "look") if self.aside_path.is_file() else []

    def write_attributes(self, attributes: Iterable[RareAttribute], path: Path | None = None) -> None:
        """Writes attributes.json, or another list of the same form."""
        write_text(path or self.attributes_path, json.dumps([asdict(one) for one in attributes], indent=1))

    def seed_dir(self, number: int) -> Path:
        """The folder of the autoencoder with this number: `sae_dir` for 0, a folder in it for the others."""
        return self.sae_dir / f"seed-{number}" if number else self.sae_dir

    def seed_dirs(self) -> list[Path]:
        """The folders of the autoencoders that were trained beside the first."""
        return sorted(path.parent for path in self.sae_dir.glob("seed-*/config.json"))

    def report(self) -> Path:
        """The path of the finished report. Raises RaigenError before `report` has run."""
        self.require_file(self.report_path, "report")
        return self.report_path

    def samples(self, path: Path | None = None, stage: str = "capture") -> list[Sample]:
        """The images of samples.jsonl (or of another list of the same form, of another `stage`), in order."""
        return self.read_samples(path or self.samples_path, stage)

    def __repr__(self) -> str:
        if not self.is_at(self.dir):
            return f"Run({str(self.dir)!r}): the folder is gone"
        if "capture" not in self.manifest["stages"]:
            return f"Run({str(self.dir)!r}): nothing captured yet"
        capture = self.config_of("capture")
        done = [stage for stage in STAGES if self.has_finished(stage)]
        listed = f", {len(self.attributes)} attributes listed" if "discover" in done else ""
        return (f"Run({str(self.dir)!r}): “{in_a_line(capture.prompt)}” with {in_a_line(capture.model)}, "
                f"{capture.n_images:,} images; finished: {', '.join(done) or 'no stage'}{listed}")  # fmt: skip

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
        manifest = self.manifest  # read once: it lists every image
        return AuditConfig(**{stage: self._settings(manifest, stage) for stage in STAGES})

    @property
    def facts(self) -> Facts:
        """What each stage noted when it finished. A stage that has not finished raises RaigenError."""
        return Facts(self.facts_of)

    def config_of(self, stage: str) -> Any:
        """The settings of one stage, by its name."""
        return self._settings(self.manifest, stage)

    def _settings(self, manifest: Mapping[str, Any], stage: str) -> Any:
        with shaped(f"{self.manifest_path}, {stage}", "settings that this raigen knows", "Upgrade raigen"):
            if stage in manifest["stages"]:
                return STAGE_CONFIGS[stage](**manifest["stages"][stage]["config"])
            if stage in manifest.get("dropped", {}):
                return STAGE_CONFIGS[stage](**manifest["dropped"][stage])
        if stage == "capture":
            raise RaigenError(f"{self.dir}: nothing was captured yet; run: raigen capture PROMPT --run-dir {self.dir}")
        return STAGE_CONFIGS[stage]()

    def facts_of(self, stage: str) -> dict[str, Any]:
        """What one stage noted, as JSON. Raises RaigenError when it has not finished."""
        if stage == "look" and self.predates_look:
            return {"why_not": "this run was named before raigen looked around odd images"}
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

    @property
    def predates_look(self) -> bool:
        """Whether names were found without a look around odd images, as by an early raigen."""
        return "annotate" in self.manifest["stages"] and "look" not in self.manifest["stages"]

    def is_done(self, stage: str, config: Any) -> bool:
        """Whether `stage` has finished with `config`, its outputs are there, whole, and the files of the user's that it
        read have not changed. (One that is gone is taken as unchanged.)

        Raises RaigenError, naming the field, when the folder holds the stage with another configuration.
        """
        record = self.manifest["stages"].get(stage)
        if record is None:
            return stage == "look" and self.predates_look
        wanted, found = identity(config), identity(self.config_of(stage))
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
        paths = {self.dir / file: size for file, size in record["outputs"].items()}
        return all(path.is_file() and size in (None, path.stat().st_size) for path, size in paths.items())

    @property
    def sample_of(self) -> dict[str, Sample]:
        """The images that an attribute can have among its top images, by file: audited ones and their relatives."""
        return {sample.file: sample for sample in self.all_samples()}

    @property
    def index_of(self) -> dict[str, int]:
        """The places of the images of `sample_of`, by file: audited ones first. This is the order of
        `all_embeddings`."""
        return {file: place for place, file in enumerate(self.sample_of)}

    def is_shown(self) -> "Bool[np.ndarray, ' image']":
        """Which audited images show anything: True for all but the wholly black ones."""
        import numpy as np

        return ~np.isin(np.arange(len(self.samples())), list(self.facts.capture.black_images))

    def image_codes(self) -> "Float[np.ndarray, 'image neuron']":
        """How strongly each neuron fires on each audited image, 0 or more; then, how much each image has of what is odd
        about each family."""
        import numpy as np

        codes = self.read_array(self.codes_path, "image_codes")
        return np.concatenate([codes, self.family_codes()[: len(codes)]], axis=1) if self.has_looked else codes

    def family_codes(self) -> "Float[np.ndarray, 'image family']":
        """How much the audited images and their relatives have of what is odd about each listed family, 0 or more; of
        length 0 before `look` has finished."""
        import numpy as np

        return self.read_array(self.look_path, "codes", "look") if self.has_looked else np.zeros((0, 0))

    def embeddings(self) -> "Float[np.ndarray, 'image width']":
        """The embeddings of the audited images, each of length 1."""
        return self.read_array(self.embeddings_path, "embeddings")

    def all_embeddings(self) -> "Float[np.ndarray, 'image width']":
        """The embeddings of the audited images, then those of their relatives."""
        import numpy as np

        found = self.read_array(self.look_path, "embeddings", "look") if self.has_looked else None
        return self.embeddings() if found is None else np.concatenate([self.embeddings(), found])

    def heatmaps(self) -> "Float[np.ndarray, 'neuron image row column']":
        """Where each listed attribute shows in its top images, 0 or more."""
        path, stage = (self.look_path, "look") if self.has_looked else (self.heatmaps_path, "discover")
        by_hand = [str(attribute.neuron) for attribute in self.attributes if attribute.by_hand]
        return self.stacked(self.read_array(path, "heatmaps", stage), self.by_hand_path, by_hand)

    @property
    def has_looked(self) -> bool:
        """Whether the stage `look` has finished, and has made relatives."""
        return self.look_path.is_file() and self.has_finished("look")

    def all_samples(self) -> list[Sample]:
        """The audited images, then their relatives."""
        return [*self.samples(), *self.relatives()]

    def relatives(self) -> list[Sample]:
        """The relatives of audited images that `look` made, in order; none before it has finished."""
        return self.samples(self.relatives_path, "look") if self.has_looked else []

    @property
    def model_record(self) -> dict[str, Any]:
        """Which model made the first image: `revision`, `weights` (a hash) and `settings`; older runs know less."""
        record = self.manifest["stages"].get("capture", {}) if self.samples_path.exists() else {}
        return record.get("model") or {"revision": (record.get("facts") or {}).get("revision")}

    def note_model(self, found: Mapping[str, Any]) -> None:
        """Notes which model makes the images. A later start of the capture keeps it; `forget` drops it."""
        manifest = self.manifest
        if "capture" in manifest["stages"]:
            manifest["stages"]["capture"]["model"] = dict(found)
            self._write_manifest(manifest)

    def begin(self, stage: str, config: Any) -> None:
        """Notes that `stage` runs now, and forgets the stages after it, because their inputs change."""
        manifest = self.manifest
        before = STAGES[: STAGES.index(stage)]
        kept = {name: record for name, record in manifest["stages"].items() if name in before}
        _keep_settings(manifest, STAGES[len(before) + 1 :])
        known = {name: value for name, value in manifest["stages"].get(stage, {}).items() if name == "model"}
        started = {"config": asdict(config), "started": _now(), "finished": None, **known}
        manifest["stages"] = kept | {stage: started}
        self._write_manifest(manifest)

    def finish(self, stage: str, outcome: Outcome, seconds: float) -> None:
        """Notes that `stage` has finished: the sizes of its outputs, its facts, its duration."""
        manifest = self.manifest
        # These have no fixed size: annotate, evaluate and review add to them.
        growing = (self.attributes_path, self.aside_path, self.presence_path)
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
        if stage == "train":
            self.checkpoint_path.unlink(missing_ok=True)  # not before: a training that is not recorded resumes from it

    def outdate(self, stage: str) -> None:
        """Notes that the inputs of `stage` have changed, so that it runs again. Its files stay until then."""
        manifest = self.manifest
        if stage in manifest["stages"]:
            manifest["stages"][stage]["finished"] = None
            self._write_manifest(manifest)

    def forget(self, stage: str, keep_settings: bool = True) -> None:
        """Drops `stage` and all that follow: records, outputs, and the lists that a stopped one would resume from. The
        settings of later stages are kept, for the next time that they run without others.

        Fresh images, relatives and images of suggested prompts depend on the capture alone. They stay until it is
        dropped: other judges see the same images, and answers about them are used again.
        """
        manifest = self.manifest
        if keep_settings:
            _keep_settings(manifest, STAGES[STAGES.index(stage) :])
        kept = {self.fresh_dir, self.asked_root_dir, self.look_dir}
        for name in STAGES[STAGES.index(stage) :]:
            record = manifest["stages"].pop(name, None)
            for path in map(self.dir.joinpath, (record or {}).get("outputs", {})):
                if not path.parent.resolve().is_relative_to(self.dir.resolve()):
                    continue  # not ours, whatever run.json says
                is_fresh = path == self.fresh_samples_path or {*path.parents} & kept
                if stage == "capture" or not is_fresh:
                    path.unlink(missing_ok=True)
        folders = []
        if stage == "capture":
            self.samples_path.unlink(missing_ok=True)
            self.fresh_samples_path.unlink(missing_ok=True)
            folders += [self.compared_dir, self.asked_root_dir, self.look_dir]
        if stage in ("capture", "train"):
            self.checkpoint_path.unlink(missing_ok=True)
            folders += [*self.seed_dirs(), self.amplified_dir]  # seeds of a training that was stopped, too
        for folder in folders:
            if folder.is_dir():
                shutil.rmtree(folder)
        self._write_manifest(manifest)

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_text(self.manifest_path, json.dumps(manifest, indent=1))


def _keep_settings(manifest: dict[str, Any], stages: Iterable[str]) -> None:
    """Notes the settings of stages whose records go. A capture says which images there are, so it has none to keep."""
    for name in stages:
        if name in manifest["stages"] and name != "capture":
            manifest.setdefault("dropped", {})[name] = manifest["stages"][name]["config"]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
