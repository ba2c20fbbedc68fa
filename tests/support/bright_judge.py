"""A judge of the user's own, for tests: an image shows everything if it is bright."""

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image


def shows(images: Sequence[Image], label: str) -> list[bool]:
    """Whether the mean of each image is above 127."""
    return [bool(np.asarray(image).mean() > 127) for image in images]
