"""One training step of the book's chapter 8 model against the same model in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from attnbackends import Backend, get_backend

from ..models import AttentionSeq2seq
from ..training.optimizers import Adam, clip_grads
from .cases import TRAINING, Case
from .contenders import LeftOutError
from .duel import OURS, ROOM_FOR_PRODUCTS
from .outcome import Outcome, row
from .paired import paired
from .peers import MATRIX_UNITS, TF32, allow_tf32, load
from .products import PRODUCTS, Products

N, T_ENC, T_DEC, V, D, H = 128, 29, 10, 59, 16, 256
MAX_NORM = 5.0
BATCHES = 8
FIRST_STEPS = 5
"""Steps from the start whose losses must agree."""

TOLERANCE = {False: 1e-3, True: 1e-2}
"""Relative difference of those losses that passes, by whether theirs are made in TF32, which rounds them more."""

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_batches(seed: int = 0) -> list[Batch]:
    """Sources (N, T_enc), inputs (N, T_dec) and labels (N, T_dec), several times."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(BATCHES):
        targets = rng.integers(0, V, (N, T_DEC + 1))
        batches.append((rng.integers(0, V, (N, T_ENC)), targets[:, :-1].copy(), targets[:, 1:].copy()))
    return batches


def our_step(backend: Backend, batches: list[Batch], seed: int = 0) -> tuple[Callable[[int], Any], AttentionSeq2seq]:
    """A step as `attnlayers train` does it, and its model."""
    model = AttentionSeq2seq(V, D, H, seed=seed, backend=backend)
    optimizer = Adam(0.001)
    there = [tuple(backend.asarray(x) for x in batch) for batch in batches]

    def step(i: int) -> Any:
        loss = model.forward(*there[i % BATCHES])
        model.backward()
        clip_grads(model.grads, MAX_NORM)
        optimizer.update(model.params, model.grads)
        backend.synchronize()
        return loss

    return step, model


def torch_step(
    device: str, batches: list[Batch], weights: dict[str, np.ndarray], tf32: bool = False
) -> Callable[[int], Any]:
    """The same step with ``nn.LSTM``, fused attention and PyTorch's Adam, from the same weights.

    With `tf32`, products of float32 may be rounded to TF32, those of ``nn.LSTM`` as well.
    """
    torch = load("torch")
    modules = torch.nn.ModuleDict(
        {
            "encoder_embed": torch.nn.Embedding(V, D),
            "encoder_lstm": torch.nn.LSTM(D, H, batch_first=True),
            "decoder_embed": torch.nn.Embedding(V, D),
            "decoder_lstm": torch.nn.LSTM(D, H, batch_first=True),
            "affine": torch.nn.Linear(2 * H, V),
        }
    )
    modules.load_state_dict({name: torch.from_numpy(x) for name, x in torch_weights(weights).items()})
    modules.to(device)
    optimizer = torch.optim.Adam(modules.parameters(), lr=0.001, eps=1e-7)
    there = [tuple(torch.from_numpy(x).to(device) for x in batch) for batch in batches]

    def step(i: int) -> Any:
        allow_tf32(torch, tf32)
        sources, inputs, labels = there[i % BATCHES]
        optimizer.zero_grad()
        hs, _ = modules["encoder_lstm"](modules["encoder_embed"](sources))
        first = hs[None, :, -1]  # (1, N, H)
        zeros = torch.zeros_like(first)  # the decoder's cells start anew, as in the book
        dec, _ = modules["decoder_lstm"](modules["decoder_embed"](inputs), (first.contiguous(), zeros))
        keys = hs[:, None]  # (N, 1, T_enc, H): fused kernels take four axes
        c = torch.nn.functional.scaled_dot_product_attention(dec[:, None], keys, keys, scale=1.0)[:, 0]
        scores = modules["affine"](torch.cat((c, dec), dim=2))
        loss = torch.nn.functional.cross_entropy(scores.reshape(-1, V), labels.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), MAX_NORM)
        optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()
        return loss.detach()

    return step


