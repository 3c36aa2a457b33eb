"""`fastbp demo`: train a classifier of handwritten digits, and compare with the NumPy reference."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

from .. import text
from . import arguments as kinds
from .errors import CommandError

DESCRIPTION = """\
Train a 64-128-10 network on scikit-learn's bundled handwritten digits (1797 images of 8x8), then
do the same job with the NumPy reference: same start, same batches. Prints the accuracy on images
the network has not seen, both times, and how far the two results differ.
"""
EXAMPLES = """\
examples:
  fastbp demo
  fastbp demo --epochs 5 --seed 1
  FASTBP_NUM_THREADS=1 fastbp demo       the result has the same bits; only the time changes

Needs scikit-learn: pip install 'fastbp[demo]' (in a source folder: pip install '.[demo]').
"""


LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 inputs in 0..1, labels 0..9, cut in training and test parts."""

    train_images: Any
    test_images: Any
    train_labels: Any
    test_labels: Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="train on handwritten digits and compare with NumPy",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=kinds.positive_int, default=30, help="default: 30")
    parser.add_argument("--batch-size", type=kinds.positive_int, default=32, help="default: 32")
    parser.add_argument("--seed", type=kinds.seed, default=0, help="default: 0")
    kinds.add_device_and_dtype(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    import fastbp as bp

    digits = _load_digits(arguments.seed)
    text.line(
        "data", f"{len(digits.train_images)} images to train, {len(digits.test_images)} to test"
    )
    text.line(
        "network",
        f"64-128-10, relu, softmax_cross_entropy, Adam, batch {arguments.batch_size}, "
        f"{arguments.epochs} epochs, {arguments.dtype}",
    )
    text.line("machine", _machine(bp.info()))
    text.line("training", "fastbp, then NumPy")
    model, duration = _train(digits, arguments, arguments.device)
    reference, reference_duration = _train(digits, arguments, "reference")

    logits, expected = model.predict(digits.test_images), reference.predict(digits.test_images)
    accuracy = float(np.mean(logits.argmax(axis=1) == digits.test_labels))
    steps = arguments.epochs * -(-len(digits.train_images) // arguments.batch_size)
    agree = int(np.sum(logits.argmax(axis=1) == expected.argmax(axis=1)))
    apart = max(
        float(np.max(np.abs(mine - reference.parameters()[name])))
        for name, mine in model.parameters().items()
    )
    text.line("accuracy", f"{accuracy:.4f} on the {len(logits)} test images")
    text.line("fastbp", f"{text.seconds(duration)} ({text.seconds(duration / steps)} per step)")
    text.line(
        "NumPy",
        f"{text.seconds(reference_duration)} for the same job: "
        f"fastbp is {reference_duration / duration:.1f} times as fast",
    )
    text.line(
        "agreement",
        f"largest difference of a parameter {apart:.1e}, of a logit "
        f"{float(np.max(np.abs(logits - expected))):.1e};\n"
        f"same prediction for {agree} of {len(logits)} test images",
    )
    return 0


def _load_digits(seed: int) -> Digits:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise CommandError(
            f"the digits come with scikit-learn, which cannot be imported ({error}).\n"
            "Install it with: pip install 'fastbp[demo]'; "
            "in a source folder with: pip install '.[demo]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images / 16, labels, test_size=0.2, stratify=labels, random_state=seed % 2**32
    )
    return Digits(*parts)


def _train(digits: Digits, arguments: argparse.Namespace, device: str) -> tuple[Any, float]:
    """The trained model and the seconds that `fit` took."""
    import fastbp as bp

    model = bp.Sequential([bp.Dense(128, activation="relu"), bp.Dense(10)], seed=arguments.seed)
    model.compile(
        optimizer=bp.Adam(LEARNING_RATE),
        loss="softmax_cross_entropy",
        metrics=["accuracy"],
        device=device,
        dtype=arguments.dtype,
    )
    start = time.perf_counter()
    model.fit(
        digits.train_images,
        digits.train_labels,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        verbose="auto",
    )
    return model, time.perf_counter() - start


def _machine(info: dict[str, Any]) -> str:
    return f"{info['cpu']}, {info['isa']}, {text.plural(info['threads'], 'thread')}"
