"""Trains the CLIP model of a planted world, on images and captions that name some of their attributes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from raigen.config import PORTRAITS
from raigen.world.captions import caption
from raigen.world.train.data import Images, decode
from raigen.world.train.judge import disturbed, half_decoded
from raigen.world.train.text import text_config
from raigen.world.train.unet import tokens_of
from raigen.world.worlds import WORLDS, World

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Teacher(nn.Module):
    """CLIP and, for training only, heads that classify the attributes from the image embedding."""

    def __init__(self, tokenizer: CLIPTokenizer, world: World = WORLDS[PORTRAITS], layers: int = 4):
        super().__init__()
        vision = CLIPVisionConfig(
            hidden_size=128, intermediate_size=384, projection_dim=128, num_hidden_layers=layers,
            num_attention_heads=4, image_size=64, patch_size=8,
        )  # fmt: skip
        config = CLIPConfig(
            text_config=text_config(tokenizer).to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=128,
            logit_scale_init_value=2.6592,
        )
        self.clip = CLIPModel(config)
        sizes = {"profession": len(world.professions)} | {name: len(names) for name, names in world.choices.items()}
        self.heads = nn.ModuleDict({name: nn.Linear(128, size) for name, size in sizes.items()})


def loss_of(teacher: Teacher, tokenizer: CLIPTokenizer, drawn: Images, decoded, batch: int,
            generator: torch.Generator) -> Tensor:  # fmt: skip
    """CLIP's symmetric contrastive loss, plus `ranking_loss`, plus half the mean cross-entropy of the training heads.

    Captions name no attribute or one to four; images with the same caption do not count as negatives of each other.
    """
    pixels, codes = half_decoded(drawn, decoded, batch, generator)
    pixels = disturbed(pixels, generator)
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    world = drawn.world
    records = [decode(row, world) for row in codes.numpy()]
    single = [f"{world.prompts[rng.integers(len(world.prompts))]}, {value.phrase}" for value in world.values]
    texts = [caption(record, rng, bare=0.05, most=4, world=world) for record in records]
    ids = tokens_of(tokenizer, texts + single)
    output = teacher.clip(input_ids=ids, pixel_values=pixels)
    logits, target = output.logits_per_image[:, :batch], torch.arange(batch)
    same = (ids[:batch, None] == ids[None, :batch]).all(-1).fill_diagonal_(False)
    logits = logits.masked_fill(same, -1e4)
    contrast = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
    shown = torch.tensor([[name in record.shown() for name in world.value_names] for record in records])
    read = sum(
        F.cross_entropy(teacher.heads[name](output.image_embeds * 8), codes[:, column])
        for column, name in enumerate(teacher.heads)
    )
    return contrast + ranking_loss(output.logits_per_image[:, batch:], shown) + 0.5 * read / len(teacher.heads)


def ranking_loss(logits: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy of each true caption of an image against all false captions of that image.

    `logits` and `shown` are [image, caption]; returns the mean over all true pairs.
    """
    false = logits.masked_fill(shown, -1e4).logsumexp(1, keepdim=True)
    return F.softplus(false - logits)[shown].mean()
