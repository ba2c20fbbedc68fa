"""Makes the tokenizer of the planted world: CLIP's byte-level BPE with merges learned from captions."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTokenizer

from raigen.config import PORTRAITS
from raigen.world.captions import caption
from raigen.world.worlds import WORLDS, World

MAX_TOKENS = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def corpus(world: World = WORLDS[PORTRAITS]) -> list[str]:
    """4,000 captions of balanced images, all phrases and all prompts, from which tokenizers are made."""
    rng = np.random.default_rng(7)
    captions = [caption(world.sample_balanced(rng), rng, bare=0.1, world=world) for _ in range(4000)]
    return captions + [value.phrase for value in world.values] + list(world.prompts)


def make_tokenizer(folder: Path, world: World = WORLDS[PORTRAITS]) -> CLIPTokenizer:
    """Learns the merges on 4,000 captions and saves vocab.json and merges.txt in `folder`."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2048, min_frequency=2, end_of_word_suffix="</w>", show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(corpus(world), trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS)
    result.save_pretrained(folder)
    return result


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """A text tower of two layers and width 128 for this tokenizer."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, projection_dim=128,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
