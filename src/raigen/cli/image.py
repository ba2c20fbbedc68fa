"""The command that makes one image of a report again: image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from raigen.cli.flags import Command, flags
from raigen.cli.terminal import say
from raigen.config import CaptureConfig
from raigen.config.fields import need

MOST_TOGETHER = 1024  # seeds of a batch


@dataclass(frozen=True, kw_only=True)
class Image(Command):
    """Makes one image of one seed. The lightbox of a report says the command that makes an image again."""

    prompt: Positional[str]
    """The prompt."""
    seed: int
    """The seed of the image, 0 or more."""
    together: tuple[int, int] | None = None
    """First and last seed of the batch in which the image was made. The others of a batch change its last bits, so only
    the same batch, on the same kind of machine, gives the same file."""
    sha256: str | None = None
    """The first digits of the hash of the image that is expected; the command then says whether it is the same."""
    out: Path | None = None
    """The file to write. None is seed-SEED.png in the current folder."""
    capture: Annotated[CaptureConfig, flags(CaptureConfig, "prompt", "n_images", "base_seed", "hookpoint", "store",
                                            "batch_size")]  # fmt: skip

    def execute(self) -> None:
        config = CaptureConfig(**{**vars(self.capture), "prompt": self.prompt})
        first, last = self.together or (self.seed, self.seed)
        fits = 0 <= first <= self.seed <= last < first + MOST_TOGETHER
        need(fits, "together", f"{first} {last}", f"the first and last seed of a batch around {self.seed}")
        from raigen.diffusion.generation import defaults, generate
        from raigen.diffusion.loading import load_pipeline
        from raigen.runs.files import sha256, write_bytes
        from raigen.runs.images import as_png

        pipe = load_pipeline(config.model, config.device, config)
        seeds = range(first, last + 1)
        made = generate(pipe, config.prompt, seeds, defaults(pipe, config.model, config))
        data, path = as_png(made.images[self.seed - first]), self.out or Path(f"seed-{self.seed}.png")
        write_bytes(path, data)
        say(f"image: {path}")
        if self.sha256 is not None:
            is_same = sha256(data).startswith(self.sha256.lower())
            say("the same file, bit for bit" if is_same else
                "not the same file bit for bit: another machine, other versions, or another batch")  # fmt: skip
