"""What the compiled library can do, by name: the only lists of kernels on the Python side."""

from __future__ import annotations

from . import _core

ACTIVATIONS = {entry["name"]: entry for entry in _core.activations()}
LOSSES = {entry["name"]: entry for entry in _core.losses()}
OPTIMIZERS = {entry["name"]: entry for entry in _core.optimizers()}
METRICS = dict.fromkeys(("accuracy", "mse", "mae"))

# The name of an activation's one parameter in Python; `param` where nothing better is said here.
PARAMETERS = {"leaky_relu": "negative_slope", "elu": "alpha"}
