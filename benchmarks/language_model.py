"""Writing with GPT-2 small's shape, against `transformers` on PyTorch: time of a prompt, of each new token, and memory.

``python benchmarks/language_model.py`` makes random weights of that shape (124M) in a temporary folder, reads them
with both, and lets them take turns in one process: round by round one prompt each, then some tokens each, a few in a
row, and last the products with weights alone, which neither can do without. Ratios are of medians; CPU seconds stand
beside seconds, since others may use the machine. Memory is taken in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "language_model.json"
SHAPES = {"gpt2-small": {}, "tiny": {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 1000}}
"""Options of `GPT2Config`; its defaults are GPT-2 small."""

PAUSE = 0.2
"""Seconds before each timing, in which the threads of what ran before it, which wait by turning round, go to sleep:
OpenBLAS's after 0.11."""

IN_A_ROW = 5
"""Tokens of one that follow each other before the other has its turn, as in a text."""

Times = dict[str, dict[str, list[tuple[float, float]]]]
"""By name and by what was timed: seconds and CPU seconds of each time."""

MEMORY = """
import json, sys
import numpy as np
import attnlayers.models, safetensors.numpy, tokenizers
from attnlayers.models import CausalLM
def memory(name):  # not getrusage: its peak is that of the process that began this one, where that was larger
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
before = memory("VmRSS")
model = CausalLM.from_pretrained(sys.argv[1])
loaded = memory("VmHWM")
prompt, tokens = int(sys.argv[2]), int(sys.argv[3])
ids = np.random.default_rng(0).integers(0, model.options["vocab_size"], (1, prompt))
for _ in model.generate(ids, tokens, stop=()):
    pass
peak = memory("VmHWM")
weights = sum(param.nbytes for param in model.params)
cache = sum(side.nbytes for cache in model.new_cache(1, prompt + tokens - 1) for side in cache._all)
print(json.dumps({
    "before": before, "weights": weights, "cache": cache, "reading over weights": (loaded - before) / weights,
    "writing over weights and cache": (peak - before) / (weights + cache),
}))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--shape", choices=SHAPES, default="gpt2-small")
    arguments.add_argument("--prompt", type=int, default=512)
    arguments.add_argument("--tokens", type=int, default=16, help="new tokens after each prompt")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    if given.tokens <= IN_A_ROW:
        arguments.error(f"--tokens must be more than the {IN_A_ROW} that follow each other, got {given.tokens}")
    os.environ["ATTN_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        make(folder, SHAPES[given.shape])
        sizes = (str(given.prompt), str(given.tokens))
        said = subprocess.run(
            [sys.executable, "-c", MEMORY, folder, *sizes], check=True, capture_output=True, text=True
        )
        result = {
            "shape": given.shape,
            "prompt": given.prompt,
            "tokens": given.tokens,
            "memory": json.loads(said.stdout),
        }
        result |= compare(folder, given.prompt, given.tokens, given.rounds, given.threads)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def make(folder: str, options: dict[str, Any]) -> None:
    """A folder of random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(bos_token_id=0, eos_token_id=0, **options)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def compare(folder: str, prompt: int, tokens: int, rounds: int, threads: int) -> dict[str, Any]:
    """Prompts and tokens of both, in turns."""
    import torch
    import transformers

    from attnlayers.models import CausalLM

    torch.set_num_threads(threads)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    own = CausalLM.from_pretrained(folder)
    ids = np.random.default_rng(0).integers(0, own.options["vocab_size"], (1, prompt))
    begin = {"attnlayers": lambda: begin_own(own, ids, tokens), "transformers": lambda: begin_theirs(theirs, ids)}
    times: Times = {name: {"prompt": [], "token": []} for name in begin}
    chosen: dict[str, list[int]] = {name: [] for name in begin}
    for turn in range(rounds + 1):
        steps = {}
        for name in sorted(begin, reverse=bool(turn % 2)):
            (first, step), spent = timed(begin[name])
            steps[name], chosen[name] = step, [first]
            if turn:  # the first round warms up
                times[name]["prompt"].append(spent)
        for _ in range((tokens - 1) // IN_A_ROW):
            for name in sorted(begin, reverse=bool(turn % 2)):
                some, spent = timed(lambda step=steps[name]: [step() for _ in range(IN_A_ROW)])
                chosen[name] += some
                if turn:
                    times[name]["token"].append((spent[0] / IN_A_ROW, spent[1] / IN_A_ROW))
    if chosen["attnlayers"] != chosen["transformers"]:
        raise SystemExit(f"they do not write the same: {chosen}")
    medians = medians_of(times)
    products = medians_of(products_alone(own, theirs, prompt, rounds))
    weights = sum(param.nbytes for param in own.params)
    a_second, a_cpu_second = bandwidth(threads)
    return {
        "medians": medians,
        "attnlayers over transformers": ratios_of(medians),
        "products alone": products,
        "products alone, attnlayers over transformers": ratios_of(products),
        "floor of a token": {"seconds": weights / a_second, "CPU seconds": weights / a_cpu_second},
        "load average": os.getloadavg(),
        "machine": {"cores": os.cpu_count(), "threads": threads, "processor": processor()},
        "versions": {
            "python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }  # fmt: skip


def products_alone(own: Any, theirs: Any, prompt: int, rounds: int) -> Times:
    """Times of a prompt's and a token's products with all weights, in turns, as each of the two makes them."""
    import torch

    from attnlayers.models._generation import TOKENS_AT_ONCE

    blocks = own.blocks.stack
    maps = [(b.attention.query, b.attention.key, b.attention.value, b.attention.output) for b in blocks]
    own_weights = [m.params[0] for four, b in zip(maps, blocks, strict=True)
                   for m in (*four, b.feed_forward.up, b.feed_forward.down)]  # fmt: skip
    their_weights = [m.weight.detach() for b in theirs.transformer.h
                     for m in (b.attn.c_attn, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)]  # fmt: skip
    widths = {weights.shape[0] for weights in own_weights}
    x = {width: np.random.default_rng(0).standard_normal((prompt, width), np.float32) for width in widths}
    heads = own.embed.params[0].T, theirs.lm_head.weight.detach().T

    def by_numpy(rows: int) -> None:
        for begin in range(0, rows, TOKENS_AT_ONCE):
            for weights in own_weights:
                own.backend.matmul(x[weights.shape[0]][begin : min(rows, begin + TOKENS_AT_ONCE)], weights)
        own.backend.matmul(x[heads[0].shape[0]][:1], heads[0])

    def by_torch(rows: int) -> None:
        for weights in their_weights:
            torch.mm(torch.from_numpy(x[weights.shape[0]][:rows]), weights)
        torch.mm(torch.from_numpy(x[heads[1].shape[0]][:1]), heads[1])

    ways = {"attnlayers": by_numpy, "transformers": by_torch}
    times: Times = {name: {"prompt": [], "token": []} for name in ways}
    for turn in range(rounds + 1):
        for what, rows, times_each in (("prompt", prompt, 1), ("token", 1, 8)):
            for _ in range(times_each):
                for name in sorted(ways, reverse=bool(turn % 2)):
                    _, spent = timed(partial(ways[name], rows))
                    if turn:  # the first round warms up
                        times[name][what].append(spent)
    return times


def medians_of(times: Times) -> dict[str, dict[str, dict[str, float]]]:
    """By name, by what was timed and by clock."""
    return {
        name: {what: {"seconds": median(t for t, _ in found), "CPU seconds": median(c for _, c in found)}
               for what, found in parts.items()}
        for name, parts in times.items()
    }  # fmt: skip


def ratios_of(medians: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Ours over theirs, by what was timed and by clock."""
    own, theirs = medians["attnlayers"], medians["transformers"]
    return {what: {clock: own[what][clock] / theirs[what][clock] for clock in own[what]} for what in own}


def begin_own(model: Any, ids: np.ndarray, tokens: int) -> tuple[int, Callable[[], int]]:
    """Read a prompt; its first token, and what makes the next one."""
    stream = model.generate(ids, tokens, stop=())
    return int(next(stream)[0]), lambda: int(next(stream)[0])


def begin_theirs(model: Any, ids: np.ndarray) -> tuple[int, Callable[[], int]]:
    """The same of `transformers`, by its forward: `generate` does more between two tokens."""
    import torch

    state: dict[str, Any] = {"ids": torch.tensor(ids), "cache": None}

    def step() -> int:
        with torch.inference_mode():
            found = model(state["ids"], past_key_values=state["cache"], use_cache=True, logits_to_keep=1)
        state["cache"], state["ids"] = found.past_key_values, found.logits[:, -1:].argmax(-1)
        return int(state["ids"])

    return step(), step


def timed(function: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What it returns, and how long it took: seconds and CPU seconds."""
    time.sleep(PAUSE)
    began, cpu = time.perf_counter(), time.process_time()
    found = function()
    return found, (time.perf_counter() - began, time.process_time() - cpu)


def bandwidth(threads: int) -> tuple[float, float]:
    """Bytes that threads read from memory together, a second and a CPU second, each the best of several tries."""
    parts = [np.ones(2**26, np.float32) for _ in range(threads)]
    found = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(9):
            _, spent = timed(lambda: list(pool.map(np.max, parts)))
            found.append(spent)
    read = sum(part.nbytes for part in parts)
    return read / min(seconds for seconds, _ in found), read / min(cpu for _, cpu in found)


def processor() -> str:
    """What the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
