"""Each rule against its formula, number by number; what all optimizers share; PyTorch where the maths is the same."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from support import Library

from attnbackends import get_backend
from attnlayers.training import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSprop

SHAPES = [(3, 5), (7,), (2, 1, 3)]
STEPS = 6

Rule = Callable[[float, float, dict[str, float], int], float]


def sgd(param: float, grad: float, memory: dict[str, float], step: int) -> float:
    return param - 0.3 * grad


def momentum(param: float, grad: float, memory: dict[str, float], step: int) -> float:
    memory["v"] = 0.8 * memory.get("v", 0.0) - 0.3 * grad
    return param + memory["v"]


def adagrad(param: float, grad: float, memory: dict[str, float], step: int) -> float:
    memory["h"] = memory.get("h", 0.0) + grad * grad
    return param - 0.3 * grad / (sqrt(memory["h"]) + 1e-7)


def nesterov(param: float, grad: float, memory: dict[str, float], step: int) -> float:
    memory["v"] = 0.8 * memory.get("v", 0.0) - 0.3 * grad
    return param + 0.8 * 0.8 * memory["v"] - (1 + 0.8) * 0.3 * grad


def rmsprop(param: float, grad: float, memory: dict[str, float], step: int) -> float:
    memory["h"] = 0.9 * memory.get("h", 0.0) + (1 - 0.9) * grad * grad
    return param - 0.3 * grad / (sqrt(memory["h"]) + 1e-7)


def adam(param: float, grad: float, memory: dict[str, float], step: int) -> float:
    beta1, beta2 = 0.7, 0.95
    memory["m"] = beta1 * memory.get("m", 0.0) + (1 - beta1) * grad
    memory["v"] = beta2 * memory.get("v", 0.0) + (1 - beta2) * grad * grad
    rate = 0.3 * sqrt(1 - beta2**step) / (1 - beta1**step)
    return param - rate * memory["m"] / (sqrt(memory["v"]) + 1e-7)


MAKE: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: SGD(0.3),
    "Momentum": lambda: Momentum(0.3, momentum=0.8),
    "Nesterov": lambda: Nesterov(0.3, momentum=0.8),
    "AdaGrad": lambda: AdaGrad(0.3),
    "RMSprop": lambda: RMSprop(0.3, decay_rate=0.9),
    "Adam": lambda: Adam(0.3, beta1=0.7, beta2=0.95),
}
RULES: dict[str, Rule] = {
    "SGD": sgd,
    "Momentum": momentum,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSprop": rmsprop,
    "Adam": adam,
}


@pytest.fixture(params=[*MAKE])
def make(request: pytest.FixtureRequest) -> Callable[[], Optimizer]:
    return MAKE[request.param]


def params_of(library: Library, dtype: str, shapes: list[tuple[int, ...]] = SHAPES) -> list[Any]:
    """Parameters that may be written to, whatever the library."""
    rng = np.random.default_rng(0)
    return [library.array(rng.standard_normal(shape), dtype) + 0 for shape in shapes]


def grads_of(library: Library, dtype: str, step: int, shapes: list[tuple[int, ...]] = SHAPES) -> list[Any]:
    """Those of one step; some are exactly zero, also in the first step."""
    rng = np.random.default_rng(100 + step)
    return [library.array(rng.standard_normal(shape) * (rng.random(shape) < 0.8), dtype) for shape in shapes]


@pytest.mark.parametrize("name", [*RULES])
def test_the_formula(library: Library, name: str) -> None:
    optimizer, params = MAKE[name](), params_of(library, "float64")
    numbers = [library.numpy(param).flatten().tolist() for param in params]
    memories: list[list[dict[str, float]]] = [[{} for _ in values] for values in numbers]
    for step in range(1, STEPS + 1):
        grads = grads_of(library, "float64", step)
        optimizer.update(params, grads)
        for i, grad in enumerate(grads):
            for j, g in enumerate(library.numpy(grad).flatten().tolist()):
                numbers[i][j] = RULES[name](numbers[i][j], g, memories[i][j], step)
        assert optimizer.steps == step
        for param, expected in zip(params, numbers, strict=True):
            np.testing.assert_allclose(library.numpy(param).flatten(), expected, rtol=1e-12, atol=1e-14)


def test_params_change_in_place_and_gradients_do_not(library: Library, make: Callable[[], Optimizer]) -> None:
    optimizer, params, grads = make(), params_of(library, "float32"), grads_of(library, "float32", 1)
    places, seen_elsewhere = [*params], [param[...] for param in params]
    old_params = [library.numpy(param).copy() for param in params]
    old_grads = [library.numpy(grad).copy() for grad in grads]
    optimizer.update(params, grads)
    for param, place, view, old in zip(params, places, seen_elsewhere, old_params, strict=True):
        assert param is place
        assert not np.array_equal(library.numpy(param), old)
        np.testing.assert_array_equal(library.numpy(view), library.numpy(param))
    for grad, old in zip(grads, old_grads, strict=True):
        np.testing.assert_array_equal(library.numpy(grad), old)


def test_float32_stays_float32(library: Library, make: Callable[[], Optimizer]) -> None:
    optimizer, params = make(), params_of(library, "float32")
    exact_optimizer, exact = make(), params_of(library, "float64")
    for step in range(STEPS):
        optimizer.update(params, grads_of(library, "float32", step))
        exact_optimizer.update(exact, grads_of(library, "float64", step))
    assert all(param.dtype == library.xp.float32 for param in params)
    assert {str(value.dtype) for value in optimizer.state().values()} <= {"float32"}
    for param, other in zip(params, exact, strict=True):
        np.testing.assert_allclose(library.numpy(param), library.numpy(other), rtol=1e-5, atol=1e-5)


def test_pieces_change_no_bit(library: Library, make: Callable[[], Optimizer]) -> None:
    whole, row_by_row = make(), make()
    rows, columns = 599, 1009
    pieces = get_backend("numpy").chunks(rows, 4 * columns * 4)
    assert len(pieces) > 1, "parameters must be large enough to be cut in pieces"
    large, small = [(rows, columns)], [(columns,)] * 5
    params = params_of(library, "float32", large)
    places = [0, 1, rows // 2, rows - 2, rows - 1]
    some = [params[0][i, ...] + 0 for i in places]
    for step in range(3):
        grads = grads_of(library, "float32", step, large)
        whole.update(params, grads)
        row_by_row.update(some, [grads[0][i, ...] for i in places])
    assert [tuple(row.shape) for row in some] == small
    for i, row in zip(places, some, strict=True):
        np.testing.assert_array_equal(library.numpy(params[0][i, ...]), library.numpy(row))


def test_state_goes_on_where_it_was(library: Library, make: Callable[[], Optimizer]) -> None:
    optimizer, params = make(), params_of(library, "float32")
    for step in range(3):
        optimizer.update(params, grads_of(library, "float32", step))
    other, others = make(), [param + 0 for param in params]
    other.load_state(optimizer.state(), others, optimizer.steps)
    for step in range(3, STEPS):
        optimizer.update(params, grads_of(library, "float32", step))
        other.update(others, grads_of(library, "float32", step))
    assert other.steps == STEPS
    for param, same in zip(params, others, strict=True):
        np.testing.assert_array_equal(library.numpy(param), library.numpy(same))
    for name, value in optimizer.state().items():
        np.testing.assert_array_equal(other.state()[name], value, err_msg=name)


def test_state_is_named_by_slot_and_parameter(library: Library, make: Callable[[], Optimizer]) -> None:
    optimizer, params = make(), params_of(library, "float32")
    assert optimizer.state() == {}
    optimizer.update(params, grads_of(library, "float32", 1))
    state = optimizer.state()
    assert [*state] == [f"{slot}.{i}" for slot in optimizer.slots for i in range(len(params))]
    for name, value in state.items():
        assert isinstance(value, np.ndarray)
        assert value.shape == SHAPES[int(name.partition(".")[2])]


def test_state_stays_when_training_goes_on(library: Library) -> None:
    optimizer, params = Adam(), params_of(library, "float32")
    optimizer.update(params, grads_of(library, "float32", 1))
    state = optimizer.state()
    before = {name: value.copy() for name, value in state.items()}
    optimizer.update(params, grads_of(library, "float32", 2))
    for name, value in state.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} is no copy")


def test_before_the_first_step_there_is_nothing_to_go_on_from(make: Callable[[], Optimizer]) -> None:
    library = Library(get_backend("numpy"))
    optimizer, params, others = make(), params_of(library, "float64"), params_of(library, "float64")
    optimizer.load_state({}, params, 0)
    fresh = make()
    grads = grads_of(library, "float64", 1)
    optimizer.update(params, grads)
    fresh.update(others, grads)
    for param, same in zip(params, others, strict=True):
        np.testing.assert_array_equal(param, same)


def test_the_learning_rate_may_change_between_updates() -> None:
    param = np.array([1.0, 2.0])
    optimizer = SGD(0.5)
    optimizer.update([param], [np.array([1.0, -1.0])])
    optimizer.lr = 0.25
    optimizer.update([param], [np.array([1.0, -1.0])])
    assert param.tolist() == [0.25, 2.75]


@pytest.mark.parametrize("kind", [SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam])
@pytest.mark.parametrize("lr", [0, -0.1, float("nan")])
def test_a_learning_rate_must_be_positive(kind: type[Any], lr: float) -> None:
    with pytest.raises(ValueError, match=f"^`lr` must be positive, got {lr}$"):
        kind(lr)


def test_as_many_gradients_as_parameters(make: Callable[[], Optimizer]) -> None:
    library = Library(get_backend("numpy"))
    params = params_of(library, "float64")
    before = [param.copy() for param in params]
    with pytest.raises(ValueError, match="zip"):
        make().update(params, grads_of(library, "float64", 1)[:-1])
    for param, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(param, old)


def test_an_optimizer_without_a_rule_says_so() -> None:
    with pytest.raises(TypeError, match=r"^Optimizer has no rule$"):
        Optimizer(0.1).update([np.ones(2)], [np.ones(2)])


@pytest.mark.parametrize("name", ["SGD", "Momentum", "AdaGrad", "RMSprop", "Adam"])
def test_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    library = Library(get_backend("numpy"))
    params = params_of(library, "float64")
    peers = [torch.tensor(param, requires_grad=True) for param in params]
    peer = {
        "SGD": lambda: torch.optim.SGD(peers, lr=0.3),
        "Momentum": lambda: torch.optim.SGD(peers, lr=0.3, momentum=0.8),
        "AdaGrad": lambda: torch.optim.Adagrad(peers, lr=0.3, eps=1e-7),
        "RMSprop": lambda: torch.optim.RMSprop(peers, lr=0.3, alpha=0.9, eps=1e-7),
        "Adam": lambda: torch.optim.Adam(peers, lr=0.3, betas=(0.7, 0.95)),
    }[name]()
    optimizer = MAKE[name]()
    for step in range(1, STEPS + 1):
        grads = grads_of(library, "float64", step)
        optimizer.update(params, grads)
        if name == "Adam":  # PyTorch adds epsilon after the correction of v, the paper's faster form before it
            peer.param_groups[0]["eps"] = 1e-7 / sqrt(1 - 0.95**step)
        for tensor, grad in zip(peers, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        peer.step()
        for param, tensor in zip(params, peers, strict=True):
            np.testing.assert_allclose(param, tensor.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_weight_decay_as_pytorch_has_it() -> None:
    """Of parameters with two axes or more; those with one keep what Adam gives them."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape) for shape in ((3, 5), (7,), (2, 3, 5))]
    peers = [torch.tensor(param, requires_grad=True) for param in params]
    groups = [{"params": peers[::2], "weight_decay": 0.2}, {"params": peers[1:2], "weight_decay": 0.0}]
    peer = torch.optim.AdamW(groups, lr=0.3, betas=(0.7, 0.95))
    optimizer = AdamW(0.3, 0.7, 0.95, weight_decay=0.2)
    for step in range(1, STEPS + 1):
        grads = [rng.standard_normal(param.shape) for param in params]
        optimizer.update(params, grads)
        for group in peer.param_groups:
            group["eps"] = 1e-7 / sqrt(1 - 0.95**step)
        for tensor, grad in zip(peers, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        peer.step()
        for param, tensor in zip(params, peers, strict=True):
            np.testing.assert_allclose(param, tensor.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_weight_decay_of_none_is_adam() -> None:
    one, two = np.ones((3, 2)), np.ones((3, 2))
    for optimizer, param in ((Adam(0.1), one), (AdamW(0.1, weight_decay=0.0), two)):
        for _ in range(3):
            optimizer.update([param], [np.full((3, 2), 0.5)])
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match=r"^`weight_decay` must be 0 or more, got -1$"):
        AdamW(weight_decay=-1)
