"""How alike pictures are: to their twins, to a text, to each other, from embeddings of unit length."""

import numpy as np
from jaxtyping import Float


def cosines(
    first: Float[np.ndarray, "picture width"], second: Float[np.ndarray, "picture width"]
) -> Float[np.ndarray, " picture"]:
    """The cosine of each row with the row beside it, in [-1, 1]; rows of unit length.

    >>> cosines(np.eye(2), np.eye(2)[::-1]).tolist()
    [0.0, 0.0]
    """
    return (first.astype(np.float64) * second).sum(1).clip(-1, 1)


def vendi_score(embeddings: Float[np.ndarray, "picture width"]) -> float:
    """How many pictures' worth of difference there is: from 1 (all alike) to the number of pictures (all at right
    angles); at most the width.

    exp(-sum_j l_j log l_j), with l_j the eigenvalues of K / n and K the cosines of all pairs of the n pictures
    (Friedman & Dieng 2023). They are the squared singular values of the embeddings over sqrt(n).

    >>> round(vendi_score(np.eye(4)), 6), round(vendi_score(np.ones((5, 1))), 6)
    (4.0, 1.0)
    """
    values = np.linalg.svd(embeddings.astype(np.float64) / np.sqrt(len(embeddings)), compute_uv=False) ** 2
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))
