"""The configurations: limits are told with the field's name, options find their stage, JSON gives them back."""

import json
from dataclasses import asdict, fields
from typing import get_args

import pytest

from raigen.config import (
    STAGE_CONFIGS,
    STAGES,
    AnnotateConfig,
    AskConfig,
    AuditConfig,
    CaptureConfig,
    DiscoverConfig,
    EvaluateConfig,
    ReportConfig,
    SAEConfig,
    TrainConfig,
    address_of,
    identity,
)
from raigen.config.presets import PRESETS, PresetName
from raigen.errors import RaigenError

DOCTOR = "a photo of a doctor"


@pytest.mark.parametrize(
    ("config", "values", "name"),
    [
        (CaptureConfig, {"prompt": " "}, "prompt"),
        (CaptureConfig, {"prompt": DOCTOR, "n_images": 49}, "n_images"),
        (CaptureConfig, {"prompt": DOCTOR, "base_seed": -1}, "base_seed"),
        (CaptureConfig, {"prompt": DOCTOR, "batch_size": 0}, "batch_size"),
        (CaptureConfig, {"prompt": DOCTOR, "num_inference_steps": 0}, "num_inference_steps"),
        (CaptureConfig, {"prompt": DOCTOR, "guidance_scale": float("inf")}, "guidance_scale"),
        (CaptureConfig, {"prompt": DOCTOR, "guidance_scale": float("nan")}, "guidance_scale"),
        (SAEConfig, {"d_in": 0, "d_sae": 8, "group_sizes": (4, 4), "k": 2}, "d_in"),
        (SAEConfig, {"d_in": 4, "d_sae": 1, "group_sizes": (1,), "k": 1}, "d_sae"),
        (SAEConfig, {"d_in": 4, "d_sae": 8, "group_sizes": (4, 3), "k": 2}, "group_sizes"),
        (SAEConfig, {"d_in": 4, "d_sae": 8, "group_sizes": (8, 0), "k": 2}, "group_sizes"),
        (SAEConfig, {"d_in": 4, "d_sae": 8, "group_sizes": (4, 4), "k": 8}, "k"),
        (SAEConfig, {"d_in": 4, "d_sae": 8, "group_sizes": (4, 4), "k": 2, "aux_k": -1}, "aux_k"),
        (SAEConfig, {"d_in": 4, "d_sae": 8, "group_sizes": (4, 4), "k": 2, "aux_weight": -0.1}, "aux_weight"),
        (TrainConfig, {"tokens_per_batch": 0}, "tokens_per_batch"),
        (TrainConfig, {"epochs": 0}, "epochs"),
        (TrainConfig, {"lr": 0.0}, "lr"),
        (DiscoverConfig, {"distance": 2.1}, "distance"),
        (DiscoverConfig, {"percentile": 100.0}, "percentile"),
        (DiscoverConfig, {"n_attributes": 0}, "n_attributes"),
        (DiscoverConfig, {"n_top_images": 1}, "n_top_images"),
        (AnnotateConfig, {"min_auroc": 0.4}, "min_auroc"),
        (EvaluateConfig, {"n_fresh_images": 0}, "n_fresh_images"),
        (EvaluateConfig, {"confidence": 1.0}, "confidence"),
        (EvaluateConfig, {"judge": "cilp"}, "judge"),
        (EvaluateConfig, {"judge": ()}, "judge"),
        (AnnotateConfig, {"annotator": "vlm"}, "annotator"),
        (AnnotateConfig, {"concurrency": 0}, "concurrency"),
        (AnnotateConfig, {"timeout": 0.0}, "timeout"),
        (AnnotateConfig, {"max_calls": -1}, "max_calls"),
        (EvaluateConfig, {"max_cost": 0.0}, "max_cost"),
        (EvaluateConfig, {"max_cost": 2.0}, "max_cost"),
        (EvaluateConfig, {"price_in": -1.0}, "price_in"),
        (ReportConfig, {"n_control_images": 0}, "n_control_images"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_name_and_itself(config, values, name):
    with pytest.raises(RaigenError, match=rf"^{name}: expected .*; got ") as caught:
        config(**values)
    assert repr(values[name]) in str(caught.value)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (CaptureConfig, {"prompt": DOCTOR, "base_seed": -1}, "base_seed: expected 0 or more; got -1"),
        (TrainConfig, {"lr": 0.0}, "lr: expected a number above 0; got 0.0"),
        (DiscoverConfig, {"distance": -0.1}, "distance: expected a number in [0, 2]; got -0.1"),
        (DiscoverConfig, {"percentile": 100.0}, "percentile: expected a number in [0, 100); got 100.0"),
        (DiscoverConfig, {"max_frequency": 0.0}, "max_frequency: expected a number in (0, 1]; got 0.0"),
        (EvaluateConfig, {"confidence": float("nan")}, "confidence: expected a number in (0, 1); got nan"),
    ],
)
def test_an_error_names_the_range_of_the_field(config, values, message):
    with pytest.raises(RaigenError) as caught:
        config(**values)
    assert str(caught.value) == message


def test_presets_have_the_names_that_the_flag_offers():
    assert tuple(PRESETS) == get_args(PresetName)


def test_too_few_images_say_why():
    with pytest.raises(RaigenError) as caught:
        CaptureConfig(DOCTOR, n_images=20)
    assert str(caught.value) == "n_images: expected at least 50: fewer images cannot show what is rare; got 20"


def test_options_find_the_stage_that_has_a_field_of_their_name():
    config = AuditConfig.of(DOCTOR, n_images=60, k=5, percentile=80.0, min_auroc=0.7, n_fresh_images=9)
    assert config.capture == CaptureConfig(DOCTOR, n_images=60)
    assert (config.train.k, config.discover.percentile) == (5, 80.0)
    assert (config.annotate.min_auroc, config.evaluate.n_fresh_images) == (0.7, 9)


def test_an_unknown_option_is_told_with_the_known_ones():
    with pytest.raises(RaigenError, match=r"^unknown option 'n_imags'; the options are .*n_images"):
        AuditConfig.of(DOCTOR, n_imags=60)


def test_two_stages_share_only_how_models_are_asked():
    shared = {f.name for f in fields(AskConfig)}
    names = [f.name for config in STAGE_CONFIGS.values() for f in fields(config) if f.name not in shared]
    assert len(names) == len(set(names))
    assert tuple(f.name for f in fields(AuditConfig)) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_configuration_comes_back_from_json(stage):
    extra = {"prompt": DOCTOR} if stage == "capture" else {}
    extra |= {"group_sizes": (2, 6)} if stage == "train" else {}
    config = STAGE_CONFIGS[stage](**extra)
    assert STAGE_CONFIGS[stage](**json.loads(json.dumps(asdict(config)))) == config


def test_details_are_no_part_of_the_identity():
    a, b = CaptureConfig(DOCTOR, batch_size=1, device="cpu"), CaptureConfig(DOCTOR, batch_size=16)
    assert a != b
    assert identity(a) == identity(b)
    assert identity(TrainConfig(group_sizes=(2, 6)))["group_sizes"] == [2, 6]


def test_the_shape_follows_the_width():
    assert TrainConfig().sae_config(1280) == SAEConfig(1280, 20480, (5120, 15360), 32)
    assert TrainConfig().sae_config(128) == SAEConfig(128, 2048, (512, 1536), 8)
    assert TrainConfig(group_sizes=(3, 5), k=2).sae_config(4) == SAEConfig(4, 8, (3, 5), 2)


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_is_described(stage):
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(STAGE_CONFIGS[stage]))
    body = tree.body[0].body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), ast.unparse(node)


