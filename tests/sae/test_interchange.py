"""Formats of other libraries: what is written for SAELens, what is read from others, and what is refused."""

import json
import math
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from raigen.config import SAEConfig
from raigen.errors import RaigenError
from raigen.sae.interchange import from_file, from_saelens, to_saelens
from raigen.sae.model import MatryoshkaSAE

D_IN, GROUPS, K = 8, (6, 8, 10), 3


def tokens(n: int = 200) -> Tensor:
    return 2 * torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1)) + 0.7


@pytest.fixture
def sae() -> MatryoshkaSAE:
    made = MatryoshkaSAE(SAEConfig(D_IN, sum(GROUPS), GROUPS, K))
    generator = torch.Generator().manual_seed(0)
    made.initialize(tokens(), generator)
    with torch.no_grad():
        made.b_enc.add_(0.3 * torch.randn(sum(GROUPS), generator=generator))
        made.W_enc.add_(0.1 * torch.randn(made.W_enc.shape, generator=generator))
    made.calibrate(tokens())
    return made.eval()


def test_saelens_gets_the_same_codes_by_its_own_formula(sae, tmp_path):
    """x W_enc' with b_dec taken off before, a threshold per neuron: JumpReLU as SAELens computes it."""
    paths = to_saelens(sae, tmp_path / "out")
    assert [path.name for path in paths] == ["cfg.json", "sae_weights.safetensors"]
    config, weights = json.loads(paths[0].read_text()), load_file(paths[1])
    assert config["architecture"] == "jumprelu" and (config["d_in"], config["d_sae"]) == (D_IN, 24)
    assert config["apply_b_dec_to_input"] and config["metadata"]["group_sizes"] == [6, 8, 10]
    assert weights.keys() == {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}
    assert {value.dtype for value in weights.values()} == {torch.float32} and weights["threshold"].shape == (24,)
    pre = (tokens() - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    codes = pre.relu() * (pre > weights["threshold"])
    torch.testing.assert_close(codes, sae.encode(tokens()), atol=1e-5, rtol=1e-5)
    assert 0 < (codes > 0).float().mean() < 0.5


def test_saelens_loads_it_and_reconstructs_the_same(sae, tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    to_saelens(sae, tmp_path / "out")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "out")
    assert type(theirs).__name__ == "JumpReLUSAE"
    codes = sae.encode(tokens())
    torch.testing.assert_close(theirs.encode(tokens()), codes, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs(tokens()), sae.decode(codes), atol=1e-5, rtol=0)


def matryoshka_of_dictionary_learning(sae: MatryoshkaSAE) -> dict[str, Tensor]:
    plain = {name: value.detach().clone() for name, value in sae.state_dict().items()}
    return plain | {"threshold": sae.threshold.float(), "k": torch.tensor(K), "group_sizes": torch.tensor(GROUPS)}


def flat_of_dictionary_learning(sae: MatryoshkaSAE) -> dict[str, Tensor]:
    return {
        "encoder.weight": sae.W_enc.detach().T.contiguous(), "encoder.bias": sae.b_enc.detach(),
        "decoder.weight": sae.W_dec.detach().T.contiguous(), "b_dec": sae.b_dec.detach(),
        "threshold": sae.threshold.float(), "k": torch.tensor(K),
    }  # fmt: skip


def reference(sae: MatryoshkaSAE) -> dict[str, Tensor]:
    return {name: value.detach().float() for name, value in sae.state_dict().items()}


REFERENCE_CONFIG = {"sae_type": "global-matryoshka-topk", "top_k": K, "group_sizes": "[6, 8, 10]",
                    "input_unit_norm": False, "dtype": "torch.float32"}  # fmt: skip
TRAINER_CONFIG = {"trainer": {"trainer_class": "BatchTopKTrainer", "k": K, "dict_size": 24}, "buffer": {}}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("layout", "config", "groups"),
    [
        (matryoshka_of_dictionary_learning, None, GROUPS),
        (flat_of_dictionary_learning, TRAINER_CONFIG, (24,)),
        (reference, REFERENCE_CONFIG, GROUPS),
        (reference, REFERENCE_CONFIG | {"group_sizes": [6, 8, 10]}, GROUPS),
    ],
)
def test_checkpoints_of_others_give_the_same_codes(sae, tmp_path, layout, config, groups, suffix):
    path = tmp_path / f"ae.{suffix}"
    torch.save(layout(sae), path) if suffix == "pt" else save_file(layout(sae), path)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    found = from_file(path)
    assert found.config == SAEConfig(D_IN, 24, groups, K) and not found.training
    assert torch.equal(found.encode(tokens()), sae.encode(tokens()))
    assert torch.equal(found.decode(found.encode(tokens())), sae.decode(sae.encode(tokens())))
    assert found.threshold.dtype == torch.float64


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_the_name_of_a_wrapper_in_front_of_the_names_does_not_matter(sae, tmp_path, prefix):
    tensors = {prefix + name: value for name, value in matryoshka_of_dictionary_learning(sae).items()}
    save_file(tensors, tmp_path / "ae.safetensors")
    assert torch.equal(from_file(tmp_path / "ae.safetensors").encode(tokens()), sae.encode(tokens()))


