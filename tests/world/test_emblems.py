"""The world `emblems`: images show what their records say, as often as the table says, and the judge reads them."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from raigen.config import EMBLEMS, PORTRAITS, CaptureConfig
from raigen.diffusion.loading import load_pipeline
from raigen.discovery.embeddings import default_embedder
from raigen.errors import RaigenError
from raigen.judging.annotate import vocabulary
from raigen.judging.judges import WorldJudge, judge_names, read_world
from raigen.judging.protocol import Subject
from raigen.runs.files import write_text
from raigen.world.captions import caption
from raigen.world.emblems import planted, pool
from raigen.world.emblems.attributes import BY_NAME, CHOICES, FIELDS, PLAIN, PROFESSIONS, PROMPTS, VALUES, Attributes
from raigen.world.emblems.draw import BACKGROUND, draw
from raigen.world.emblems.judge import judge
from raigen.world.models import BUNDLE, world_name
from raigen.world.train import emblems, quality
from raigen.world.train.data import decode, encode
from raigen.world.train.emblem_art import PACKAGES, icon_of
from raigen.world.train.text import make_tokenizer
from raigen.world.worlds import WORLDS, world_of

WORLD = WORLDS[EMBLEMS]
ALWAYS_SHOWN = ("gender", "skin", "hand", "background")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_each_prompt_plants_twelve_rare_values_some_common_ones_and_two_pairs(prompt):
    plan = planted.plan_of(planted.profession_of(prompt))
    rare = planted.rare_values(prompt)
    assert Counter(plan.shares[name] for name in rare) == {0.003: 2, 0.005: 3, 0.01: 3, 0.02: 2, 0.05: 2}
    assert all(share == 0 or share <= 0.05 or 0.2 <= share <= 0.6 for share in plan.shares.values())
    for field in FIELDS:
        total = sum(plan.shares.get(name, 0) for name in CHOICES[field])
        assert total == pytest.approx(1) if field in ALWAYS_SHOWN else total < 0.6
    assert len(plan.together) == 2 and len(planted.control_values(prompt)) >= 4
    seconds = [BY_NAME[pair.second].field for pair in plan.together]
    assert len(set(seconds)) == 2  # a second pair would change what the first one planted
    for first, second, share in plan.together:
        assert plan.shares[first] >= 0.2 and 0.003 <= share <= plan.shares[second]
        assert FIELDS.index(BY_NAME[first].field) < FIELDS.index(BY_NAME[second].field)
        assert share < plan.shares[first] * plan.shares[second] / 2 or share == plan.shares[second]


def test_what_is_common_under_one_prompt_is_rare_under_another():
    for value in VALUES:
        shares = [planted.plan_of(profession).shares[value.name] for profession in PROFESSIONS]
        assert max(shares) >= 0.2 and sum(0 < share <= 0.05 for share in shares) >= 2, value.name


@pytest.mark.parametrize("prompt", ["a teacher", "an office worker"])
def test_samples_follow_the_planted_rates_of_values_and_pairs(prompt):
    n, rng = 5000, np.random.default_rng(1)
    shown = [set(planted.sample_attributes(prompt, rng).shown()) for _ in range(n)]
    for name, rate in planted.rates(prompt).items():
        spread = 4 * np.sqrt(rate * (1 - rate) / n)
        assert np.mean([name in names for names in shown]) == pytest.approx(rate, abs=spread + 1e-9), name
    for first, second, share in planted.plan_of(planted.profession_of(prompt)).together:
        color = 1 - planted.rates(prompt)["black and white"] * (BY_NAME[second].field in planted.NO_COLOR)
        both = np.mean([first in names and second in names for names in shown])
        assert both == pytest.approx(share * color, abs=4 * np.sqrt(share / n)), (first, second)


def test_black_and_white_hides_what_is_only_a_color():
    rng = np.random.default_rng(2)
    gray = [a for a in (planted.sample_balanced(rng) for _ in range(60)) if a.style == "black and white"]
    assert gray and {(a.skin, a.background) for a in gray} == {(PLAIN["skin"], PLAIN["background"])}
    assert planted.rates("a judge")["medium skin"] == pytest.approx(0.44 * 0.8)
    with pytest.raises(ValueError, match=r"'a teacher', 'a judge'.*got 'a doctor'"):
        planted.rates("a doctor")


def test_a_record_is_stored_read_again_and_told():
    record = Attributes("pilot", companion="apple", background="red background")
    assert decode(np.array(encode(record, WORLD), np.uint8), WORLD) == record
    told = caption(record, np.random.default_rng(0), bare=0.0, naming="apple", world=WORLD)
    assert told.startswith("a pilot, ") and "with an apple" in told
    with pytest.raises(ValueError, match="background is one of blue background"):
        Attributes("pilot", background="office")


def test_no_two_figures_of_the_pool_are_alike():
    figures = pool.cells()[: pool.N_FIGURES].reshape(-1, 18, 64, 64, 4).astype(np.float32)
    assert len(figures) == len(PROFESSIONS) * 3
    for group in figures:  # one profession by one hand: three genders of six skins
        apart = np.abs(group[:, None] - group[None]).mean((2, 3, 4)) + 100 * np.eye(18)
        assert apart.min() > 0.2
    assert (pool.cells()[: pool.N_FIGURES + 24, ..., 3].mean((1, 2)) > 20).all()  # none is empty
    assert pool.figure_index("office worker", "fluent", "person", "dark skin") == pool.N_FIGURES - 1
    assert pool.companion_index("fluent", "snowman") == pool.N_FIGURES + 23


def test_a_person_has_the_name_that_the_sets_give_it():
    assert list(PACKAGES) == list(CHOICES["hand"])
    assert icon_of("twemoji", "office worker", "man", "yellow") == "man-office-worker"


def test_a_drawing_has_its_background_and_its_figure_where_the_frame_puts_it():
    rng = np.random.default_rng(0)
    plain, aside = (
        np.asarray(draw(Attributes("judge", background="navy background", frame=frame), rng)).astype(int)
        for frame in ("centered", "left of frame")
    )
    shade = np.array(BACKGROUND["navy background"])
    assert np.abs(plain[:8].mean((0, 1)) - shade).max() < 20
    assert np.abs(plain[40:, -8:].mean((0, 1)) - shade).max() < np.abs(plain[40:, 28:36].mean((0, 1)) - shade).max()
    center = [(np.abs(image - shade).max(-1) > 60).nonzero()[1].mean() for image in (plain, aside)]
    assert center[1] < center[0] - 8


def drawings(count: int) -> tuple[list[Image.Image], list[Attributes]]:
    """Balanced drawings with their records."""
    records = [planted.sample_balanced(np.random.default_rng((5, index))) for index in range(count)]
    return [draw(record, np.random.default_rng((6, index))) for index, record in enumerate(records)], records


def test_the_judge_reads_every_field_of_drawings():
    images, records = drawings(80)
    verdict = judge(images)
    assert verdict.readable.all()
    truth = np.array([[value.name in record.shown() for value in VALUES] for record in records])
    assert (verdict.shows == truth).mean() > 0.999
    assert [PROFESSIONS[index] for index in verdict.profession] == [record.profession for record in records]
    assert ((verdict.confidence >= 0) & (verdict.confidence <= 1)).all() and verdict.confidence.mean() > 0.97


def test_the_judge_doubts_what_is_between_two_values():
    person, man = (np.asarray(draw(Attributes("pilot", hand="fluent", gender=gender), np.random.default_rng(0)))
                   for gender in ("person", "man"))  # fmt: skip
    between = ((person.astype(int) + man) // 2).astype(np.uint8)
    found = judge([Image.fromarray(person), Image.fromarray(between)]).confidence[:, WORLD.value_names.index("person")]
    assert found[0] > 0.9 and 0.5 <= found[1] < 0.8


def test_the_judge_reads_nothing_in_noise_and_in_drawings_of_the_other_world():
    rng, portraits = np.random.default_rng(0), WORLDS[PORTRAITS]
    noise = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(4)]
    verdict = judge(noise)
    assert not verdict.readable.any() and not verdict.shows.any()
    with pytest.raises(RaigenError, match="at least one image"):
        judge([])
    images, _ = drawings(3)
    assert not portraits.judge(noise).readable.any() and judge(images).readable.all()


def test_a_model_says_which_world_its_images_show(tmp_path):
    write_text(tmp_path / "raigen.json", '{"world": "emblems"}')
    assert world_of(str(tmp_path)) is WORLD and world_of("portraits-transformer") is WORLDS[PORTRAITS]
    assert default_embedder(str(tmp_path)) == EMBLEMS
    write_text(tmp_path / "raigen.json", '{"world": "nowhere"}')
    assert world_name(str(tmp_path)) is None and world_of(str(tmp_path)) is None


def test_the_defaults_of_a_run_are_those_of_its_world(tmp_path):
    write_text(tmp_path / "raigen.json", '{"world": "emblems"}')
    model = str(tmp_path)
    assert judge_names(["auto", "clip"], CaptureConfig("a teacher", model=model)) == [EMBLEMS, "clip"]
    assert judge_names(["auto"], CaptureConfig("a doctor", model=model)) == ["clip"]
    with pytest.raises(RaigenError, match="'portraits' can judge only images of the planted world"):
        judge_names(["portraits"], CaptureConfig("a teacher", model=model))
    assert vocabulary("auto", model, "a teacher") == [value.phrase for value in VALUES]


def test_the_judge_of_a_run_answers_to_the_phrases_of_its_own_world():
    images, records = drawings(6)
    subjects = [Subject(WORLD.phrase(name)) for name in records[0].shown()]
    found = WorldJudge(WORLD).verdicts(images, [*subjects, Subject("holding a cat")])
    assert all(each.shows[0] == 1 and each.judge == "emblems judge" for each in found[:-1])
    assert np.isnan(found[-1].shows).all()  # a phrase of the other world
    assert list(read_world(images, WORLD).prompts) == [WORLD.prompt_of(record) for record in records]


def test_large_weights_are_stored_at_eight_bits(tmp_path):
    weights = {"large": torch.randn(200, 200), "small": torch.randn(10)}
    save_file(weights, tmp_path / "weights.safetensors")
    emblems.at_eight_bits(tmp_path / "weights.safetensors")
    kept = load_file(tmp_path / "weights.safetensors")
    assert kept["large"].dtype == torch.float8_e4m3fn and torch.equal(kept["small"], weights["small"])
    assert (kept["large"].float() - weights["large"]).norm() / weights["large"].norm() < 0.04


def test_the_denoiser_begins_with_what_the_first_world_taught(portraits, tmp_path):
    tokenizer = make_tokenizer(tmp_path, WORLD)
    model = emblems.begun(tokenizer)
    for name, weight in portraits.unet.state_dict().items():
        assert torch.equal(model.unet.state_dict()[name], weight)
    mine, theirs = (encoder.get_input_embeddings().weight for encoder in (model.text_encoder, portraits.text_encoder))
    shared = {word for word in tokenizer.get_vocab() if word in portraits.tokenizer.get_vocab()}
    assert {"dark</w>", "skin</w>", "close</w>"} <= shared and "teacher</w>" not in shared
    for word in shared:
        assert torch.equal(mine[tokenizer.get_vocab()[word]], theirs[portraits.tokenizer.get_vocab()[word]])


CARD = BUNDLE / "emblems"


def test_the_card_is_what_its_figures_make(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "sheet", lambda model: Image.new("RGB", (8, 8)))
    said = json.loads((CARD / "quality.json").read_text())
    quality.write_card(tmp_path, EMBLEMS, emblems.ABOUT, said, emblems.ORIGIN, "other")
    for name in ("README.md", "quality.json"):
        assert (tmp_path / name).read_text() == (CARD / name).read_text()


def test_the_card_tells_the_truth_about_the_judge():
    pipe, said = load_pipeline(EMBLEMS, "cpu"), json.loads((CARD / "quality.json").read_text())["judge"]
    for way, measured in quality.judge_quality(pipe.vae, 60, WORLD).items():
        assert min(said[way]["fields"].values()) >= 0.95
        for field, accuracy in measured["fields"].items():
            assert accuracy == pytest.approx(said[way]["fields"][field], abs=0.07), (way, field)


def test_art_and_model_are_small():
    sizes = [path.stat().st_size for path in [pool.POOL, *CARD.rglob("*")] if path.is_file()]
    assert 5e6 < sum(sizes) <= 10e6
