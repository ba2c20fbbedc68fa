"""Asks an image-text-to-text model in this process, through transformers."""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from raigen.config import ModelAddress, in_a_line
from raigen.diffusion.loading import explained
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Gate, NoReplyError, Reply, whole
from raigen.judging.vlm.questions import Question, Token, yes_share
from raigen.runs.device import resolve_device
from raigen.runs.pixels import sized

N_ALTERNATIVES = 5


class Local:
    """A model from a folder or the Hub, on `device` (`auto`, `cpu`, `cuda` or `cuda:N`). It answers one question at a
    time.

    Raises RaigenError when the model cannot be loaded, does not fit on the device, or has no chat template.
    """

    def __init__(self, address: ModelAddress, device: str = "auto"):
        self.device = resolve_device(device)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        expected = "expected an image-text-to-text model in a folder or on the Hub"
        with explained(f"transformers:{address.model}: {expected}; it cannot be loaded on {self.device}"):
            self.processor: Any = AutoProcessor.from_pretrained(address.model)
            model: Any = AutoModelForImageTextToText.from_pretrained(address.model, dtype=dtype)
            self.model = model.to(self.device).eval()
        if getattr(self.processor, "chat_template", None) is None:
            raise RaigenError(
                f"transformers:{address.model}: expected a chat model; it has no chat template. Choose one that was "
                "tuned on instructions (often with -Instruct in its name)"
            )
        ends = self.model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._lock = threading.Lock()

    def ask(self, images: Sequence[Image.Image], question: Question, gate: Gate | None = None) -> Reply:
        """The reply by greedy decoding. Raises NoReplyError when the model cannot take the question or the images do
        not fit into memory, and CutError when the answer is not whole."""
        gate = gate or Gate()
        content = [*({"type": "image", "image": sized(image)} for image in images)]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": question.text}]}]
        with self._lock, torch.inference_mode():
            gate.request()
            try:
                inputs = self.processor.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
                ).to(self.device)
                out = self.model.generate(
                    **inputs, max_new_tokens=question.max_tokens, do_sample=False, output_logits=True,
                    return_dict_in_generate=True,
                )  # fmt: skip
            except (RuntimeError, ValueError, IndexError, TypeError, KeyError, TemplateError) as error:  # too long, say
                raise NoReplyError(in_a_line(f"{type(error).__name__}: {error}")[:300]) from error
        n_prompt = inputs["input_ids"].shape[1]
        ids = out.sequences[0, n_prompt:].tolist()
        gate.budget.spend_tokens(n_prompt, len(ids))
        is_cut = len(ids) >= question.max_tokens and ids[-1] not in self._ends
        text = whole(self.processor.decode(ids, skip_special_tokens=True), is_cut, question.max_tokens)
        return Reply(text, yes_share(self._tokens(ids, out.logits)), "text", n_prompt, len(ids))

    def _tokens(self, ids: Sequence[int], logits: Sequence[torch.Tensor]) -> list[Token]:
        tokens = []
        for index, row in zip(ids, logits, strict=True):
            best = row[0].float().log_softmax(-1).topk(min(N_ALTERNATIVES, row.shape[-1]))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            alternatives = tuple((self.processor.decode([other]), value) for other, value in pairs)
            tokens.append(Token(self.processor.decode([index]), alternatives))
        return tokens
