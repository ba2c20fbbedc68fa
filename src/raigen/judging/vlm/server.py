"""Asks a model behind the chat-completions protocol: OpenAI, vLLM, Ollama, llama.cpp, LM Studio."""

import base64
import io
import json
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from PIL import Image

from raigen.config import OPENAI_URL, ModelAddress
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import NoReplyError, Reply
from raigen.judging.vlm.questions import Question, Token, objects, yes_share
from raigen.runs.pixels import PIXEL_ART, sized

log = logging.getLogger(__name__)

LADDER = ("json_schema", "structured_outputs", "json_object", "text")  # ways to request JSON, strictest first
N_ALTERNATIVES = 5  # tokens whose probability is requested; some servers give no more
RETRIES = 4  # by the client, for one question: after Retry-After (up to 2 min), else 0.5 s to 8 s, doubling


class Server:
    """A model at a server, asked through the `openai` client, which waits and retries where that may help.

    The key comes from OPENAI_API_KEY for OpenAI and from RAIGEN_API_KEY for every other server, so that no server gets
    the key of another. Threads may share it. Raises RaigenError when the client is not installed, or OpenAI's key is
    missing.
    """

    def __init__(self, address: ModelAddress, timeout: float, retries: int = RETRIES):
        try:
            import openai
        except ImportError as error:
            raise RaigenError(
                f"{address.name}: expected the package openai; it is not installed. "
                "Install it with: pip install 'raigen[openai]'"
            ) from error
        self._variable = "OPENAI_API_KEY" if address.endpoint == OPENAI_URL else "RAIGEN_API_KEY"
        self._key = os.environ.get(self._variable, "")
        if not self._key and address.endpoint == OPENAI_URL:
            raise RaigenError(f"{address.name}: expected a key in the environment; type: export {self._variable}=...")
        self._openai, self._address = openai, address
        self._client = openai.OpenAI(
            base_url=address.endpoint, api_key=self._key or "none", timeout=timeout, max_retries=retries
        )
        self._rung: str | None = None  # the entry of LADDER that works; None until it is known
        self._refused: set[str] = set()  # parameters that this server does not take
        self._climbing = threading.Lock()
        self._over: RaigenError | None = None  # why this server will answer nothing more

    def ask(self, images: Sequence[Image.Image], question: Question) -> Reply:
        """The reply, in the strictest form that the server supports. Images come first, for its prefix cache.

        Raises NoReplyError when retries did not help or the server rejects this question, and RaigenError when it
        rejects the key or the model, or cannot be reached.
        """
        shown = [{"type": "image_url", "image_url": {"url": data_uri(image)}} for image in images]
        messages = [{"role": "user", "content": [*shown, {"type": "text", "text": question.text}]}]
        if self._rung is None:
            with self._climbing:  # one question finds the form that works; the others wait
                if self._over:
                    raise self._over
                if self._rung is None:
                    return self._climb(messages, question)
        try:
            return self._reply(messages, question, self._rung)
        except self._refusals as error:
            raise NoReplyError(self._said(error)) from error

    def _climb(self, messages: list[dict[str, Any]], question: Question) -> Reply:
        """Tries one form after the other until JSON comes back, and remembers the form."""
        for rung in LADDER[:-1]:
            try:
                reply = self._reply(messages, question, rung)
            except self._refusals as error:
                log.info("%s does not take %s: %s", self._address.name, rung, self._said(error))
                continue
            if not reply.text:  # a refusal to answer this question says nothing about the form
                return reply
            if any(objects(reply.text)):
                return self._settled(reply)
            log.info("%s takes %s but answers without JSON", self._address.name, rung)
        try:
            return self._settled(self._reply(messages, question, LADDER[-1]))
        except self._refusals as error:
            raise NoReplyError(self._said(error)) from error

    def _settled(self, reply: Reply) -> Reply:
        log.info("%s is asked with %s from here on", self._address.name, reply.rung)
        self._rung = reply.rung
        return reply

    def _reply(self, messages: list[dict[str, Any]], question: Question, rung: str) -> Reply:
        """One answer; parameters that the server rejects by name are left out of the next try."""
        openai = self._openai
        while True:
            try:
                more = _form(question, rung, frozenset(self._refused))
                completion = self._client.chat.completions.create(
                    model=self._address.model,
                    messages=messages,  # type: ignore[arg-type]
                    **more,
                )
                return reply_of(completion, rung)
            except self._refusals as error:
                named = {name for name in ("temperature", "max_tokens", "logprobs") if name in words_of(error)}
                if named <= self._refused:
                    raise
                log.info("%s does not take %s", self._address.name, ", ".join(sorted(named - self._refused)))
                self._refused |= named
            except (openai.OpenAIError, json.JSONDecodeError) as error:
                self._fail_for_good(error)
                raise NoReplyError(self._said(error)) from error

    @property
    def _refusals(self) -> tuple[type[Exception], ...]:
        return (self._openai.BadRequestError, self._openai.UnprocessableEntityError)

    def _fail_for_good(self, error: Exception) -> None:
        """Raises RaigenError for an error that every later question would meet, too, and remembers it for them."""
        openai, address = self._openai, self._address
        refused = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
        if isinstance(error, refused) or getattr(error, "code", None) == "insufficient_quota":
            self._over = RaigenError(
                f"{address.name}: expected {address.endpoint} to take the model {address.model!r} and the key in "
                f"{self._variable} ({'set' if self._key else 'not set'}); it says: {self._said(error)}"
            )
        elif isinstance(error, openai.APIConnectionError) and self._rung is None:
            self._over = RaigenError(
                f"{address.name}: expected a server at {address.endpoint}; {self._said(error)}. Start it, or correct "
                "the URL"
            )
        if self._over:
            raise self._over from error

    def _said(self, error: Exception) -> str:
        """The message of an error in one line, without the key, which some servers repeat."""
        words = " ".join(f"{type(error).__name__}: {words_of(error)}".split())
        return (words.replace(self._key, "***") if self._key else words)[:300]