def products_step(backend: Backend, seed: int = 0) -> Callable[[int], Any]:
    """The matrix products of a step and nothing else, on random numbers.

    An LSTM has one product a step each way, of the states with the inputs beside them, and one for the gradients of
    its weights; attention has two and four, the map behind it three.
    """
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return backend.asarray(rng.standard_normal(shape, dtype=np.float32))

    W, W_T = draw(4, H + D, H), draw(4, 4 * H, (H + D) // 4)  # in blocks of columns, which BLAS reads faster
    lstms = [(draw(T, N, H + D), draw(T, N, 4 * H)) for T in (T_ENC, T_DEC)]
    both, affine, dscores, affine_T = draw(N * T_DEC, 2 * H), draw(2 * H, V), draw(N * T_DEC, V), draw(V, 2 * H)
    case = Case(TRAINING, N, T_DEC, T_ENC, H, shared=True)
    attention = Products(case, case.draw(seed), backend)
    pieces = backend.chunks(N, 32 * H, at_least=64)

    def lstm(rows: Any, da: Any) -> None:
        def piece(n: slice) -> None:
            for at_t in rows:
                backend.matmul(at_t[n], W)  # (n, H + D) x (4, H + D, H) -> (4, n, H)
            for at_t in da:
                backend.matmul(at_t[n], W_T)  # (n, 4H) x (4, 4H, ·) -> (4, n, ·)

        backend.map(piece, pieces)
        backend.matmul(rows.reshape(-1, H + D).T, da.reshape(-1, 4 * H))  # (H + D, T N) x (T N, 4H)

    def step(i: int) -> None:
        for arrays in lstms:
            lstm(*arrays)
        attention.both(i)
        backend.matmul(both, affine)  # (M, 2H) x (2H, V) -> (M, V)
        backend.matmul(dscores, affine_T)  # (M, V) x (V, 2H) -> (M, 2H)
        backend.matmul(both.T, dscores)  # (2H, M) x (M, V) -> (2H, V)

    return step


def work(model: AttentionSeq2seq) -> tuple[int, int]:
    """Operations of the products of a step; bytes of weights, their gradients and Adam's two means, each once."""
    lstms = 3 * 2 * N * (T_ENC + T_DEC) * (H + D) * 4 * H
    affine = 3 * 2 * N * T_DEC * 2 * H * V
    attention, _ = Case(TRAINING, N, T_DEC, T_ENC, H, shared=True).work("both")
    return lstms + attention + affine, 4 * 4 * sum(x.size for x in model.state().values())


def torch_weights(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our weights under PyTorch's names: gates f, g, i, o in its order i, f, g, o, and a second bias of 0."""
    state = {}
    for part in ("encoder", "decoder"):
        state[f"{part}_embed.weight"] = weights[f"{part}.embed.W"]
        for name, ours in (("weight_ih_l0", "Wx"), ("weight_hh_l0", "Wh"), ("bias_ih_l0", "b")):
            f, g, i, o = np.split(weights[f"{part}.lstm.{ours}"], 4, axis=-1)
            state[f"{part}_lstm.{name}"] = np.ascontiguousarray(np.concatenate((i, f, g, o), axis=-1).T)
        state[f"{part}_lstm.bias_hh_l0"] = np.zeros_like(state[f"{part}_lstm.bias_ih_l0"])
    state["affine.weight"] = np.ascontiguousarray(weights["decoder.affine.W"].T)
    state["affine.bias"] = weights["decoder.affine.b"]
    return state


def settings(device: str) -> dict[str, bool]:
    """PyTorch's settings that are measured, by name: whether TF32 is allowed, where the device has it."""
    torch = load("torch")
    if device == "cpu":
        return {"PyTorch": False}
    if not torch.cuda.is_available():
        raise LeftOutError("this PyTorch has no CUDA device")
    on_matrix_units = torch.cuda.get_device_capability() >= MATRIX_UNITS
    return {f"PyTorch, {TF32}": True, "PyTorch, float32": False} if on_matrix_units else {"PyTorch": False}


def duel_of_steps(backend_name: str, seconds: float) -> Outcome:
    """Ours against PyTorch's, after a check that the losses of the first steps agree; on a CPU the products, too."""
    outcome = Outcome()
    backend = get_backend(backend_name)
    batches = draw_batches()
    device = "cpu" if backend.on_host else "cuda"
    steps: dict[str, Callable[[int], Any]] = {}
    losses: dict[str, list[float]] = {}
    chosen: dict[str, bool] = {}
    with outcome.watching("PyTorch", "import"):
        chosen = settings(device)
    if not chosen:
        return outcome
    with outcome.watching(OURS, "making"):
        ours, model = our_step(backend, batches)
        weights = model.state()
        steps[OURS] = ours
    if OURS not in steps:
        return outcome
    for name, tf32 in chosen.items():
        with outcome.watching(name, "making"):
            steps[name] = torch_step(device, batches, weights, tf32)
    for name, step in list(steps.items()):
        with outcome.watching(name, "first steps"):
            losses[name] = [float(step(i)) for i in range(FIRST_STEPS)]
    if OURS not in losses:
        return outcome
    differences = {}
    for name in losses.keys() & chosen.keys():
        difference = max(abs(a - b) / abs(b) for a, b in zip(losses[OURS], losses[name], strict=True))
        if difference <= TOLERANCE[chosen[name]]:
            differences[name] = difference
        else:
            outcome.wrong[name] = f"losses of the first {FIRST_STEPS} steps differ: {losses[OURS]}, {losses[name]}"
    if not differences:
        return outcome
    steps = {name: steps[name] for name in (OURS, *chosen) if name == OURS or name in differences}
    if backend.on_host:
        steps[PRODUCTS] = products_step(backend)
        seconds *= ROOM_FOR_PRODUCTS

    def failed(name: str, error: Exception) -> None:
        with outcome.watching(name, "timing"):
            raise error

    timings = paired(steps, seconds, failed=failed)
    for name in differences:
        if OURS in timings and name in timings:
            place = (TRAINING, backend_name, "float32", "torch", name, "step")
            precision = TF32 if chosen[name] else None
            both = timings[OURS], timings[name], differences[name]
            found = row(*place, *both, products=timings.get(PRODUCTS), precision=precision)
            outcome.rows.append(found if backend.on_host else replace(found, work=work(model)))
    return outcome
