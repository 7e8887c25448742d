"""Cross-entropy of softmax, over labels."""

import re
from math import log

import numpy as np
import pytest
import reference
from support import Draw, Library, assert_as_exact_as

from attnlayers import functional as F

NAN, INF = np.nan, np.inf


def run(
    library: Library, logits: object, labels: object, dloss: float = 1.0, **options: int
) -> tuple[float, np.ndarray]:
    """The loss and its gradient."""
    loss, saved = F.cross_entropy(library.array(logits), library.array(labels, "int64"), **options)
    assert tuple(loss.shape) == ()
    return float(library.numpy(loss)), library.numpy(F.cross_entropy_backward(saved, dloss))


def test_by_hand(library: Library) -> None:
    loss, dlogits = run(library, [[0.0, log(3)], [log(4), 0.0], [7.0, 7.0]], [0, 0, -1])
    assert loss == pytest.approx((log(4) + log(5 / 4)) / 2)
    assert dlogits == pytest.approx(np.array([[-3 / 8, 3 / 8], [-1 / 10, 1 / 10], [0, 0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "ignore"), [((), -1), ((7,), 3), ((2, 5), -1), ((2, 3, 5), 0), ((2, 3, 5), -100), ((61,), -1)]
)
def test_against_a_loop(library: Library, shape: tuple[int, ...], dtype: str, ignore: int) -> None:
    V = 211
    draw = Draw(library, dtype)
    logits, numbers = draw(*shape, V), np.random.default_rng(1).integers(V, size=shape)
    numbers = np.where(np.random.default_rng(2).random(shape) < 0.3, ignore, numbers)
    loss, saved = F.cross_entropy(logits, library.array(numbers), ignore_label=ignore)
    dlogits = library.numpy(F.cross_entropy_backward(saved, 3.0)).reshape(-1, V)
    rows, labels = library.numpy(logits).reshape(-1, V), numbers.reshape(-1)
    exact_loss, exact = reference.cross_entropy(rows.astype(np.float64), labels, ignore)
    plain_loss, plain = reference.cross_entropy(rows, labels, ignore)
    assert float(library.numpy(loss)) == pytest.approx(exact_loss, rel=8 * float(np.finfo(dtype).eps))
    assert plain_loss == pytest.approx(exact_loss, rel=1e-5)
    assert_as_exact_as((3 * plain).astype(dtype), dlogits, 3 * exact)


def test_large_logits(library: Library) -> None:
    loss, dlogits = run(library, [[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, -1e4]], [0, 0, 0, 1])
    assert loss == pytest.approx((2e4 + 2 * log(2)) / 4)
    assert dlogits.tolist() == [[0, 0], [-0.25, 0.25], [-0.125, 0.125], [0.125, -0.125]]


def test_where_no_label_counts(library: Library) -> None:
    loss, dlogits = run(library, np.ones((2, 3)), [-1, -1])
    assert loss == 0
    assert dlogits.tolist() == [[0, 0, 0]] * 2
    assert [run(library, np.zeros((rows, 0)), [-1] * rows)[0] for rows in range(9)] == [0] * 9


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_of_no_labels(library: Library, shape: tuple[int, ...]) -> None:
    loss, dlogits = run(library, np.zeros((*shape, 5)), np.zeros(shape))
    assert loss == 0
    assert dlogits.shape == (*shape, 5)


def test_the_gradient_of_the_loss_may_be_an_array(library: Library) -> None:
    logits, labels = library.array([[1.0, 2.0, 4.0]], "float32"), library.array([1])
    _, saved = F.cross_entropy(logits, labels)
    two = library.array(2.0, "float32")
    by_array, by_number = F.cross_entropy_backward(saved, two), F.cross_entropy_backward(saved, 2.0)
    assert by_array.dtype == by_number.dtype == logits.dtype
    assert np.array_equal(library.numpy(by_array), library.numpy(by_number))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_nan_and_infinity_stay_in_their_rows(library: Library, bad: float) -> None:
    _, good = run(library, np.zeros((3, 2)), [0, 1, 0])
    _, dlogits = run(library, [[0.0, 0.0], [bad, 0.0], [0.0, 0.0]], [0, 1, 0])
    assert np.array_equal(dlogits[[0, 2]], good[[0, 2]])


def test_nan_in_the_logits_is_nan_in_the_loss(library: Library) -> None:
    assert np.isnan(run(library, [[0.0, 0.0], [NAN, 0.0]], [0, 1])[0])
    assert run(library, [[0.0, -INF], [0.0, 0.0]], [1, 0])[0] == INF


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_row_that_does_not_count_may_hold_anything(library: Library, bad: float) -> None:
    loss, dlogits = run(library, [[0.0, 0.0], [bad, 1.0]], [1, -1])
    assert loss == pytest.approx(log(2))
    assert dlogits.tolist() == [[0.5, -0.5], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "ignore", "outside"),
    [([0, 5], -1, 5), ([-2, 0], -1, -2), ([0, -1], -100, -1), ([0, -50], -100, -50), ([-1, 0], 0, -1), ([9, 0], 0, 9)],
)
def test_labels_outside_the_vocabulary(library: Library, labels: list[int], ignore: int, outside: int) -> None:
    expected = (
        f"`labels` must lie in 0 .. 4, or be {ignore} where they do not count, got {outside}: "
        "give logits a column for each label"
    )
    with pytest.raises(IndexError, match=f"^{re.escape(expected)}$"):
        library.wait(F.cross_entropy(library.array(np.zeros((2, 5))), library.array(labels), ignore_label=ignore))


def test_the_label_to_ignore_may_be_any_number(library: Library) -> None:
    expected = run(library, [[1.0, 2.0], [3.0, 5.0]], [1, -1])
    for ignore in (2, 255, -100):
        loss, dlogits = run(library, [[1.0, 2.0], [3.0, 5.0]], [1, ignore], ignore_label=ignore)
        assert loss == pytest.approx(expected[0])
        np.testing.assert_allclose(dlogits, expected[1])


@pytest.mark.parametrize("kind", ["int32", "uint8"])
def test_labels_of_every_width(library: Library, kind: str) -> None:
    logits = Draw(library)(3, 5)
    loss, saved = F.cross_entropy(logits, library.array([4, 0, 2], kind))
    expected, dlogits = run(library, library.numpy(logits), [4, 0, 2])
    assert float(library.numpy(loss)) == expected
    np.testing.assert_array_equal(library.numpy(F.cross_entropy_backward(saved)), dlogits)


def test_bad_input(library: Library) -> None:
    logits, ids = library.array(np.zeros((2, 3, 5))), library.array(np.zeros((2, 4)), "int64")
    message = "`labels` must have shape (...,) = (2, 3) to go with logits (2, 3, 5), got (2, 4)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.cross_entropy(logits, ids)
    with pytest.raises(TypeError, match=r"^`labels` must be integers, got .*float64: convert it with xp.astype$"):
        F.cross_entropy(logits, library.array(np.zeros((2, 3))))
    with pytest.raises(TypeError, match=r"^`logits` must be floating point, got .*int64: convert it with xp.astype$"):
        F.cross_entropy(ids, ids[:, 0])


# -- smoothing


@pytest.mark.parametrize("shape", [(7,), (2, 3, 5)])
@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_smoothing_against_a_loop(library: Library, shape: tuple[int, ...], smoothing: float) -> None:
    """The wanted probabilities written out: ``smoothing / V`` for every class, the rest for the label."""
    V = 11
    draw = Draw(library, "float64")
    logits, labels = draw(*shape, V), np.random.default_rng(1).integers(V, size=shape)
    labels = np.where(np.random.default_rng(2).random(shape) < 0.3, -1, labels)
    loss, saved = F.cross_entropy(logits, library.array(labels), label_smoothing=smoothing)
    dlogits = library.numpy(F.cross_entropy_backward(saved, 3.0)).reshape(-1, V)
    rows, total, expected, count = library.numpy(logits).reshape(-1, V), 0.0, np.zeros((labels.size, V)), 0
    for row, label, place in zip(rows, labels.reshape(-1), expected, strict=True):
        if label == -1:
            continue
        count += 1
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        wanted = np.full(V, smoothing / V)
        wanted[label] += 1 - smoothing
        total -= np.sum(wanted * np.log(p))
        place[:] = p - wanted
    assert float(library.numpy(loss)) == pytest.approx(total / count)
    np.testing.assert_allclose(dlogits, 3 * expected / count, atol=1e-14)


def test_smoothing_as_pytorch_has_it() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).standard_normal((6, 5))
    labels = np.array([0, 4, -1, 2, 2, -1])
    tensor = torch.tensor(logits, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels), ignore_index=-1, label_smoothing=0.2)
    theirs.backward()
    loss, saved = F.cross_entropy(logits, labels, label_smoothing=0.2)
    assert float(loss) == pytest.approx(theirs.item())
    np.testing.assert_allclose(F.cross_entropy_backward(saved), tensor.grad.numpy(), atol=1e-15)


def test_smoothing_of_half_precision() -> None:
    logits = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float16)
    loss, saved = F.cross_entropy(logits, np.arange(6) % 5, label_smoothing=0.2)
    exact, exact_saved = F.cross_entropy(logits.astype(np.float64), np.arange(6) % 5, label_smoothing=0.2)
    assert float(loss) == pytest.approx(float(exact), rel=2e-3)
    dlogits = F.cross_entropy_backward(saved)
    assert dlogits.dtype == np.float16
    np.testing.assert_allclose(dlogits, F.cross_entropy_backward(exact_saved), atol=2e-4)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, NAN])
def test_a_smoothing_out_of_its_range(smoothing: float) -> None:
    with pytest.raises(ValueError, match=rf"^`label_smoothing` must lie in \[0, 1\), got {smoothing}$"):
        F.cross_entropy(np.ones((2, 3)), np.zeros(2, np.int64), label_smoothing=smoothing)
