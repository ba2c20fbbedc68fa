"""The plan predicts what the audit then does, and writes nothing."""

import pytest

from raigen.auditing.audit import walk
from raigen.auditing.plan import estimate
from raigen.cli.main import main
from raigen.config import AuditConfig
from raigen.runs.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
OPTIONS = {"n_images": 50, "batch_size": 8, "tokens_per_batch": 256, "d_sae": 64, "k": 4, "n_fresh_images": 10,
           "n_suggested_images": 0}  # fmt: skip


def test_what_is_planned_is_what_is_done(sd_folder, tmp_path):
    config = AuditConfig.of("a photo of a doctor", model=str(sd_folder), **OPTIONS)
    planned = estimate(config)
    run = Run.create(tmp_path / "run")
    for step in walk(run, config):
        if step.stage == "discover":
            break
    captured, trained = run.facts_of("capture"), run.facts_of("train")
    assert (planned.hookpoint, list(planned.grid), planned.d_in) == tuple(
        captured[name] for name in ("hookpoint", "grid", "d_in")
    )
    assert planned.tokens == trained["tokens"] and planned.training_steps == trained["steps"]
    shards = sum(path.stat().st_size for path in run.activations_dir.iterdir())
    assert planned.disk_activations == pytest.approx(shards, rel=0.15)  # the headers of the shards are not counted
    images = sum(path.stat().st_size for path in run.images_dir.iterdir())
    assert planned.disk_images == pytest.approx(images * 60 / 50, rel=0.2)
    assert planned.rarest_rate == pytest.approx(0.29, abs=0.02) and planned.images_for[0.01] == (299, 1568)
    assert min(planned.seconds_images, planned.seconds_training, planned.seconds_fresh, planned.memory) > 0


def test_the_plan_counts_the_images_that_are_asked_for(sd_folder):
    """Ten listed attributes, five images each, beside ten fresh and fifty audited ones."""
    without, asked = (
        estimate(AuditConfig.of("a photo of a doctor", model=str(sd_folder), **(OPTIONS | {"n_suggested_images": n})))
        for n in (0, 5)
    )
    assert asked.disk_images == pytest.approx(without.disk_images * 110 / 60, rel=1e-3)


def test_a_store_and_epochs_change_the_plan(sd_folder):
    plain, stored, twice = (
        estimate(AuditConfig.of("a photo of a doctor", model=str(sd_folder), **OPTIONS, **more))
        for more in ({}, {"store": True}, {"epochs": 2, "steps_per_image": 2, "tokens_per_step": 5})
    )
    assert stored.disk_activations == 3 * plain.disk_activations
    assert twice.tokens == 2 * 50 * 2 * 5 and plain.tokens == 50 * 3 * 16
    in_reservoir, at_the_end = (2 * 16 + 8) * (50 * 3 * 16 // 4 - 256), 4 * 16 * (50 * 3 * 16 - 50 * 2 * 5)
    assert plain.memory - twice.memory == in_reservoir + at_the_end


def test_the_command_prints_it_and_leaves_no_folder(sd_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "a photo of a doctor", "--model", str(sd_folder), "--n-images", "60"]) == 0
    out = capsys.readouterr().out
    assert "60 of 16 x 16, 3 steps" in out and "unet.mid_block, 4 x 4 tokens of width 16" in out
    assert "2,880 tokens in 12 steps" in out and "(the last step)" in out
    assert "60 images are few: the list holds what up to 50% of them resemble; with 600 images, up to 5%" in out
    assert list(tmp_path.iterdir()) == []