def test_half_precision_becomes_single_and_k_may_stand_in_the_trainers_settings(sae, tmp_path):
    tensors = {name: value.bfloat16() for name, value in flat_of_dictionary_learning(sae).items() if name != "k"}
    torch.save(tensors, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps(TRAINER_CONFIG))
    found = from_file(tmp_path / "ae.pt")
    assert found.config.k == K and {p.dtype for p in found.parameters()} == {torch.float32}
    torch.testing.assert_close(found.W_dec, sae.W_dec, atol=0.01, rtol=0)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def without(name):
    return lambda sae: {other: value for other, value in reference(sae).items() if other != name}


@pytest.mark.parametrize(
    ("content", "config", "message"),
    [
        (without("b_enc"), REFERENCE_CONFIG, r"expected W_enc, .* one threshold.*; got W_dec, W_enc, b_dec, threshold"),
        (lambda sae: reference(sae) | {"threshold": torch.ones(24)}, REFERENCE_CONFIG, "one threshold"),
        (
            lambda sae: reference(sae) | {"threshold": torch.tensor(-1.0)},
            REFERENCE_CONFIG,
            "got -1, so it was never cal",
        ),
        (lambda sae: reference(sae) | {"threshold": torch.tensor(0.0)}, REFERENCE_CONFIG, "a threshold above 0; got 0"),
        (
            lambda sae: reference(sae) | {"threshold": torch.tensor(math.nan)},
            REFERENCE_CONFIG,
            "some of threshold are not finite",
        ),
        (
            lambda sae: reference(sae) | {"threshold": torch.tensor(math.inf)},
            REFERENCE_CONFIG,
            "some of threshold are not finite",
        ),
        (
            lambda sae: reference(sae) | {"b_enc": torch.full((24,), math.nan)},
            REFERENCE_CONFIG,
            "some of b_enc are not finite",
        ),
        (reference, REFERENCE_CONFIG | {"input_unit_norm": True}, "has input_unit_norm"),
        (reference, REFERENCE_CONFIG | {"group_sizes": [6, 8]}, "fit each other; group_sizes: expected"),
        (lambda sae: reference(sae) | {"b_dec": torch.ones(9)}, REFERENCE_CONFIG, r"fit each other; [\s\S]*b_dec"),
        (reference, None, "expected group_sizes in config.json in the same folder.*found none"),
        (flat_of_dictionary_learning, {"k": 99}, None),
        (lambda sae: sae.W_enc.detach(), None, "expected tensors by name; got Tensor"),
        (lambda sae: {"state": {}}, None, "expected tensors by name; got dict"),
        (lambda sae: Harmful(), None, "it is broken, or holds more"),
    ],
)
def test_what_cannot_be_read_is_named(sae, tmp_path, content, config, message):
    path = tmp_path / "sae.pt"
    torch.save(content(sae), path)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    if message is None:
        assert from_file(path).config.k == K  # what the tensors say goes before config.json
    else:
        with pytest.raises(RaigenError, match=rf"sae\.pt: .*{message}"):
            from_file(path)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(RaigenError, match=r"ae\.pt: expected a checkpoint"):
        from_file(tmp_path / "ae.pt")
    for name, content in (
        ("ae.pt", b"x"),
        ("b.pt", pickle.dumps(1, protocol=2)),
        ("a.safetensors", b"12345678"),
        ("c.pt", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RaigenError, match=f"{name}: expected"):
            from_file(tmp_path / name)
    (tmp_path / "config.json").write_text("{")
    torch.save({}, tmp_path / "ae.pt")
    with pytest.raises(RaigenError, match=r"config\.json: expected whole JSON"):
        from_file(tmp_path / "ae.pt")


def trained_by_saelens(is_rescaled: bool):
    """A Matryoshka autoencoder of SAELens, with a threshold as after a training."""
    kinds = pytest.importorskip("sae_lens.saes.matryoshka_batchtopk_sae")
    torch.manual_seed(3)
    config = kinds.MatryoshkaBatchTopKTrainingSAEConfig(
        d_in=D_IN, d_sae=24, k=K + 0.4, matryoshka_widths=[6, 14, 24], rescale_acts_by_decoder_norm=is_rescaled
    )
    made = kinds.MatryoshkaBatchTopKTrainingSAE(config)
    with torch.no_grad():
        made.b_dec.add_(0.5)
        made.b_enc.add_(0.2 * torch.randn(24))
        made.W_dec.mul_(torch.rand(24, 1) + 0.5)
        made.topk_threshold.fill_(0.1 if is_rescaled else 0.6)
    return made


@pytest.mark.parametrize("is_rescaled", [False, True])
@pytest.mark.parametrize("save", ["save_model", "save_inference_model"])
def test_an_autoencoder_of_saelens_gives_the_same_codes_here(tmp_path, save, is_rescaled):
    sae_lens = pytest.importorskip("sae_lens")
    made = trained_by_saelens(is_rescaled)
    getattr(made, save)(tmp_path / "out")
    made.save_inference_model(tmp_path / "theirs")
    theirs, ours = sae_lens.SAE.load_from_disk(tmp_path / "theirs"), from_saelens(tmp_path / "out")
    assert ours.config.group_sizes == GROUPS and ours.config.k == K
    codes = ours.encode(tokens())
    assert 0 < (codes > 0).float().mean() < 0.7
    torch.testing.assert_close(codes, theirs.encode(tokens()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.decode(codes), theirs(tokens()), atol=1e-5, rtol=1e-5)


def saelens_folder(sae, folder, weights: dict[str, Tensor] | None = None, **config):
    """A folder in the form of SAELens 6, by hand; a value of None drops the setting."""
    known = {"architecture": "matryoshka_batchtopk", "d_in": D_IN, "d_sae": 24, "k": K,
             "matryoshka_widths": [6, 14, 24], "normalize_activations": "none", "reshape_activations": "none",
             "apply_b_dec_to_input": True}  # fmt: skip
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in (known | config).items() if v is not None}))
    state = {name: value.detach().clone() for name, value in sae.state_dict().items()}
    state["topk_threshold"] = state.pop("threshold")
    save_file(state | (weights or {}), folder / "sae_weights.safetensors")
    return folder


