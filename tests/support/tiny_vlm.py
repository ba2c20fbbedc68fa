"""A tiny vision-language model, made in code: with random weights, or taught to tell red from blue."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from raigen.config import ModelAddress
from raigen.judging.vlm.answers import Reply
from raigen.judging.vlm.questions import COLORS, Question, color_question
from tests.support.tiny import PIXELS, WIDTH

RED, BLUE = Image.new("RGB", (20, 20), (230, 20, 20)), Image.new("RGB", (20, 20), (20, 20, 230))
ANSWERS = {"yes": '{"answer": "yes"}', "no": '{"answer": "no"}'}
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def processor(template: str | None = TEMPLATE) -> LlavaProcessor:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token="<eos>", pad_token="<pad>", extra_special_tokens=["<image>"]
    )
    size = {"height": PIXELS, "width": PIXELS}
    return LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": PIXELS}, crop_size=size), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template,
    )  # fmt: skip


def llava(tools: LlavaProcessor) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH, num_hidden_layers=1,
        num_attention_heads=2, image_size=PIXELS, patch_size=8,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tools.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=512, pad_token_id=tools.tokenizer.pad_token_id,
        eos_token_id=tools.tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=-1, image_seq_length=4,
        image_token_id=tools.tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def taught(
    model: LlavaForConditionalGeneration, tools: LlavaProcessor, question: Question
) -> LlavaForConditionalGeneration:
    """The model after some steps on the two answers to the question, one for each color, and on the names of the
    colors, which every model is asked for first."""
    examples = []
    lessons = [(question, RED, ANSWERS["yes"]), (question, BLUE, ANSWERS["no"])]
    lessons += [(color_question(), Image.new("RGB", (20, 20), rgb), json.dumps({"color": color}))
                for color, rgb in COLORS.items()]  # fmt: skip
    for each, image, answer in lessons:
        asked = f"<image>{each.text}>"
        n_asked = tools(images=[image], text=asked, return_tensors="pt")["input_ids"].shape[1]
        example = tools(images=[image], text=f"{asked}{answer}<eos>", return_tensors="pt")
        labels = example["input_ids"].clone()
        labels[:, :n_asked] = -100  # what is asked need not be learned
        examples.append({**example, "labels": labels})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        loss = sum(model(**example).loss for example in examples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.1:
            break
    return model.eval()


def save_model(folder: Path, question: Question | None = None, template: str | None = TEMPLATE) -> Path:
    """Saves a model into `folder`: one that was taught the answers to `question`, or one of random weights."""
    tools = processor(template)
    model = llava(tools)
    (taught(model, tools, question) if question else model).save_pretrained(folder)
    tools.save_pretrained(folder)
    return folder


def devices_asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that models of transformers are opened on from here on. A stand-in tells colors, and else says no."""
    devices: list[str] = []

    class StandIn:
        def __init__(self, address: ModelAddress, device: str = "auto"):
            devices.append(device)

        def ask(self, images, question, gate=None) -> Reply:
            if question.text != color_question().text:
                return Reply(ANSWERS["no"], None, "text", 1, 1)
            (name,) = (name for name, color in COLORS.items() if images[0].getpixel((0, 0)) == color)
            return Reply(json.dumps({"color": name}), None, "text", 1, 1)

    monkeypatch.setattr("raigen.judging.vlm.local.Local", StandIn)
    return devices
