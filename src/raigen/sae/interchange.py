"""Writes autoencoders for SAELens and reads its own; reads those of dictionary_learning and of the reference."""

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from raigen.config import SAEConfig, object_of, parsed, shaped
from raigen.errors import RaigenError
from raigen.runs.files import write_tensors, write_text
from raigen.sae.model import MatryoshkaSAE

SAELENS_FORMAT = "6.0.0"  # the first version of SAELens whose cfg.json has this form
SAELENS_KINDS = ("batchtopk", "matryoshka_batchtopk", "jumprelu")  # the last is what SAELens makes of the others
WEIGHTS = ("W_enc", "W_dec", "b_enc", "b_dec")
LINEAR_LAYERS = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "encoder.bias": "b_enc"}  # weights transposed


def to_saelens(sae: MatryoshkaSAE, dir: str | Path) -> list[Path]:
    """Writes cfg.json and sae_weights.safetensors, from which `sae_lens.SAE.load_from_disk(dir)` makes an autoencoder
    with the same codes and reconstructions; returns their paths.

    Its architecture there is `jumprelu`, with our one threshold for every neuron. `k` and `group_sizes`, which jumprelu
    does not use, are in the metadata.

    >>> from tempfile import mkdtemp
    >>> sae = MatryoshkaSAE(SAEConfig(d_in=4, d_sae=8, group_sizes=(2, 6), k=2))
    >>> [path.name for path in to_saelens(sae, mkdtemp())]
    ['cfg.json', 'sae_weights.safetensors']
    """
    paths = [Path(dir) / "cfg.json", Path(dir) / "sae_weights.safetensors"]
    config = {
        "architecture": "jumprelu",
        "d_in": sae.config.d_in,
        "d_sae": sae.config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAELENS_FORMAT,
            "k": sae.config.k,
            "group_sizes": list(sae.config.group_sizes),
        },
    }
    weights = {name: getattr(sae, name).detach().float() for name in WEIGHTS}
    threshold = sae.threshold.float().expand(sae.config.d_sae)
    write_text(paths[0], json.dumps(config, indent=1))
    write_tensors(paths[1], weights | {"threshold": threshold})
    return paths


def from_file(path: str | Path) -> MatryoshkaSAE:
    """Reads a checkpoint of another library: an autoencoder on the CPU, for inference, with float32 weights.

    It reads `BatchTopKSAE` (which has one group) and `MatryoshkaBatchTopKSAE` of dictionary_learning (ae.pt), and
    `GlobalBatchTopKMatryoshkaSAE` of the reference implementation (sae.pt). The file holds tensors by name, saved as
    safetensors or by `torch.save`; nothing but tensors is unpickled. `k` (or `top_k`) and `group_sizes` are read from
    config.json in the same folder where the tensors do not include them.

    Raises RaigenError for a file that is missing or broken, tensors of another kind of autoencoder, numbers that are
    not finite, a threshold that was never set, an autoencoder that rescales each token (`input_unit_norm`), and
    settings that are missing or do not fit.
    """
    path = Path(path)
    tensors, settings = _tensors(path), _settings(path.parent / "config.json")
    tensors = {name.removeprefix("_orig_mod.").removeprefix("module."): value for name, value in tensors.items()}
    if "encoder.weight" in tensors:
        settings = settings | {"group_sizes": [tensors["encoder.weight"].shape[0]]}
    tensors = {LINEAR_LAYERS.get(name, name): value.T if name.endswith("coder.weight") else value
               for name, value in tensors.items()}  # fmt: skip
    if settings.get("input_unit_norm"):
        raise RaigenError(
            f"{path}: expected an autoencoder of plain tokens; its config.json has input_unit_norm, which rescales each"
        )
    return _autoencoder(path, tensors, settings)


