"""Trains networks of every kind on the emulated device, for its library with every access watched.

A data race or a read of what nothing has written ends this with a traceback. tests/builds.py runs
it: a process has one CUDA library.
"""

import test_cuda_layers
import test_cuda_mixed
import test_cuda_persistent
import test_cuda_recurrent
import test_cuda_recurrent_mixed

for module in (test_cuda_layers, test_cuda_recurrent):
    for name in module.WATCHED:
        module.outcome(module.CASES[name], "cuda", "float32")
test_cuda_recurrent.fit_in_two_slices("cuda", "float64")
for dtype in ("float32", "bfloat16"):
    for name in ("rests everywhere", "few classes", "classes as rows", "logits"):
        for whole in (True, False):
            test_cuda_persistent.train(test_cuda_persistent.CASES[name], "cuda", dtype, whole=whole)
for name in ("all", "weights"):
    test_cuda_persistent.RULED[name].train("cuda")
for dtype in test_cuda_mixed.STEP:
    test_cuda_mixed.train_watched(dtype)
    test_cuda_recurrent_mixed.train_watched(dtype)
print("no hazard")
