"""Estimators for scikit-learn on fastbp's engine: MLPClassifier and MLPRegressor for rows,
SequenceClassifier and SequenceRegressor for sequences.

    from fastbp.sklearn import MLPClassifier
    model = make_pipeline(StandardScaler(), MLPClassifier((64, 32), random_state=0))

The first two take the constructor arguments of scikit-learn's own. All work wherever an estimator
does: pipelines, cross-validation, grid and random search, clone, pickle. Needs scikit-learn 1.6 or
later; `import fastbp` does not.
"""

try:
    from sklearn.utils.validation import validate_data as _validate_data  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastbp.sklearn needs scikit-learn 1.6 or later, which cannot be imported "
        f"({error}): pip install 'fastbp[sklearn]'"
    ) from error

from .classifier import MLPClassifier
from .regressor import MLPRegressor
from .search import BatchedGridSearchCV
from .sequences import SequenceClassifier, SequenceRegressor

__all__ = [
    "BatchedGridSearchCV",
    "MLPClassifier",
    "MLPRegressor",
    "SequenceClassifier",
    "SequenceRegressor",
]
