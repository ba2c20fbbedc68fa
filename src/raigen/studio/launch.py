"""Opens the studio: loads the run, and serves its page until it is stopped."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from raigen.config import StudioConfig
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.studio.page import STYLE, TABS, build
from raigen.studio.session import Studio

LOOPBACK = ("127.0.0.1", "localhost")
QUEUE = 20  # requests that wait at once


def launch(
    run: Run | str | Path, config: StudioConfig | None = None, *, tabs: Sequence[str] = TABS, block: bool = True
) -> Any:
    """Serves the studio of a finished run, with the parts `tabs`. Returns the page of Gradio, with `block` at its end.

    On 127.0.0.1 it answers only to this name, so that no web page elsewhere can reach it. Raises RaigenError when
    Gradio is not installed, the run has no names yet, or the port is taken.
    """
    config = config or StudioConfig()
    gradio = _gradio()
    studio = Studio(run if isinstance(run, Run) else Run(run), config)
    page = build(gradio, studio, tabs)
    page.queue(max_size=QUEUE, default_concurrency_limit=1)
    try:
        page.launch(
            server_name=config.host, server_port=config.port or None, prevent_thread_lock=True, quiet=True,
            share=False, footer_links=[], run_history=False, css=STYLE, app_kwargs=_only_here(config.host),
        )  # fmt: skip
    except OSError as error:
        raise RaigenError(f"port: expected a free port; {config.port} cannot be used ({error}). Choose another --port"
                          ) from error  # fmt: skip
    if block:
        print(f"{page.local_url}  (Ctrl-C stops it)", flush=True)
        page.block_thread()
    return page


def _only_here(host: str) -> dict[str, Any]:
    """What refuses other names than those of this machine: a foreign page can resolve its own name to 127.0.0.1."""
    if host not in LOOPBACK:
        return {}
    middleware = import_module("starlette.middleware")
    trusted = import_module("starlette.middleware.trustedhost").TrustedHostMiddleware
    return {"middleware": [middleware.Middleware(trusted, allowed_hosts=list(LOOPBACK))]}


def _gradio() -> Any:
    try:
        return import_module("gradio")
    except ImportError as error:
        raise RaigenError("studio: expected the package gradio; it is not installed. "
                          "Install it with: pip install 'raigen[studio]'") from error  # fmt: skip
