"""Compiles RASP programs to transformers whose wiring is known, and writes their weights for the tests.

tracr (Lindner et al. 2301.05062) needs JAX and Haiku, which the tests do not; run this where they are installed:

    pip install tracr-pypi==1.0.0 jax==0.10.2 dm-haiku==0.0.17 safetensors
    python tests/interp/circuits/tracr_programs.py

Both programs are those of Conmy et al. 2304.14997: `reverse` gives a sequence backwards, `xproportion` the share of
"x" among the tokens so far. A file `<program>.safetensors` holds tracr's parameters as they are, and
`<program>.json` what they mean: the configuration, the encodings, and the name of each residual dimension.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "tracr"
PROGRAMS = ("reverse", "xproportion")
# Long enough that a second BOS makes the sum over positions that of another length (see test_tracr.py).
MAX_SEQ_LEN = 5


def compiled(program: str) -> Any:
    """tracr's model of a program. Bidirectional: whether a position is looked at is the program's business."""
    from tracr.compiler import compiling, lib  # pyright: ignore[reportMissingImports]
    from tracr.rasp import rasp  # pyright: ignore[reportMissingImports]

    match program:
        case "reverse":
            made, vocabulary = lib.make_reverse(rasp.tokens), {"a", "b", "c"}
        case "xproportion":
            made, vocabulary = lib.make_frac_prevs(rasp.tokens == "x"), {"w", "x", "y", "z"}
        case _:
            raise ValueError(f"programs are {', '.join(PROGRAMS)}; got {program!r}")
    return compiling.compile_rasp_to_model(made, vocabulary, MAX_SEQ_LEN, compiler_bos="BOS", compiler_pad="PAD")


def parameters_of(model: Any) -> dict[str, Any]:
    """Name, with a slash before the last part, to numpy array: `transformer/layer_0/attn/key/w`."""
    import numpy as np

    return {
        f"{module}/{name}": np.ascontiguousarray(value)
        for module, some in sorted(model.params.items())
        for name, value in sorted(some.items())
    }


def meaning_of(model: Any) -> dict:
    """All of it that is not a weight."""
    config, output = model.model_config, getattr(model.output_encoder, "encoding_map", None)
    names = ("num_heads", "num_layers", "key_size", "mlp_hidden_size", "layer_norm", "causal")
    return {
        "config": {name: getattr(config, name) for name in names},
        "input": [[value, number] for value, number in model.input_encoder.encoding_map.items()],
        "output": None if output is None else [[value, number] for value, number in output.items()],
        "residual_labels": list(model.residual_labels),
    }


def main() -> None:
    from importlib.metadata import version

    from safetensors.numpy import save_file

    FOLDER.mkdir(exist_ok=True)
    versions = {name: version(name) for name in ("tracr-pypi", "jax", "dm-haiku")}
    for program in PROGRAMS:
        model = compiled(program)
        save_file(parameters_of(model), FOLDER / f"{program}.safetensors")
        meaning = meaning_of(model) | {"made_by": "tests/interp/circuits/tracr_programs.py", "versions": versions}
        (FOLDER / f"{program}.json").write_text(json.dumps(meaning, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
