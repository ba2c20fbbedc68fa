"""Asks a model behind the chat-completions protocol: OpenAI, vLLM, Ollama, llama.cpp, LM Studio."""

import base64
import io
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from PIL import Image

from raigen.config import OPENAI_URL, ModelAddress, in_a_line
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import CutError, Gate, NoReplyError, RefusedError, Reply, count_of, whole
from raigen.judging.vlm.connection import BrokenError, Connection, ProxyRefusedError, Response, SlowError
from raigen.judging.vlm.questions import Question, Token, objects, yes_share
from raigen.runs.pixels import PIXEL_ART, sized

log = logging.getLogger(__name__)

LADDER = ("json_schema", "structured_outputs", "json_object", "text")  # ways to request JSON, strictest first
PARAMETERS = ("temperature", "max_tokens", "logprobs")  # that a server may do without
FORMS = ("response_format", "json_schema", "structured_outputs", "json_object")
UNSUPPORTED = re.compile("support|allow|permit|unexpected|unknown|unrecogni|extra|valid|forbidden|must|implement", re.I)
N_ALTERNATIVES = 5  # tokens whose probability is requested; some servers give no more
RETRIES = 4  # for one question: after Retry-After, else 0.5 s to 8 s, doubling
LONGEST_WAIT = 120.0  # seconds; a server that wants a longer wait is not asked again
START = "Start it, or correct the URL"
SHORTEST_KEY = 8  # characters of what is masked; servers without keys get words such as "none"