def test_what_goes_to_saelens_comes_back(sae, tmp_path):
    to_saelens(sae, tmp_path / "out")
    back = from_saelens(tmp_path / "out")
    assert back.config == sae.config
    torch.testing.assert_close(back.encode(tokens()), sae.encode(tokens()), atol=1e-5, rtol=1e-5)


def test_settings_of_saelens_that_change_the_formula_are_folded_in(sae, tmp_path):
    plain = sae.encode(tokens())
    raw = from_saelens(saelens_folder(sae, tmp_path / "raw", apply_b_dec_to_input=False))
    pre = tokens() @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(raw.encode(tokens()), pre.relu() * (pre > sae.threshold), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(raw.encode(tokens()), plain, atol=1e-2)
    doubled = {"W_dec": 2 * sae.W_dec.detach()}
    rescaled = from_saelens(saelens_folder(sae, tmp_path / "rescaled", doubled, rescale_acts_by_decoder_norm=True))
    pre = 2 * ((tokens() - sae.b_dec) @ sae.W_enc + sae.b_enc)
    codes = pre.relu() * (pre > sae.threshold)
    torch.testing.assert_close(rescaled.encode(tokens()), codes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rescaled.decode(codes), sae.decode(codes), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "config", "message"),
    [
        ({}, {"architecture": "gated"}, "expected the architecture batchtopk, .*got 'gated'"),
        ({}, {"normalize_activations": "layer_norm"}, "expected normalize_activations none; got 'layer_norm'"),
        ({}, {"k": None}, "expected k in config.json in the same folder"),
        ({}, {"matryoshka_widths": 3}, "cfg.json: expected what SAELens 6 writes"),
        ({}, {"matryoshka_widths": [6, 14]}, "fit each other; group_sizes"),
        ({"topk_threshold": torch.zeros(())}, {}, "threshold above 0"),
        ({"topk_threshold": torch.arange(24.0)}, {"architecture": "jumprelu"}, "and one threshold"),
    ],
)
def test_what_saelens_has_and_raigen_has_not_is_named(sae, tmp_path, weights, config, message):
    with pytest.raises(RaigenError, match=message):
        from_saelens(saelens_folder(sae, tmp_path / "out", weights, **config))