def from_saelens(dir: str | Path) -> MatryoshkaSAE:
    """Reads a BatchTopK autoencoder of SAELens 6, Matryoshka or not: what its `save_model` or `save_inference_model`
    wrote, or `to_saelens`. It gives an autoencoder on the CPU, for inference, with the same codes and reconstructions.

    Raises RaigenError as `from_file` does, for other architectures, for thresholds that differ between neurons, and for
    inputs that are normalized or reshaped, because here codes are of plain tokens with one threshold.
    """
    path, place = Path(dir) / "sae_weights.safetensors", Path(dir) / "cfg.json"
    tensors, config = _tensors(path), object_of(place)
    with shaped(place, "what SAELens 6 writes", "Save it again with SAELens"):
        about = config.get("metadata") or {}
        settings = {**about, **(about.get("training_architecture_details") or {}), **config}
        kind = settings.get("architecture")
        if kind not in SAELENS_KINDS:
            raise RaigenError(f"{path}: expected the architecture {', '.join(SAELENS_KINDS)}; got {kind!r}")
        for name in ("normalize_activations", "reshape_activations"):
            if settings.get(name, "none") != "none":
                raise RaigenError(f"{path}: expected {name} none; got {settings[name]!r}. Fold it into the weights "
                                  "with SAELens first")  # fmt: skip
        if all(name in tensors for name in WEIGHTS):
            tensors = _plain(tensors, kind != "jumprelu" and settings.get("rescale_acts_by_decoder_norm", False),
                             settings.get("apply_b_dec_to_input", True))  # fmt: skip
            widths = settings.get("matryoshka_widths") or [len(tensors["b_enc"])]
            sizes = [end - start for start, end in zip([0, *widths[:-1]], widths, strict=True)]
            settings = {"group_sizes": sizes, **settings}
        if "k" in settings:
            settings["k"] = max(1, round(settings["k"]))  # theirs may be a fraction
    return _autoencoder(path, tensors, settings)


def _plain(tensors: dict[str, Tensor], has_scaled_codes: bool, has_centered_input: bool) -> dict[str, Tensor]:
    """The weights of SAELens as ours: decoder rows that codes do not rescale, b_dec taken off the input, and one
    threshold, where all are equal."""
    threshold = tensors.pop("topk_threshold", tensors.get("threshold", torch.zeros(0))).reshape(-1)
    if len(threshold) and bool((threshold == threshold[0]).all()):
        threshold = threshold[:1]
    if has_scaled_codes:
        norm = tensors["W_dec"].norm(dim=1)
        tensors |= {name: tensors[name] * norm for name in ("W_enc", "b_enc")}
        tensors["W_dec"] = tensors["W_dec"] / norm[:, None]
    if not has_centered_input:
        tensors["b_enc"] = tensors["b_enc"] + tensors["b_dec"] @ tensors["W_enc"]
    return tensors | {"threshold": threshold}


def _autoencoder(path: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> MatryoshkaSAE:
    """An autoencoder of these weights and one threshold; the file at `path` is named in errors."""
    missing = [name for name in (*WEIGHTS, "threshold") if name not in tensors]
    if missing or tensors["threshold"].numel() != 1:
        raise RaigenError(
            f"{path}: expected W_enc, W_dec, b_enc, b_dec (or encoder and decoder layers) and one threshold, as in a "
            f"BatchTopK autoencoder; got {', '.join(sorted(tensors)) or 'no tensors'}"
        )
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise RaigenError(
            f"{path}: expected finite numbers; some of {broken[0]} are not finite. Its training broke down"
        )
    if not tensors["threshold"].item() > 0:
        raise RaigenError(f"{path}: expected a threshold above 0; got {tensors['threshold'].item():g}, so it was never "
                          "calibrated. Train it on until it has one")  # fmt: skip
    d_in, d_sae = tensors["W_enc"].shape
    sizes = _setting(path, "group_sizes", tensors, settings)
    try:
        sae = MatryoshkaSAE(SAEConfig(d_in, d_sae, tuple(sizes), _setting(path, "k", tensors, settings)))
        sae.load_state_dict({name: tensors[name].float() for name in WEIGHTS}
                            | {"threshold": tensors["threshold"].double().reshape(())})  # fmt: skip
    except (RaigenError, RuntimeError) as error:
        raise RaigenError(f"{path}: expected tensors and settings that fit each other; {error}") from error
    return sae.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RaigenError(f"{path}: expected a checkpoint, such as ae.pt, sae.pt or *.safetensors; {error}") from error
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise RaigenError(f"{path}: expected a file of tensors; it is broken, or holds more ({error})") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise RaigenError(f"{path}: expected tensors by name; got {type(found).__name__}. Save its state_dict() alone")
    return dict(found)


def _settings(path: Path) -> dict[str, Any]:
    """The settings of the training in config.json, flat; empty where there is no such file."""
    found = object_of(path) if path.is_file() else {}
    return found["trainer"] if isinstance(found.get("trainer"), dict) else found


def _setting(path: Path, name: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Any:
    """`k` or `group_sizes`, from the tensors or from config.json, where a list may be written as text."""
    if name in tensors:
        return tensors[name].tolist()
    other = {"k": "top_k"}.get(name, name)
    value = settings.get(name, settings.get(other))
    if value is None:
        raise RaigenError(
            f"{path}: expected {name} in config.json in the same folder, because the tensors do not include it; found "
            f"{', '.join(settings) or 'none'}"
        )
    return parsed(value, f"{name} in {path.parent / 'config.json'}") if isinstance(value, str) else value
