"""A float32 picture of 4.9 MB, answered as it came."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from atomserve import Tensor, Wrapper

SHAPE = (640, 640, 3)

Picture = Annotated[NDArray[np.float32], Tensor("float32", SHAPE)]


class Identity(Wrapper):
    """Answer with the picture."""

    def predict(self, picture: Picture) -> Picture:
        return picture


def same(value: Any) -> Any:
    """Do so where no wrapper is wanted."""
    return value


def picture() -> NDArray[np.float32]:
    return np.random.default_rng(1).random(SHAPE, dtype=np.float32)
