"""Builds tiny real models with random weights: pipelines and CLIP in a second, no download."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTImageProcessorPil,
)

WIDTH = 16  # of every tower and of the U-Net's middle
LATENT = 8  # rows and columns
PIXELS = 16
GRID = (4, 4)  # of the middle of the U-Net
MAX_TOKENS = 24


def tokenizer(longest: int = MAX_TOKENS) -> CLIPTokenizer:
    """CLIP's tokenizer without merges: every letter is a token."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({word: index for index, word in enumerate(words)}, [], model_max_length=longest)


def text_config(tokens: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=tokens.model_max_length,
        bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip


def vae(**more) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=PIXELS,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **more,
    )  # fmt: skip


def unet(**more) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT, block_out_channels=(8, WIDTH), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **{"cross_attention_dim": WIDTH, **more},
    )  # fmt: skip


def stable_diffusion() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokens = tokenizer()
    return StableDiffusionPipeline(
        vae=vae(), text_encoder=CLIPTextModel(text_config(tokens)), tokenizer=tokens, unet=unet(),
        scheduler=DPMSolverMultistepScheduler(steps_offset=1), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    tokens = tokenizer()
    config = text_config(tokens)
    time_width = 8  # six numbers about the image's size are embedded with this width each
    return StableDiffusionXLPipeline(
        vae=vae(), text_encoder=CLIPTextModel(config), text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokens, tokenizer_2=tokens, scheduler=EulerDiscreteScheduler(), add_watermarker=False,
        unet=unet(
            cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=time_width,
            projection_class_embeddings_input_dim=6 * time_width + WIDTH,
        ),
    )  # fmt: skip


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """A transformer of joint blocks, without its third text encoder."""
    torch.manual_seed(0)
    tokens = tokenizer()
    config = text_config(tokens)
    transformer = SD3Transformer2DModel(
        sample_size=LATENT, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
        num_attention_heads=2, caption_projection_dim=WIDTH, joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=LATENT,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(shift_factor=0.1),
        text_encoder=CLIPTextModelWithProjection(config), text_encoder_2=CLIPTextModelWithProjection(config),
        text_encoder_3=None, tokenizer=tokens, tokenizer_2=tokens, tokenizer_3=None,
    )  # fmt: skip


def save_clip(folder: Path) -> None:
    """A CLIPModel with its tokenizer and its image processor."""
    torch.manual_seed(0)
    tokens = tokenizer(77)  # as published: room for a prompt and a name, letter by letter
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH, num_hidden_layers=1,
        num_attention_heads=2, image_size=PIXELS, patch_size=8,
    )  # fmt: skip
    config = CLIPConfig(text_config=text_config(tokens).to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    CLIPModel(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    size = {"height": PIXELS, "width": PIXELS}
    CLIPImageProcessorPil(size={"shortest_edge": PIXELS}, crop_size=size).save_pretrained(folder)


def save_embedder(kind: str, folder: Path) -> None:
    """A SigLIP or a DINO model with what prepares its images, and its texts where it knows some."""
    torch.manual_seed(0)
    tower = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = tokenizer(30)
    words = {**tower, "vocab_size": len(tokens), "max_position_embeddings": 30, "projection_size": WIDTH,
             "pad_token_id": tokens.pad_token_id}  # fmt: skip
    whole, size = {**tower, "image_size": PIXELS, "patch_size": 8}, {"height": PIXELS, "width": PIXELS}
    if kind == "siglip":
        model: Any = SiglipModel(SiglipConfig(text_config=words, vision_config=whole))
        processor: Any = SiglipImageProcessorPil(size=size)
    elif kind == "siglip2":
        vision = {**tower, "patch_size": 8, "num_patches": 4}
        model = Siglip2Model(Siglip2Config(text_config=words, vision_config=vision))
        processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=4)
    elif kind == "dinov2":
        model = Dinov2Model(Dinov2Config(**whole))
        processor = BitImageProcessorPil(size={"shortest_edge": 20}, crop_size=size)
    else:
        model = DINOv3ViTModel(DINOv3ViTConfig(**whole))
        processor = ViTImageProcessorPil(size=size)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if kind == "dinov3_vit":  # as published: a processor that needs torchvision
        path = folder / "preprocessor_config.json"
        said = json.loads(path.read_text()) | {"image_processor_type": "DINOv3ViTImageProcessorFast"}
        path.write_text(json.dumps(said))
    if kind.startswith("siglip"):
        tokens.save_pretrained(folder)


def save_pipeline(pipe, folder: Path, **settings) -> None:
    """A pipeline folder, with a `raigen.json` when it has settings of its own."""
    pipe.save_pretrained(folder)
    if settings:
        (folder / "raigen.json").write_text(json.dumps(settings))


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory) -> Path:
    """A tiny StableDiffusionPipeline: 3 steps, guidance 2."""
    folder = tmp_path_factory.mktemp("models") / "sd"
    save_pipeline(stable_diffusion(), folder, num_inference_steps=3, guidance_scale=2.0)
    return folder


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory) -> Path:
    """A tiny StableDiffusionXLPipeline without a raigen.json."""
    folder = tmp_path_factory.mktemp("models") / "sdxl"
    save_pipeline(stable_diffusion_xl(), folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A tiny CLIPModel with its processor."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    save_clip(folder)
    return folder


def drained(stage):
    """The ticks of a stage that is run to its end, and its outcome."""
    ticks = []
    while True:
        try:
            ticks.append(next(stage))
        except StopIteration as stop:
            return ticks, stop.value
