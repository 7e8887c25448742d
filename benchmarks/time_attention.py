"""`TimeAttention` against the book's loops, plain NumPy and PyTorch: python -m benchmarks.time_attention

Forward and backward together, on the CPU, in float32.
"""

import argparse
import json
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from attnbackends import get_backend
from attnlayers import TimeAttention
from benchmarks.paired import paired
from tests.reference import BookTimeAttention

SHAPE = (128, 10, 29, 256)
"""N, T_dec, T_enc, H of the book's chapter 8."""

INPUTS = 4
"""Sets of inputs, used in turn, so that they do not sit in the cache."""

Inputs = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def make_inputs(N: int, T_dec: int, T_enc: int, H: int) -> Inputs:
    """hs_enc, hs_dec and dout, several times."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / H**0.25).astype(np.float32)

    return [(draw(N, T_enc, H), draw(N, T_dec, H), draw(N, T_dec, H)) for _ in range(INPUTS)]


def with_layer(layer: Any, inputs: Inputs) -> Callable[[int], Any]:
    """A layer of the book's protocol."""

    def call(i: int) -> Any:
        hs_enc, hs_dec, dout = inputs[i % INPUTS]
        out = layer.forward(hs_enc, hs_dec)
        return out, *layer.backward(dout)

    return call


def with_plain_numpy(inputs: Inputs) -> Callable[[int], Any]:
    """Batched products written the obvious way."""

    def call(i: int) -> Any:
        hs_enc, hs_dec, dout = inputs[i % INPUTS]
        scores = hs_dec @ hs_enc.transpose(0, 2, 1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out = weights @ hs_enc
        dweights = dout @ hs_enc.transpose(0, 2, 1)
        dscores = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
        dhs_enc = weights.transpose(0, 2, 1) @ dout + dscores.transpose(0, 2, 1) @ hs_dec
        return out, dhs_enc, dscores @ hs_enc

    return call


def with_torch(inputs: Inputs) -> Callable[[int], Any]:
    """PyTorch's fused attention with autograd."""
    import torch

    tensors = [[torch.asarray(x) for x in some] for some in inputs]
    for hs_enc, hs_dec, _ in tensors:
        hs_enc.requires_grad_()
        hs_dec.requires_grad_()

    def call(i: int) -> Any:
        hs_enc, hs_dec, dout = tensors[i % INPUTS]
        hs_enc.grad = hs_dec.grad = None
        out = torch.nn.functional.scaled_dot_product_attention(hs_dec, hs_enc, hs_enc, scale=1.0)
        out.backward(dout)
        return out.detach(), hs_enc.grad, hs_dec.grad

    return call


PEERS = {
    "the book's loops": lambda inputs: with_layer(BookTimeAttention(), inputs),
    "NumPy, batched": with_plain_numpy,
    "PyTorch SDPA": with_torch,
}


def duel(peer: str, rounds: int) -> dict[str, Any]:
    """One peer against the layer; every duel has a process of its own, for its threads and its memory."""
    inputs = make_inputs(*SHAPE)
    try:
        found = {"ours": with_layer(TimeAttention(), inputs), "theirs": PEERS[peer](inputs)}
    except ImportError as error:
        return {"missing": str(error)}
    pairs = zip(found["ours"](0), found["theirs"](0), strict=True)
    difference = max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)
    timings = paired(found, rounds)
    low, middle, high = timings["theirs"].ratio_to(timings["ours"])
    return {
        "ours_ms": 1e3 * timings["ours"].median,
        "theirs_ms": 1e3 * timings["theirs"].median,
        "ratio": middle,
        "quartiles": [low, high],
        "largest_difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    results = {}
    for peer in PEERS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            results[peer] = process.submit(duel, peer, arguments.rounds).result()
    table = Table(title=f"TimeAttention, forward + backward, (N, T_dec, T_enc, H) = {SHAPE}, float32, CPU")
    for heading in ("", "attnlayers, ms", "peer, ms", "peer / attnlayers (quartiles)", "largest difference"):
        table.add_column(heading, justify="right")
    for peer, result in results.items():
        if "missing" in result:
            table.add_row(peer, "", "", f"left out: {result['missing']}", "")
            continue
        low, high = result["quartiles"]
        table.add_row(
            peer,
            f"{result['ours_ms']:.2f}",
            f"{result['theirs_ms']:.2f}",
            f"{result['ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{result['largest_difference']:.1e}",
        )
    console = Console(width=110)
    console.print(table)
    machine = {"python": platform.python_version(), "machine": platform.machine()} | get_backend("numpy").describe()
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))
    if arguments.out:
        report = {"shape": SHAPE, "rounds": arguments.rounds, "machine": machine, "results": results}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
