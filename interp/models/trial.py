"""Run a loaded model once on a few tokens, to check that it runs and reads no later tokens.

What a forward pass costs may follow from numbers in `config.json` that no weight bounds, such as MPT's `max_seq_len`.
For architectures whose configuration is not known to be harmless, the trial runs in a child process with limits on
memory and time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

# Types whose pass over four tokens costs what their weights cost, whatever else the configuration says. Not among them
# are types with a number that sizes tables or chunks in the pass, such as MPT's `max_seq_len`.
CHECKED = frozenset(
    {
        "apertus",
        "arcee",
        "bert",
        "bloom",
        "bloom_key_sink",
        "codegen",
        "cohere",
        "cohere2",
        "cwm",
        "dots1",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone4",
        "falcon",
        "flex_olmo",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_oss",
        "gptj",
        "granite",
        "granitemoe",
        "helium",
        "hunyuan_v1_dense",
        "jais2",
        "llama",
        "minimax_m2",
        "ministral",
        "mistral",
        "mixtral",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "opt",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
        "vaultgemma",
        "xglm",
    }
)
# Limits of the child: of its trial, of all it does, and of the memory beyond the loaded model.
TRIAL_SECONDS = 60
TOTAL_SECONDS = 600
MEMORY = 2**30


class DoesNotRun(ValueError):
    """A model fails on four tokens, or takes more time or memory than it may."""


def check_trial(model: PreTrainedModel) -> bool:
    """Return whether a model is causal. Raises whatever its pass raises, with and without a cache."""
    causal = is_causal(model)
    with torch.no_grad():
        model(torch.zeros(1, 4, dtype=torch.long, device=model.device), use_cache=True)
    return causal


@torch.no_grad()
def is_causal(model: PreTrainedModel) -> bool:
    """Return whether another last token leaves the earlier logits unchanged; `is_decoder` is False for GPT-NeoX too."""
    tokens = torch.arange(4).remainder(model.config.vocab_size)[None].to(model.device)
    edited = tokens.clone()
    edited[0, -1] = 0 if tokens[0, -1] else 1
    logits, other = (model(t, use_cache=False).logits[:, :-1] for t in (tokens, edited))
    # In half precision another batch may round differently. NaN is for `predict` to name.
    rounding = 1e-4 if logits.dtype in (torch.float32, torch.float64) else 1e-2
    return not (logits - other).abs().max() > rounding * logits.std()


def check_in_child(folder: Path) -> None:
    """Load a folder's model in a child process and try it there.

    Raises `DoesNotRun` when the trial fails or exceeds its limits. A model that cannot be loaded passes: the caller
    meets the same error.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    env = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", __file__, str(folder), str(TRIAL_SECONDS), str(MEMORY)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TOTAL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DoesNotRun(f"loading it takes more than {TOTAL_SECONDS} seconds") from error
    if "\nloaded\n" not in f"\n{done.stdout}" or done.stdout.rstrip().endswith("ok"):
        return
    if "error " in done.stdout:
        raise DoesNotRun(json.loads(done.stdout.split("error ", 1)[1]))
    limits = f"{TRIAL_SECONDS} seconds or {MEMORY / 2**30:.0f} GiB beyond the weights"
    raise DoesNotRun(f"a pass over four tokens takes more than {limits}")


def main() -> None:
    """Try a model with limits, in a child process: `sys.argv` holds the folder, the seconds and the bytes."""
    folder, seconds, n_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", use_safetensors=True, trust_remote_code=False
    )
    model = loaded.eval()
    model.config.return_dict = True
    _tell("loaded")
    limit(seconds, n_bytes)
    try:
        check_trial(model)
    except Exception as error:
        _tell("error " + json.dumps(" ".join(str(error).split())[:300] or type(error).__name__))
        return
    _tell("ok")


def _tell(line: str) -> None:
    """Send a line to the parent process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def limit(seconds: int, n_bytes: int) -> None:
    """Let the system end this process after so many seconds, and refuse it more memory than so many bytes."""
    with suppress(ImportError, AttributeError, OSError, ValueError):  # where the system has no such limits
        import resource
        import signal

        signal.alarm(seconds)
        status = Path("/proc/self/status").read_text(encoding="ascii")
        held = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (held + n_bytes, held + n_bytes))


if __name__ == "__main__":
    main()
