"""Tiny real pipelines of many families, with random weights, and by hand where each puts the prompt's image tokens."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPAGPipeline,
    HunyuanDiTPipeline,
    KandinskyV22CombinedPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPAGPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PriorTransformer,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPAGPipeline,
    SanaPipeline,
    SanaTransformer2DModel,
    StableDiffusion3PAGPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionXLPAGPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.support.tiny import (
    MAX_TOKENS,
    WIDTH,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    text_config,
    tokenizer,
    vae,
)


class Family(NamedTuple):
    """A kind of pipeline: how to make one, and what its source says about its calls and its tokens.

    `conditional`: with guidance, which call of a step and which half of its rows saw the prompt (None: all rows).
    `is_text_first`: of concatenated tokens, whether those of the text come before those of the image.
    """

    make: Callable
    hookpoint: str
    conditional: tuple[int, int | None]
    output: int | None = None  # the place of the image tokens in a tuple
    is_text_first: bool = True
    square: tuple[int, int] = (32, 32)
    wide: tuple[int, int] = (32, 64)
    token: int = 4  # pixels of a token's side, in the images that the pipeline really makes
    spread: int = 0  # how many tokens further a place of the noise reaches: convolutions blur
    guided: dict = {}
    free: dict = {"guidance_scale": 1.0}


def t5(kind=T5EncoderModel, config=T5Config):
    return kind(config(
        vocab_size=600, d_model=WIDTH, d_kv=8, d_ff=2 * WIDTH, num_layers=1, num_heads=2,
        relative_attention_num_buckets=4, tie_word_embeddings=False,
    )).eval()  # fmt: skip


def gemma():
    return Gemma2Model(Gemma2Config(
        vocab_size=600, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )).eval()  # fmt: skip


def deep_vae(n_blocks: int, **more) -> AutoencoderKL:
    """Enlarges by 2 ** (n_blocks - 1)."""
    return AutoencoderKL(
        block_out_channels=(4,) * n_blocks, latent_channels=4, norm_num_groups=2, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * n_blocks, up_block_types=("UpDecoderBlock2D",) * n_blocks,
        mid_block_add_attention=False, **more,
    )  # fmt: skip


def flux(guidance_embeds=False):
    torch.manual_seed(0)
    tokens = tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=3, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(2, 2, 4),
        guidance_embeds=guidance_embeds,
    )  # fmt: skip
    return FluxPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(shift_factor=0.1),
        text_encoder=CLIPTextModel(text_config(tokens)), tokenizer=tokens, text_encoder_2=t5(), tokenizer_2=tokens,
    )  # fmt: skip


def pixart(kind):
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=32, num_layers=3, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, cross_attention_dim=WIDTH, caption_channels=WIDTH, use_additional_conditions=False,
    )  # fmt: skip
    return kind(
        transformer=transformer, scheduler=DPMSolverMultistepScheduler(), vae=deep_vae(4), text_encoder=t5(),
        tokenizer=tokenizer(),
    )  # fmt: skip


def sana():
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(
        sample_size=16, patch_size=1, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2,
        attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
    )  # fmt: skip
    blocks = ("ResBlock",) * 6
    decoder = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=(4,) * 6, decoder_block_out_channels=(4,) * 6, encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6, encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(1,) * 6,
        downsample_block_type="conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )  # fmt: skip
    return SanaPipeline(
        transformer=transformer, scheduler=DPMSolverMultistepScheduler(), vae=decoder, text_encoder=gemma(),
        tokenizer=tokenizer(),
    )  # fmt: skip


def aura_flow():
    torch.manual_seed(0)
    transformer = AuraFlowTransformer2DModel(
        sample_size=32, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=3, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=WIDTH, out_channels=4,
        pos_embed_max_size=256,
    )  # fmt: skip
    transformer.context_embedder.weight.data *= 30  # fresh, its first block hardly answers to the text
    return AuraFlowPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(),
        text_encoder=t5(UMT5EncoderModel, UMT5Config), tokenizer=tokenizer(),
    )  # fmt: skip


def lumina2():
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, hidden_size=24, num_layers=3, num_refiner_layers=1,
        num_attention_heads=1, num_kv_heads=1, multiple_of=8, axes_dim_rope=(8, 8, 8), axes_lens=(300, 64, 64),
        cap_feat_dim=WIDTH,
    )  # fmt: skip
    return Lumina2Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=deep_vae(4, shift_factor=0.1),
        text_encoder=gemma(), tokenizer=tokenizer(),
    )  # fmt: skip


def qwen_image():
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=1,
        joint_attention_dim=WIDTH, axes_dims_rope=(8, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    decoder = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 600, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 1, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH,
        },
        image_token_id=597, video_token_id=598, vision_start_token_id=595, vision_end_token_id=596,
    )  # fmt: skip
    return QwenImagePipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=decoder,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(), tokenizer=tokenizer(),
    )  # fmt: skip


def hunyuan_dit():
    torch.manual_seed(0)
    tokens = tokenizer()
    transformer = HunyuanDiT2DModel(
        sample_size=16, num_layers=4, patch_size=8, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        cross_attention_dim=WIDTH, cross_attention_dim_t5=WIDTH, pooled_projection_dim=16, hidden_size=WIDTH,
        activation_fn="gelu-approximate",
    )  # fmt: skip
    config = BertConfig(
        vocab_size=600, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=WIDTH
    )
    return HunyuanDiTPipeline(
        transformer=transformer, scheduler=DDPMScheduler(), vae=deep_vae(4), text_encoder=BertModel(config).eval(),
        tokenizer=tokens, text_encoder_2=t5(), tokenizer_2=tokens, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def z_image():
    """Its denoiser takes a list of images, those with the prompt first."""
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=WIDTH, n_layers=3, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 2, 2], axes_lens=[600, 64, 64],
    )  # fmt: skip
    encoder = Qwen3Model(Qwen3Config(
        vocab_size=600, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )).eval()  # fmt: skip
    tokens = tokenizer()
    tokens.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    return ZImagePipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=deep_vae(4, shift_factor=0.1),
        text_encoder=encoder, tokenizer=tokens,
    )  # fmt: skip


def kandinsky():
    """Its U-Net sees no text, but an embedding that another denoiser made of the prompt."""
    torch.manual_seed(0)
    tokens = tokenizer()
    unet = UNet2DConditionModel(
        in_channels=4, out_channels=8, addition_embed_type="image", encoder_hid_dim_type="image_proj",
        encoder_hid_dim=WIDTH, cross_attention_dim=WIDTH, attention_head_dim=4, block_out_channels=(8, WIDTH),
        layers_per_block=1, norm_num_groups=4, resnet_time_scale_shift="scale_shift",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    )  # fmt: skip
    movq = VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, norm_type="spatial",
        num_vq_embeddings=12, vq_embed_dim=4,
    )  # fmt: skip
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=WIDTH, num_layers=1, num_embeddings=MAX_TOKENS,
    )  # fmt: skip
    prior.clip_std.data.fill_(1)  # fresh, it makes the same of every prompt
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, projection_dim=WIDTH, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8,
    )  # fmt: skip
    return KandinskyV22CombinedPipeline(
        unet=unet, scheduler=DDPMScheduler(), movq=movq, prior_prior=prior, prior_image_processor=None,
        prior_image_encoder=CLIPVisionModelWithProjection(vision).eval(), prior_tokenizer=tokens,
        prior_text_encoder=CLIPTextModelWithProjection(text_config(tokens)).eval(),
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
    )  # fmt: skip


def perturbed(make, kind, layers, **more):
    """The same parts in a pipeline with perturbed-attention guidance."""
    taken = inspect.signature(kind).parameters
    parts = {name: part for name, part in make().components.items() if name in taken and name != "image_encoder"}
    return kind(**parts, **more, pag_applied_layers=layers)


SECOND_HALF, FIRST_CALL = (0, 1), (0, None)
FAMILIES = {
    "sd": Family(stable_diffusion, "unet.mid_block", SECOND_HALF, spread=1),
    "sdxl": Family(stable_diffusion_xl, "unet.mid_block", SECOND_HALF, spread=1),
    "sd3": Family(stable_diffusion_3, "transformer.transformer_blocks.1", SECOND_HALF, output=1,
                  square=(16, 16), wide=(8, 16)),
    "flux-schnell": Family(flux, "transformer.transformer_blocks.1", FIRST_CALL, output=1, free={}),
    "flux-single": Family(lambda: flux(True), "transformer.single_transformer_blocks.1", FIRST_CALL, output=1, free={}),
    "flux-true-cfg": Family(flux, "transformer.transformer_blocks.1", FIRST_CALL, output=1, free={},
                            guided={"negative_prompt": "blurry", "true_cfg_scale": 3.0}),
    "pixart-alpha": Family(lambda: pixart(PixArtAlphaPipeline), "transformer.transformer_blocks.1", SECOND_HALF,
                           token=16, square=(64, 64), wide=(64, 128)),
    "pixart-sigma": Family(lambda: pixart(PixArtSigmaPipeline), "transformer.transformer_blocks.1", SECOND_HALF,
                           token=16, square=(64, 64), wide=(64, 128)),
    "sana": Family(sana, "transformer.transformer_blocks.1", SECOND_HALF, token=32, square=(64, 64), wide=(128, 256)),
    "aura-flow": Family(aura_flow, "transformer.single_transformer_blocks.1", SECOND_HALF),
    "aura-flow-joint": Family(aura_flow, "transformer.joint_transformer_blocks.0", SECOND_HALF, output=1),
    "lumina2": Family(lumina2, "transformer.layers.1", FIRST_CALL, token=16, square=(64, 64), wide=(64, 128)),
    "qwen-image": Family(qwen_image, "transformer.transformer_blocks.1", FIRST_CALL, output=1, token=16,
                         square=(64, 64), wide=(64, 128), guided={"negative_prompt": " "}, free={}),
    "hunyuan-dit": Family(hunyuan_dit, "transformer.blocks.2", SECOND_HALF, token=64, square=(256, 256),
                          wide=(192, 320)),
    "z-image": Family(z_image, "transformer.layers.1", (0, 0), is_text_first=False, token=16, square=(64, 64),
                      wide=(64, 128), free={"guidance_scale": 0.0}),
    "kandinsky": Family(kandinsky, "unet.mid_block", SECOND_HALF, spread=1),
}  # fmt: skip

# With perturbed-attention guidance: the name of the plain family, how to make the pipeline, other hookpoints to try.
PERTURBED = {
    "sd": (lambda: perturbed(stable_diffusion, StableDiffusionPAGPipeline, "mid", requires_safety_checker=False),
           ("unet.mid_block", "unet.down_blocks.1", "unet.up_blocks.0")),
    "sdxl": (lambda: perturbed(stable_diffusion_xl, StableDiffusionXLPAGPipeline, "mid", add_watermarker=False),
             ("unet.mid_block", "unet.up_blocks.0")),
    "sd3": (lambda: perturbed(stable_diffusion_3, StableDiffusion3PAGPipeline, "blocks.1"),
            ("transformer.transformer_blocks.1", "transformer.transformer_blocks.0")),
    "pixart-sigma": (lambda: perturbed(lambda: pixart(PixArtSigmaPipeline), PixArtSigmaPAGPipeline, "blocks.1"),
                     ("transformer.transformer_blocks.1", "transformer.transformer_blocks.0")),
    "sana": (lambda: perturbed(sana, SanaPAGPipeline, "transformer_blocks.0"),
             ("transformer.transformer_blocks.1",)),
    "hunyuan-dit": (lambda: perturbed(hunyuan_dit, HunyuanDiTPAGPipeline, "blocks.1", requires_safety_checker=False),
                    ("transformer.blocks.2",)),
}  # fmt: skip
