"""Pickled estimators: their model travels as the bytes of its file, which hold no code."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from .. import files


class PickledModel(BaseEstimator):
    """An estimator whose model_, once fitted, is a fastbp.Sequential."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__().copy()
        if "model_" in state:
            state["model_"] = files.to_bytes(state["model_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = state.copy()
        if "model_" in state:
            state["model_"] = files.from_bytes(state["model_"], state["device"])
        super().__setstate__(state)
