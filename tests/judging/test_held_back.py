"""Discovery may look at images of another guidance; rates are of the run's guidance, and their ratio is told."""

import json

import pytest
from PIL import ImageChops

from raigen.auditing.audit import capture_and_train, run_stage, steps
from raigen.config import AnnotateConfig, AuditConfig, EvaluateConfig, ReportConfig
from raigen.diffusion.generation import generate
from raigen.diffusion.recorded import recorded_pipeline, recorded_settings
from raigen.errors import RaigenError
from raigen.judging.fresh import loose_list
from raigen.judging.rates import ratio_of
from raigen.runs.run import Run

DOCTOR = "a photo of a doctor"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small audit of `portraits` at guidance 2, whose images for discovery have guidance 1."""
    config = AuditConfig.of(DOCTOR, model="portraits", n_images=50, device="cpu", d_sae=64, k=4, n_look_images=0,
                            num_inference_steps=3, guidance_scale=2.0, discovery_guidance=1.0, min_images=1,
                            max_frequency=1.0, n_attributes=2)  # fmt: skip
    run = Run.create(tmp_path_factory.mktemp("loose") / "run")
    with run.locked():
        list(capture_and_train([run], [config]))
        for stage in ("discover", "look"):
            list(steps(run, stage, getattr(config, stage)))
    run_stage(run, "annotate", AnnotateConfig())
    run_stage(run, "evaluate", EvaluateConfig(n_fresh_images=8, n_suggested_images=0))
    run_stage(run, "report", ReportConfig())
    return run


def same(one, other):
    return max(high for _, high in ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema()) <= 1


def test_each_kind_of_image_has_its_guidance(run):
    pipe = recorded_pipeline(run)
    settings = recorded_settings(run, pipe, run.config.capture)
    audited, fresh = run.samples()[3], run.samples(run.fresh_samples_path, "evaluate")[2]
    loose = run.read_samples(loose_list(run).path, "evaluate")[2]
    assert settings.guidance_scale == 2.0 and run.facts.capture.guidance_scale == 1.0
    assert fresh.seed == loose.seed and fresh.sha256 != loose.sha256
    for sample, scale in ((audited, 1.0), (fresh, 2.0), (loose, 1.0)):
        (again,) = generate(pipe, DOCTOR, [sample.seed], settings.with_guidance(scale)).images
        assert same(again, run.read_image(sample, "evaluate"))


def test_what_is_held_back_stands_in_list_table_report_and_card(run):
    named = [one for one in run.attributes if one.label]
    assert named and all(one.loose and one.loose.n + one.loose.unscored == 8 for one in named)
    assert all(one.held_back == ratio_of(one.loose, one.presence, 0.95) for one in named)
    page, card = run.report_path.read_text(), run.card_path.read_text()
    assert "At guidance 1, with which discovery looked" in page and "At guidance 1" in card
    header, *rows = run.table_path.read_text().splitlines()
    assert "held_back_low" in header and f",{named[0].loose.hits},{named[0].loose.n}," in rows[named[0].rank - 1]


def test_started_again_no_image_is_made_again(run):
    before = {path: path.stat().st_mtime_ns for path in loose_list(run).folder.glob("*.png")}
    record = json.loads(run.manifest_path.read_text())
    record["stages"]["evaluate"]["finished"] = None
    run.manifest_path.write_text(json.dumps(record))
    run_stage(run, "evaluate", run.config.evaluate)
    assert len(before) == 8 and {path: path.stat().st_mtime_ns for path in before} == before


def test_a_pipeline_without_guidance_is_named():
    from raigen.diffusion.generation import Settings

    with pytest.raises(RaigenError, match="discovery_guidance: this pipeline takes no guidance scale"):
        Settings(4, None, 64, 64).with_guidance(1.0)
    qwen = Settings(4, 1.0, 64, 64, " ", 4.0).with_guidance(2.0)
    assert (qwen.guidance_scale, qwen.true_cfg_scale, qwen.negative_prompt) == (1.0, 2.0, " ")
