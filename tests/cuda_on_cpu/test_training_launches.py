"""What training and answers of the book's chapter 8 model ask of a device: few launches, no copies, no waiting."""

from cuda_on_cpu.bench_process import needs_bench, output_of

pytestmark = needs_bench

STEP = """
from attnbackends import get_backend
from attnlayers.models import AttentionSeq2seq
from attnlayers.training import AdamW, clip_grads
backend = get_backend("cupy")
rng = np.random.default_rng(0)
model, optimizer = AttentionSeq2seq(11, 5, 7, backend=backend), AdamW(0.01, weight_decay=0.01)
sources, inputs, labels = (backend.asarray(rng.integers(0, 11, (20, T))) for T in (6, 4, 4))

def step():
    global loss
    before = counts()
    loss = model.forward(sources, inputs, labels)
    forward = counts()
    model.backward()
    backward = counts()
    clip_grads(model.grads, 1.0)
    optimizer.update(model.params, model.grads)
    return [forward - before, backward - forward, counts() - backward]

first = step()
for taken in step():
    others = {name: number for name, number in taken.launches.items() if not name.startswith(("lstm", "attention"))}
    print(others, taken.to_device, taken.to_host, taken.synchronizations, taken.on_device)
whole = step()
print(sum(one.all_launches + one.products + one.on_device for one in whole))
"""


def test_a_step_of_chapter_8() -> None:
    forward, backward, update, total = output_of(STEP)
    # Rows of two tables; scores after the bias; two inputs side by side; a first state without gaps; the loss.
    own = "'cross_entropy_mean': 1, 'cross_entropy_rows': 1, 'cupy_add__float32_float32_float32': 1, "
    assert forward == f"{{{own}'cupy_copy__float32_float32': 3, 'take_rows': 2}} 0 0 0 0"
    own = "'cross_entropy_backward': 1, 'cupy_add__float32_float32_float32': 2, 'scatter_add': 2, 'sum_rows': 1"
    assert backward == f"{{{own}}} 0 0 0 0"  # gradients of weights are written where the layers have them
    assert update == "{'adam_step': 1, 'clip': 1, 'sums_of_squares': 1} 0 0 0 0"
    assert int(total) <= 60


ANSWERS = """
from attnbackends import get_backend
from attnlayers.models import AttentionSeq2seq
backend = get_backend("cupy")
rng = np.random.default_rng(0)
model = AttentionSeq2seq(11, 5, 7, backend=backend)
sources = backend.asarray(rng.integers(0, 11, (20, 6)))
mask = backend.asarray(np.arange(6) < rng.integers(1, 7, 20)[:, None])

def asked(max_length):
    before = counts()
    model.generate(sources, 0, 99, max_length, mask, return_weights=False)
    return counts() - before

asked(20)
short, middle, long = asked(3), asked(13), asked(23)
taken = middle - short
print(taken.all_launches + taken.products + taken.on_device, taken.to_host, taken.synchronizations)
print((long - middle).to_host)
"""


def test_ten_steps_of_a_batch_that_is_answered() -> None:
    each_ten, looks = output_of(ANSWERS)
    launches, to_host, synchronizations = map(int, each_ten.split())
    assert launches <= 10 * 10
    assert (to_host, synchronizations, looks) == (0, 0, "1")  # whether all have ended is looked at after 16 steps