class Server:
    """A model at a server. What may pass is waited for and retried.

    The key comes from OPENAI_API_KEY for OpenAI and from RAIGEN_API_KEY for every other server, so that no server gets
    the key of another. `rung` is the entry of LADDER that worked before, None to find it. Threads may share it. Raises
    RaigenError when OpenAI's key is missing, or a key cannot be sent, or the environment's proxy cannot be used.
    """

    def __init__(self, address: ModelAddress, timeout: float, rung: str | None = None, retries: int = RETRIES):
        variable = "OPENAI_API_KEY" if address.endpoint == OPENAI_URL else "RAIGEN_API_KEY"
        self._key = os.environ.get(variable, "").strip()
        if not self._key and address.endpoint == OPENAI_URL:
            raise RaigenError(f"{address.name}: expected a key in the environment; type: export {variable}=...")
        if not (self._key.isascii() and (self._key + "x").isprintable()):
            raise RaigenError(f"{address.name}: expected a key of plain letters in {variable}; it has other characters")
        self._variable, self._address, self._retries = variable, address, retries
        self._connection = Connection(address.endpoint, timeout)
        proxy = self._connection.proxy
        self._through, self._remedy = (f" through {proxy}", f". {proxy.remedy}") if proxy else ("", "")
        self._via = self._through if self._connection.is_in_clear else ""  # an answer may then be the proxy's own
        secrets = (self._key, *(proxy.secrets if proxy else ()))
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_KEY]
        self._rung = rung if rung in LADDER else None
        self._refused: frozenset[str] = frozenset()  # parameters that this server does not take
        self._has_answered, self._answered_before = False, rung is not None
        self._climbing = threading.Lock()
        self._over: RaigenError | None = None  # why this server will answer nothing more

    def ask(self, images: Sequence[Image.Image], question: Question, gate: Gate | None = None) -> Reply:
        """The reply, in the strictest form that the server supports. Images come first, for its prefix cache.

        Raises NoReplyError when retries did not help or the server refuses this question, and RaigenError when it
        refuses the key or the model, cannot be reached, or redirects.
        """
        shown = [{"type": "image_url", "image_url": {"url": data_uri(image)}} for image in images]
        messages = [{"role": "user", "content": [*shown, {"type": "text", "text": question.text}]}]
        gate = gate or Gate()
        if self._rung is None:
            with self._climbing:  # one question finds the form that works; the others wait
                if self._over:
                    raise self._over
                if self._rung is None:
                    return self._climb(messages, question, gate)
        return self._reply(messages, question, self._rung, gate)

    def _climb(self, messages: list[dict[str, Any]], question: Question, gate: Gate) -> Reply:
        """Tries one form after the other until JSON comes back, and remembers the form."""
        for rung in LADDER[:-1]:
            try:
                reply = self._reply(messages, question, rung, gate)
            except (RefusedError, CutError) as error:
                log.info("%s does not take %s: %s", self._address.name, rung, error)
                continue
            if not reply.text:  # a refusal to answer this question says nothing about the form
                return reply
            if any(objects(reply.text)):
                return self._settled(reply)
            log.info("%s takes %s but answers without JSON", self._address.name, rung)
        return self._settled(self._reply(messages, question, LADDER[-1], gate))

    def _settled(self, reply: Reply) -> Reply:
        log.info("%s is asked with %s from here on", self._address.name, reply.rung)
        self._rung = reply.rung
        return reply

    def _reply(self, messages: list[dict[str, Any]], question: Question, rung: str, gate: Gate) -> Reply:
        """One answer. Parameters that the server does not support are left out of the next try, and of all later
        questions once that helped."""
        refused = self._refused
        while True:
            form = {"model": self._address.model, "messages": messages, **_form(question, rung, refused)}
            try:
                completion = self._completion(form, gate)
            except RefusedError as error:
                named = unsupported(error.words, PARAMETERS) - refused
                if not named:
                    self._fail_for_good(error)
                    raise
                log.info("%s does not take %s", self._address.name, ", ".join(sorted(named)))
                refused |= named
            else:
                self._refused |= refused
                reply = reply_of(completion, rung, gate, question.max_tokens)
                return reply._replace(text=self._masked(reply.text))

    def _completion(self, form: dict[str, Any], gate: Gate) -> dict[str, Any]:
        """What the server answers, after as many retries as may help."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key or 'none'}"}
        body, failure, advice = json.dumps(form).encode(), "", ""
        for attempt in range(self._retries + 1):
            gate.request()
            seconds: float = min(0.5 * 2**attempt, 8.0)
            try:
                response = self._connection.post("/chat/completions", body, headers)
            except ProxyRefusedError as error:
                self._refused_by_proxy(self._said(error) + self._through)
            except SlowError as error:
                failure, advice = f"{error}{self._through}", f"A slow server needs a longer --timeout{self._remedy}"
            except BrokenError as error:
                failure, advice = self._said(error) + self._through, START + self._remedy
            else:
                if response.status == 200:
                    return self._parsed(response)
                failure = self._passing(response)
                advice = START + self._remedy if self._via and response.status >= 500 else ""
                seconds = retry_after(response, seconds)
                if seconds > LONGEST_WAIT:
                    raise NoReplyError(f"{failure} (it wants to be asked again in {seconds:,.0f} s)")
            if attempt < self._retries:
                log.info("%s: %s; asked again in %g s", self._address.name, failure, seconds)
                gate.wait(seconds)
        if advice and not self._has_answered:
            self._give_up(f"expected a server at {self._address.endpoint}; {failure}. {advice}")
        raise NoReplyError(f"{failure}. {advice}" if advice else failure)

    def _parsed(self, response: Response) -> dict[str, Any]:
        """The completion in a response. Raises NoReplyError for anything else: servers and proxies answer all sorts."""
        try:
            completion = json.loads(response.body)
        except (ValueError, RecursionError):
            completion = None
        if not isinstance(completion, dict) or not completion.get("choices"):
            said = self._said(words_of(response.body))[:100]
            raise NoReplyError(f"expected a chat completion{self._via}; got {said!r}")
        self._has_answered = True
        return completion

    def _passing(self, response: Response) -> str:
        """What a server says of a fault that may pass. Raises RefusedError for one that will not."""
        words = words_of(response.body)
        said = self._said(f"{response.status}{self._via}: {words or 'no words'}")
        code = code_of(response.body)
        may_pass = response.status in (408, 409, 429) or response.status >= 500
        if not may_pass or code == "insufficient_quota" or unsupported(words, PARAMETERS + FORMS):
            where = response.headers.get("location", "") if 300 <= response.status < 400 else ""
            raise RefusedError(response.status, f"{said} -> {self._said(where)}" if where else said, words, code)
        return said

    def _fail_for_good(self, error: RefusedError) -> None:
        """Raises RaigenError for a refusal that every later question would meet, too."""
        if 300 <= error.status < 400:
            self._give_up(f"expected an answer from {self._address.endpoint}; it sends us elsewhere ({error}). If you "
                          "trust that place, name it in the address")  # fmt: skip
        is_first = not (self._has_answered or self._answered_before or unsupported(error.words, FORMS))
        if self._via and (error.status == 407 or (error.status in (403, 404) and is_first)):
            self._refused_by_proxy(str(error))
        if error.status == 401 or error.code == "insufficient_quota" or (error.status in (403, 404) and is_first):
            self._give_up(
                f"expected {self._address.endpoint} to take the model {self._address.model!r} and the key in "
                f"{self._variable} ({'set' if self._key else 'not set'}); it says: {error}"
            )

    def _refused_by_proxy(self, said: str) -> NoReturn:
        """Raises RaigenError for a refusal of the proxy, which may be the server's own if it is asked in the clear."""
        login = ". In that variable, the proxy expects http://USER:PASSWORD@HOST:PORT" if said.startswith("407") else ""
        self._give_up(f"expected an answer from {self._address.endpoint}; got {said}{login}{self._remedy}")

    def _give_up(self, reason: str) -> NoReturn:
        """Raises RaigenError with the reason, and remembers it for the questions that wait."""
        self._over = RaigenError(f"{self._address.name}: {reason}")
        raise self._over

    def _said(self, words: object) -> str:
        """The words of a server or of an error in one short line, without what is secret, which some servers repeat."""
        return self._masked(in_a_line(str(words)))[:300]

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def data_uri(image: Image.Image) -> str:
    """The image as a data URI: pixel art as PNG, all else as JPEG, which every server reads."""
    buffer, shown = io.BytesIO(), sized(image)
    kind = "png" if max(image.size) <= PIXEL_ART else "jpeg"
    shown.save(buffer, kind, **({"quality": 92} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def words_of(body: bytes) -> str:
    """What the body of an error says: its message, in the form of OpenAI, FastAPI and others, or all of it.

    From pydantic's complaints only place and reason are taken: their `input` would name every parameter.
    """
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return text[:10_000]
    for name in ("error", "message", "detail"):
        said = said.get(name, said) if isinstance(said, dict) else said
    if isinstance(said, list):
        complaints = [entry for entry in said if isinstance(entry, dict)]
        said = "; ".join(f"{entry.get('loc', '')} {entry.get('msg', '')}" for entry in complaints)
    return said if isinstance(said, str) else text[:10_000]


def code_of(body: bytes) -> str:
    """The code that OpenAI gives an error, or an empty text."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return ""


def unsupported(words: str, names: Iterable[str]) -> frozenset[str]:
    """Which of `names` a server says that it does not support: the name and a word that says so stand in one sentence
    of less than 300 letters; a longer one repeats the question.

    >>> sorted(unsupported("Unsupported parameter: 'max_tokens'", PARAMETERS))
    ['max_tokens']
    >>> unsupported("max_tokens is too large: 300. Such images are not supported", PARAMETERS)
    frozenset()
    """
    sentences = [part for part in re.split(r"[.;\n]\s|\}", words) if len(part) < 300]
    said = " ".join(part for part in sentences if UNSUPPORTED.search(part))
    return frozenset(name for name in names if name in said)


def retry_after(response: Response, seconds: float) -> float:
    """Seconds until a server wants to be asked again, by its Retry-After (seconds or a date), else `seconds`."""
    said = response.headers.get("retry-after", "")
    try:
        is_number = re.fullmatch(r"\s*\d+(\.\d+)?\s*", said)
        wanted = float(said) if is_number else parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return seconds
    return wanted if wanted > 0 else seconds


def reply_of(completion: dict[str, Any], rung: str, gate: Gate, room: int) -> Reply:
    """The reply in a chat completion, whose tokens count as spent.

    A refusal is a reply without a text: it was paid for, and asking again would not change it. Raises CutError for an
    answer that is not whole, and NoReplyError for anything that is no chat completion.
    """
    choices, usage = completion["choices"], completion.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts = (count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens")))
    gate.budget.spend_tokens(*counts)
    choice: Any = choices[0] if isinstance(choices, list) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise NoReplyError(f"expected a message in the chat completion; got {type(message).__name__}")
    is_refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
    thoughts = (message.get("content"), message.get("reasoning_content"), message.get("reasoning"))
    text = "" if is_refused else next(filter(None, thoughts), "")
    if not isinstance(text, str):
        raise NoReplyError(f"expected a text in the message; got {type(text).__name__}")
    text = whole(text, choice.get("finish_reason") == "length", room)
    return Reply(text, yes_share(tokens_of(choice)), rung, *counts)


def tokens_of(choice: dict[str, Any]) -> list[Token]:
    """The tokens of an answer with their alternatives; none where the server gives no log-probabilities, or others."""
    try:
        scored = choice["logprobs"]["content"] or []
        tokens = [
            Token(each["token"], tuple((a["token"], a["logprob"]) for a in each["top_logprobs"] or ()))
            for each in scored
        ]
        is_right = all(
            isinstance(token.text, str)
            and all(isinstance(other, str) and -math.inf < value <= 1e-3 for other, value in token.alternatives)
            for token in tokens
        )
    except (KeyError, TypeError, AttributeError):
        return []
    return tokens if is_right else []


def _form(question: Question, rung: str, refused: frozenset[str]) -> dict[str, Any]:
    """The parameters that request the form of an answer, without those that the server rejects."""
    schema = {"name": "answer", "strict": True, "schema": question.schema}
    form: dict[str, Any] = {
        "json_schema": {"response_format": {"type": "json_schema", "json_schema": schema}},
        "structured_outputs": {"structured_outputs": {"json": question.schema}},  # vLLM's own
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
