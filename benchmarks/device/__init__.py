"""The one run on a CUDA device: `benchmarks/gpu_check.sh` calls the steps of this package one after the other.

A step is a process of its own, ``python -m benchmarks.device STEP``. It cuts its work into items, has them measured by
worker processes that alone touch the device, and writes ``results.json`` after each of them. An item that raises, hangs
or kills its worker is an entry with the reason; the next one gets a fresh worker, since an error of CUDA stays with its
process. What a step cannot begin before its time is over is an entry, too.

| step | module | what it finds |
| --- | --- | --- |
| versions | `versions` | what is installed, clocks, TF32; every kernel compiled, with registers and local bytes |
| exactness | `exactness` | layers and attention against float64, memory poisoned, twice, the same bits |
| tests | `suite` | the tests with a CuPy variant, as JUnit XML |
| sanitizer | `sanitizer` | memcheck and racecheck on small shapes |
| attention | `attention` | all cases of `attnlayers bench` against each kernel of PyTorch: wall, host and device |
| training | `training` | a training step, an epoch, and the device's time by kernel |
| recurrent | `recurrent` | the LSTM, forward and backward, in one launch, step by step and by PyTorch |
| tuning | `tuning` | small kernel against tiles, the cost of a launch, ceilings |
| table | `table` | at most 48 lines of all of it |
"""
