"""Attention and its peers on the array library that the environment chose: pytest benchmarks/

Grouped by case and direction. The paired comparison is `attnlayers bench`; here each contender runs by itself.
"""

from functools import cache
from itertools import count
from typing import Any

import pytest

from attnbackends import backend
from attnlayers.bench.cases import TABLE, Case
from attnlayers.bench.contenders import Contender, LeftOutError, Ours
from attnlayers.bench.duel import OURS, TOLERANCE, largest_difference
from attnlayers.bench.peers import PEERS, takes_part

CASES = {case.name: case for case in TABLE if case.name != "huge"}
"""`huge` is there for its memory, and takes minutes with some of the peers."""


@cache
def ours(name: str) -> list[Any]:
    """Results on the first set of inputs."""
    return Ours(CASES[name], CASES[name].draw()[:1], backend).results()


def contenders_of(peer: str, case: Case) -> dict[str, Contender]:
    """Contenders of a peer on two sets of inputs; skips where there is none."""
    sets = case.draw()[:2]
    if peer == OURS:
        return {OURS: Ours(case, sets, backend)}
    if not takes_part(peer, case, backend.name):
        pytest.skip(f"{peer} has no way to compute {case.name} on {backend.name}")
    try:
        found = PEERS[peer](case, sets, backend, "float32")
    except LeftOutError as reason:
        pytest.skip(str(reason))
    return {name: make() for name, make in found.items() if not isinstance(make, str)}


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("peer", [OURS, *PEERS])
@pytest.mark.parametrize("name", CASES)
def test_attention(benchmark: Any, name: str, peer: str, direction: str) -> None:
    case = CASES[name]
    if direction not in case.directions:
        pytest.skip(f"{name} is {case.directions[0]} alone")
    benchmark.group = f"{name}, {direction}, {backend.name}"
    benchmark.extra_info.update(backend.machine.describe())
    agreeing = {}
    for heading, contender in contenders_of(peer, case).items():
        try:
            results = contender.results()
        except LeftOutError:  # one of PyTorch's kernels that refuses the shape
            continue
        allowed = TOLERANCE.get(contender.precision or "", TOLERANCE["float32"])
        assert largest_difference(ours(name), results) <= allowed, heading
        agreeing[heading] = contender
    if not agreeing:
        pytest.skip(f"no kernel of {peer} takes {name}")
    first = next(iter(agreeing))  # `attnlayers bench` compares all kernels
    contender = agreeing[first]
    benchmark.extra_info["contender"] = first
    if direction == "backward":
        contender.keep()
    number = count()
    call = getattr(contender, direction)
    benchmark.pedantic(lambda: call(next(number)), rounds=3, warmup_rounds=1)
