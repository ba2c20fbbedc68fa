"""Fetches autoencoders from the Hub, and uploads them."""

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from raigen.errors import RaigenError

FILES = ["config.json", "model.safetensors", "training.json"]  # that an audit needs; the card and its images stay there


def fetched(source: str | Path, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of an autoencoder: `source` itself, or a copy of this repository of the Hub in the local cache.

    Raises RaigenError for a folder with a `revision`, and where the Hub has no `source` or cannot be reached.
    """
    try:
        if Path(source).is_dir():
            if revision is not None:
                raise RaigenError(f"sae_revision: {source} is a folder, which has none; leave it out, or give a Hub id")
            return Path(source)
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=FILES, local_files_only=offline))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise RaigenError(f"{source}: expected the folder of an autoencoder, or its id on the Hub; no such folder, and "
                          f"the Hub does not give it{at}: {error}") from error  # fmt: skip


def push(dir: Path, repo: str) -> str:
    """Uploads a folder to a repository of the Hub, which is made, private, unless it is there; returns its address.
    Raises RaigenError where the Hub refuses."""
    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=dir, commit_message="Autoencoder written by raigen share")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise RaigenError(f"push: expected a repository of the Hub to which you may write, as OWNER/NAME; {repo} "
                          f"cannot be written ({error}). Log in with: hf auth login") from error  # fmt: skip
    return f"https://huggingface.co/{repo}"
