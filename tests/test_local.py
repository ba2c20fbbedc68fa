"""A local image-text-to-text model is asked in this process: a tiny real one, taught two answers in code."""

import pytest
import torch
from PIL import Image
from tiny import PIXELS, WIDTH
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

from raigen.address import address_of
from raigen.answers import Answers
from raigen.config import AskConfig
from raigen.errors import RaigenError
from raigen.local import Local
from raigen.questions import Question, read_presence
from raigen.vlm import Job, ask_all

RED, BLUE = Image.new("RGB", (20, 20), (230, 20, 20)), Image.new("RGB", (20, 20), (20, 20, 230))
ANSWERS = {"yes": '{"answer": "yes"}', "no": '{"answer": "no"}'}
QUESTION = Question("Red?", {"properties": {"answer": {}}}, 20)
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


def taught(model: LlavaForConditionalGeneration, tools: LlavaProcessor) -> LlavaForConditionalGeneration:
    """The model after some steps on the two answers, one for each color."""
    examples = []
    for image, verdict in ((RED, "yes"), (BLUE, "no")):
        examples.append(tools(images=[image], text=f"<image>Red?>{ANSWERS[verdict]}<eos>", return_tensors="pt"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = sum(model(**example, labels=example["input_ids"]).loss for example in examples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.1:
            break
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tools = processor()
    folder = tmp_path_factory.mktemp("models") / "llava"
    taught(llava(tools), tools).save_pretrained(folder)
    tools.save_pretrained(folder)
    return folder


def test_it_says_what_it_was_taught(folder, tmp_path):
    address = address_of(f"transformers:{folder}")
    jobs = [Job((RED,), QUESTION, "red"), Job((BLUE,), QUESTION, "blue")]
    results = {r.tag: r.reply for r in ask_all(address, jobs, Answers(tmp_path / "answers.jsonl"), AskConfig())}
    assert {tag: reply.text for tag, reply in results.items()} == {"red": ANSWERS["yes"], "blue": ANSWERS["no"]}
    assert [read_presence(reply.text) for reply in results.values()] == ["yes", "no"]
    assert results["red"].yes_share > 0.8 and results["blue"].yes_share < 0.2
    assert results["red"].rung == "text" and results["red"].tokens_out == len(ANSWERS["yes"]) + 1
    assert address.name == f"{folder} at this machine"


def test_random_weights_give_no_verdict(tmp_path):
    tools = processor()
    llava(tools).save_pretrained(tmp_path)
    tools.save_pretrained(tmp_path)
    reply = Local(address_of(f"transformers:{tmp_path}")).ask([RED, BLUE], QUESTION)
    assert read_presence(reply.text) is None and 1 <= reply.tokens_out <= 20


def test_a_model_that_cannot_be_asked_is_told(tmp_path):
    with pytest.raises(RaigenError, match="transformers:nowhere: expected an image-text-to-text model"):
        Local(address_of("transformers:nowhere"))
    tools = processor(None)
    llava(tools).save_pretrained(tmp_path)
    tools.save_pretrained(tmp_path)
    with pytest.raises(RaigenError, match="expected a chat model; it has no chat template"):
        Local(address_of(f"transformers:{tmp_path}"))