def data_uri(image: Image.Image) -> str:
    """The image as a data URI: pixel art as PNG, all else as JPEG, which every server reads."""
    buffer, shown = io.BytesIO(), sized(image)
    kind = "png" if max(image.size) <= PIXEL_ART else "jpeg"
    shown.save(buffer, kind, **({"quality": 92} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def words_of(error: Exception) -> str:
    """The message of an error, with the `detail` that FastAPI gives and the client leaves out.

    From pydantic's complaints only place and reason are taken: their `input` would name every parameter.
    """
    body = getattr(error, "body", None)
    detail = body.get("detail") if isinstance(body, dict) else body
    if isinstance(detail, list):
        complaints = [entry for entry in detail if isinstance(entry, dict)]
        detail = "; ".join(f"{entry.get('loc', '')} {entry.get('msg', '')}" for entry in complaints)
    return f"{error} - {detail}" if isinstance(detail, str) and detail else str(error)


def reply_of(completion: Any, rung: str) -> Reply:
    """The reply in a chat completion. Raises NoReplyError for anything else: servers and proxies answer all sorts.

    A refusal is a reply without a text: it was paid for, and asking again would not change it.
    """
    try:
        choice, usage = completion.choices[0], completion.usage
        text, scored = choice.message.content or "", getattr(choice.logprobs, "content", None) or []
        tokens = [Token(t.token, tuple((a.token, a.logprob) for a in t.top_logprobs or ())) for t in scored]
        counts = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise NoReplyError(f"expected a chat completion; got {str(completion)[:100]!r}") from error
    if not isinstance(text, str):
        raise NoReplyError(f"expected a text in the message; got {str(text)[:100]!r}")
    return Reply(text, yes_share(tokens) if tokens else None, rung, *counts)


def _form(question: Question, rung: str, refused: frozenset[str]) -> dict[str, Any]:
    """The parameters that request the form of an answer, without those that the server rejects."""
    schema = {"name": "answer", "strict": True, "schema": question.schema}
    form: dict[str, Any] = {
        "json_schema": {"response_format": {"type": "json_schema", "json_schema": schema}},
        "structured_outputs": {"extra_body": {"structured_outputs": {"json": question.schema}}},  # vLLM's own
        "json_object": {"response_format": {"type": "json_object"}},
        "text": {},
    }[rung]
    # OpenAI's reasoning models take the newer name only, most other servers the older.
    form["max_completion_tokens" if "max_tokens" in refused else "max_tokens"] = question.max_tokens
    if "temperature" not in refused:
        form["temperature"] = 0
    if "logprobs" not in refused and "answer" in question.schema["properties"]:
        form |= {"logprobs": True, "top_logprobs": N_ALTERNATIVES}
    return form
