"""Writes the trained parts to folders: a StableDiffusionPipeline, a CLIPModel with its processor, the judge."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ConfigMixin, StableDiffusionPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPProcessor, CLIPTokenizer

from raigen.config import PORTRAITS
from raigen.world.models import OWN_SETTINGS
from raigen.world.train import clip, unet

DEFAULTS = {"num_inference_steps": 10, "guidance_scale": 1.0}


def write_bundle(work: Path, folder: Path, tokenizer: CLIPTokenizer) -> None:
    """Saves the averaged weights of `work` in `folder`, at half precision, and replaces what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    pipe = pipeline(work, tokenizer)
    shutil.rmtree(folder / "pipeline", ignore_errors=True)
    save_pipeline(pipe, folder / "pipeline")
    if (work / "clip.safetensors").exists():
        save_clip(clip.Teacher(tokenizer), work, folder / "clip", tokenizer)
    if (work / "judge.safetensors").exists():
        weights = averaged(work / "judge.safetensors")
        save_file({name: tensor.half().contiguous() for name, tensor in weights.items()}, folder / "judge.safetensors")


def save_clip(teacher: clip.Teacher, work: Path, folder: Path, tokenizer: CLIPTokenizer) -> None:
    """Saves the averaged weights of the trained CLIP in `folder` as transformers reads it, at half precision."""
    teacher.load_state_dict(averaged(work / "clip.safetensors"))
    shutil.rmtree(folder, ignore_errors=True)
    teacher.clip.half().save_pretrained(folder)
    processor(tokenizer).save_pretrained(folder)
    _load_at_full_precision(folder / "config.json")


def save_pipeline(pipe: DiffusionPipeline, folder: Path, world: str = PORTRAITS) -> None:
    """Saves a pipeline in `folder` as diffusers reads it, at half precision, with its settings and its world."""
    for part in pipe.components.values():
        if isinstance(part, ConfigMixin):
            part.register_to_config(_name_or_path="")  # not the folder of whoever made it
    pipe.to(torch.float16).save_pretrained(folder)
    (folder / OWN_SETTINGS).write_text(json.dumps(DEFAULTS | {"world": world}, indent=1) + "\n", encoding="utf-8")
    _load_at_full_precision(folder / "text_encoder" / "config.json")


def _load_at_full_precision(config: Path) -> None:
    """Sets the precision of computation to float32. Files in half precision save space, but transformers would also
    compute in it, which is slow and inexact on a CPU."""
    if config.exists():
        text = config.read_text(encoding="utf-8").replace('"dtype": "float16"', '"dtype": "float32"')
        config.write_text(text, encoding="utf-8")


def pipeline(work: Path, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The trained parts as one diffusers pipeline at full precision."""
    model = unet.Denoiser(tokenizer)
    model.load_state_dict(averaged(work / "unet.safetensors"))
    return assembled(model, tokenizer, AutoencoderKL.from_pretrained(work / "vae"))


def assembled(model: unet.Denoiser, tokenizer: CLIPTokenizer, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """The parts as one pipeline."""
    return StableDiffusionPipeline(
        vae=vae, text_encoder=model.text_encoder, tokenizer=tokenizer, unet=model.unet, scheduler=unet.sampler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,  # type: ignore
    )  # fmt: skip


def processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """Converts images to 64x64 in [-1, 1], and texts to tokens."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64},
        image_mean=list(clip.MEAN), image_std=list(clip.STD),
    )  # fmt: skip
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def averaged(checkpoint: Path) -> dict[str, Tensor]:
    """The averaged weights of a training checkpoint."""
    tensors = load_file(checkpoint)
    return {name.removeprefix("average."): value for name, value in tensors.items() if name.startswith("average.")}
