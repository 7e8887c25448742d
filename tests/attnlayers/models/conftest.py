"""A small model whose weights do not depend on how initial weights are drawn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from attnbackends import Backend
from attnlayers.models import AttentionSeq2seq, Network

V, D, H = 11, 3, 5


@pytest.fixture
def make_model() -> Callable[..., AttentionSeq2seq]:
    """A model of V, D, H = 11, 3, 5 on a backend; weights are large enough to make every part matter."""

    def make(backend: Backend, dtype: str = "float32", seed: int = 0, scale: float = 0.7) -> AttentionSeq2seq:
        model = AttentionSeq2seq(V, D, H, backend=backend)
        cast(model, getattr(backend.xp, dtype))
        rng = np.random.default_rng(seed)
        model.load_state({name: scale * rng.standard_normal(value.shape) for name, value in model.state().items()})
        return model

    return make


def cast(network: Network, dtype: Any) -> None:
    """Parameters and gradients in another dtype; the lists of networks are built as `Network` builds them."""
    xp = network.backend.xp
    for layer in network.layers.values():
        if isinstance(layer, Network):
            cast(layer, dtype)
        else:
            layer.params = [xp.astype(param, dtype) for param in layer.params]
            layer.grads = [xp.astype(grad, dtype) for grad in layer.grads]
    network.params = [param for layer in network.layers.values() for param in layer.params]
    network.grads = [grad for layer in network.layers.values() for grad in layer.grads]