@pytest.mark.parametrize(
    "place", ["localhost:8000/v1", "127.0.0.1:11434/v1", "http://", "ftp://x/v1", "http:/127.0.0.1/v1", "", "http://[::1",
              "http://h:port/v1", "sk-secret@h/v1"],
)  # fmt: skip
def test_a_server_without_its_url_is_never_taken_for_openai(place):
    with pytest.raises(RaigenError, match=r"expected http:// or https:// and a host after the @") as caught:
        address_of(f"openai:qwen2.5vl:7b@{place}")
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "place", ["http://h/v1?api_key=sk-secret", "http://h/v1#sk-secret", "http://me:sk-secret@h/v1"]
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(place):
    with pytest.raises(RaigenError, match="without a name, password, query, or") as caught:
        address_of(f"openai:m@{place}")
    assert "sk-secret" not in str(caught.value)


def test_addresses_of_servers():
    assert address_of("openai:m@http://h:8/v1/").endpoint == "http://h:8/v1"
    assert address_of("openai:m@http://[::1]:8/v1").name == "m at [::1]:8"
    assert address_of("openai:gpt-4o-mini").endpoint == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_sae": 64, "k": 64}, "k: expected 1 <= k < d_sae = 64; got 64"),
        ({"d_sae": 64, "group_sizes": (8, 8)}, "group_sizes: expected positive numbers that add up to d_sae = 64"),
        ({"group_sizes": (8, 8), "k": 0}, "k: expected 1 or more; got 0"),
        ({"d_sae": 1, "k": 1}, "d_sae: expected 2 or more"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_before_the_first_image(options, message):
    with pytest.raises(RaigenError, match=message):
        TrainConfig(**options)


def test_the_list_of_images_fits_into_memory():
    with pytest.raises(RaigenError, match="n_images: expected at most 10,000,000; got 1000000000"):
        CaptureConfig("x", n_images=10**9)
