"""How far two orders of the same floating-point operations may differ, as a bound in depth, width and data type.

Every sum rounds, and rounding errors add up like a random walk: over `depth` layers of sums over `width` numbers the
difference of two correct computations grows with sqrt(depth * width), in units of the data type's epsilon. The bound
is anchored at 4 layers of width 128, where 1e-5 of the largest metric is allowed in float32. On random GPT-2 and BLOOM
models from 2 x 64 to 12 x 768, on a CPU, float32 differs from float64 by at most a quarter of the bound
(`tests/interp/support/test_rounding.py`); on an H100, 12 x 768 BLOOM differed by 2.3e-5 where 4.2e-5 is allowed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Relative to the largest metric, at `DEPTH` layers of width `WIDTH`. Some architectures compute softmax in float32 even
# in a float64 model, so float64 is allowed more than its epsilon suggests. Half precision is allowed 10 epsilons.
ALLOWED = {"float64": 1e-9, "float32": 1e-5, "float16": 10 * 2**-10, "bfloat16": 10 * 2**-7}
DEPTH, WIDTH = 4, 128
# Epsilon of TF32, which a CUDA device uses for float32 products unless precision is "highest", over that of float32.
TF32 = 2**13


def tolerance(dtype: torch.dtype, depth: int, width: int, device: torch.device | None = None) -> float:
    """Return the largest difference that rounding explains, relative to the largest metric.

    `depth` is the number of layers and `width` that of the residual stream. Smaller models than 4 x 128 are allowed
    what that size is. On a CUDA device that computes float32 products in TF32 the bound is 2^13 times as large. Raises
    `ValueError` for a data type that has no bound.

    >>> f"{tolerance(torch.float32, 12, 768):.2e}"
    '4.24e-05'
    """
    import torch

    name = str(dtype).removeprefix("torch.")
    if name not in ALLOWED:
        raise ValueError(f"no tolerance is stated for {name}; data types are {', '.join(ALLOWED)}")
    if depth < 1 or width < 1:
        raise ValueError(f"depth and width must be at least 1; got {depth} and {width}")
    growth = max(1.0, math.sqrt(depth * width / (DEPTH * WIDTH)))
    coarse = device is not None and device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return ALLOWED[name] * growth * (TF32 if name == "float32" and coarse else 1)
