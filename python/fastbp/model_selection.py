"""Model selection: BatchedGridSearchCV, for the estimators of fastbp.sklearn.

    from fastbp.model_selection import BatchedGridSearchCV
    search = BatchedGridSearchCV(MLPClassifier(), {"alpha": [1e-4, 1e-2]}, cv=3).fit(X, y)

Needs scikit-learn.
"""

from .sklearn import BatchedGridSearchCV

__all__ = ["BatchedGridSearchCV"]
