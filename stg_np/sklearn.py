"""The STG as a classifier of scikit-learn, for its pipelines, searches and scores.

This is the one module that needs scikit-learn: ``pip install 'stg-np[sklearn]'``.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from stg_np.backend import Array, to_device, to_host
from stg_np.data.augment import Scaling, validation_split
from stg_np.engine import Threads
from stg_np.evaluate import predict_logits
from stg_np.models.stg import STG
from stg_np.ops.losses import log_softmax
from stg_np.optim import ByRole, with_learning_rate
from stg_np.train import Examples, Run, TrainConfig, fit

try:
    from joblib import effective_n_jobs
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as missing:
    raise ImportError(
        f"stg_np.sklearn needs scikit-learn 1.6 or newer ({missing}): pip install 'stg-np[sklearn]'"
    ) from missing

GROUP = 16
"""Examples in a group, the unit of work of a thread: see :class:`~stg_np.train.TrainConfig`."""

FARTHEST = 1e4
"""Deviations from the mean; a feature beyond counts as this far away, so that no answer is NaN."""


class STGClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Short-term memory network (STG) classifier.

    A row of X is walked as a sequence by a stack of gated layers with a memory; the mean of the steps goes through one
    linear layer. Trained with Muon (matrices) and AdamW (the rest) on the cross-entropy, with a linear schedule.

    Features are standardised inside, by the mean and deviation of the training rows: each feature by itself, or with
    ``image_shape`` each channel. Scaling them before changes nothing.

    Parameters
    ----------
    image_shape : (height, width) or (height, width, channels), default=None
        What a row of X is, where it is a flattened picture. None: a vector, which is cut into pieces that are as long
        as there are pieces of them (64 features: 8 steps of 8; 30: 5 steps of 6; missing ones at the end are 0).

    view : {'rows', 'patches', 'pixels'}, default='rows'
        What one step sees of a picture; only with ``image_shape``.

    patch : (height, width), default=(2, 2)
        Size of a patch; only with ``view='patches'``.

    width : int, default=64
        Channels between the layers, half of them for each direction of the walk; even.

    layers : int, default=2
        Number of STM layers.

    epochs : int, default=30
        Passes over the training rows.

    batch_size : int, default=32
        Rows per step of the optimizer.

    learning_rate : float, default=0.01
        That of the matrices at the peak of the schedule; those of the other parameters follow in proportion.

    label_smoothing : float, default=0.0
        Probability that the targets give to all classes alike, below 1.

    validation_fraction : float, default=0.0
        Share of the training rows that is held out, of each class in proportion; the parameters of the epoch that was
        best on them are kept. 0: nothing is held out, and those of the last epoch are kept.

    device : {'cpu', 'cuda'}, default='cpu'
        Where it is computed; 'cuda' needs CuPy and an NVIDIA GPU. What was learned is kept on the host.

    n_jobs : int, default=None
        Threads on the CPU: None means 1, -1 all cores. Their number changes the time and not one bit of the result.

    random_state : int, RandomState instance or None, default=None
        Decides the initial parameters, the order of the rows and those held out. Pass an int for reproducible results.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels, sorted.

    n_features_in_ : int
        Number of features seen during :term:`fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features seen during :term:`fit`, where X has names that are all strings.

    n_iter_ : int
        The epoch whose parameters are kept, from 1.

    loss_curve_ : list of float
        Mean training loss (nats) of each epoch.

    validation_scores_ : list of float or None
        Accuracy on the rows held out after each epoch; None where none were.

    model_ : STG
        The configuration of the network.

    params_ : Params
        What was learned: ``params_["head.W"]`` is an array, ``params_.arrays()`` are all of them.

    scaler_ : StandardScaler
        The standardisation.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import train_test_split
    >>> from stg_np.sklearn import STGClassifier
    >>> X_train, X_test, y_train, y_test = train_test_split(*load_iris(return_X_y=True), random_state=0)
    >>> bool(STGClassifier(random_state=0).fit(X_train, y_train).score(X_test, y_test) > 0.9)
    True
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, ...] | None = None,
        view: Literal["rows", "patches", "pixels"] = "rows",
        patch: tuple[int, int] = (2, 2),
        width: int = 64,
        layers: int = 2,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        label_smoothing: float = 0.0,
        validation_fraction: float = 0.0,
        device: Literal["cpu", "cuda"] = "cpu",
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.image_shape = image_shape
        self.view = view
        self.patch = patch
        self.width = width
        self.layers = layers
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.label_smoothing = label_smoothing
        self.validation_fraction = validation_fraction
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on X and y, from the beginning.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The training rows.
        y : array-like of shape (n_samples,)
            Their class labels, of any type that can be sorted.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If X, y or a parameter is not what it should be.
        stg_np.divergence.TrainingError
            If the training diverges: lower the learning rate.
        """
        rows, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]!r}): give rows of two classes or more")
        shape = self._shape()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.model_ = STG(
            shape, len(self.classes_), view="rows" if self.image_shape is None else self.view, patch=self.patch,
            width=self.width, layers=self.layers,
        )  # fmt: skip
        config = TrainConfig(
            epochs=self.epochs, batch_size=self.batch_size, group_size=GROUP, seed=seed,
            optimizer=with_learning_rate(ByRole(), self.learning_rate), label_smoothing=self.label_smoothing,
        )  # fmt: skip
        self.scaler_ = StandardScaler().fit(self._columns(rows))
        everything = Examples(self._pictures(rows), labels.astype(np.int64))
        train, validation = everything, None
        if self.validation_fraction:
            kept, held_out = validation_split(everything.labels, self.validation_fraction, seed)
            train, validation = (Examples(*(array[rows] for array in everything)) for rows in (kept, held_out))
        self._train(Run(self.model_, config, train, validation, unscaled(shape[-1]), self.device))
        return self

    def _train(self, run: Run) -> None:
        self.loss_curve_, scores = [], []
        with self._engine() as engine:
            for record in fit(run, engine, log_every=run.steps_per_epoch):
                if record.kind != "epoch":
                    continue
                self.loss_curve_.append(record.loss)
                scores.append(record.validation_accuracy)
                if run.validation is None or record.is_best:
                    best = record
        self.validation_scores_ = None if run.validation is None else scores
        self.n_iter_ = best.epoch
        params, state = best.now.params, best.now.state
        self.params_ = params.with_flat(to_host(params.flat))
        self._state = {name: to_host(array) for name, array in state.items()}

    def predict(self, X: ArrayLike) -> Array:
        """The most probable class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Their class labels.
        """
        logits = self._logits(X)  # first: whoever is not fitted has no classes
        named: Array = self.classes_[logits.argmax(1)]
        return named

    def predict_proba(self, X: ArrayLike) -> Array:
        """The probability of each class for each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of ``classes_``; the sum of a row is 1.
        """
        probabilities = np.exp(self.predict_log_proba(X))
        normalised: Array = probabilities / probabilities.sum(1, keepdims=True)
        return normalised

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """The natural logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes)
            Logarithms, in the order of ``classes_``.
        """
        logarithms: Array = log_softmax(self._logits(X).astype(np.float64))
        return logarithms

    def _logits(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        params = self.params_.with_flat(to_device(self.params_.flat, self.device))
        state = {name: to_device(array, self.device) for name, array in self._state.items()}
        with self._engine() as engine:
            return predict_logits(
                self.model_, params, state, self._pictures(rows), engine, lambda group: to_device(group, self.device)
            )

    def _engine(self) -> Threads:
        return Threads(effective_n_jobs(self.n_jobs) if self.device == "cpu" else 1)

    def _shape(self) -> tuple[int, ...]:
        """The shape of an example; a vector is a picture of one column, whose pixels have many channels."""
        features = self.n_features_in_
        if self.image_shape is None:
            length = math.ceil(math.sqrt(features))
            return math.ceil(features / length), 1, length
        shape = (*self.image_shape, 1)[:3] if len(self.image_shape) == 2 else tuple(self.image_shape)
        if len(shape) != 3 or math.prod(shape) != features:
            raise ValueError(
                f"image_shape={self.image_shape} does not fit X, which has {features} features: give (height, width) "
                "or (height, width, channels), whose product they are"
            )
        return shape

    def _columns(self, X: Array) -> Array:
        """X such that every column is standardised by itself: the features, or the channels of all pixels."""
        return X if self.image_shape is None else X.reshape(-1, self._shape()[2])

    def _pictures(self, X: Array) -> Array:
        """Standardised rows in the shape of examples, float32."""
        shape = self.model_.input_shape
        with np.errstate(over="ignore"):
            scaled = self.scaler_.transform(self._columns(X)).reshape(len(X), -1).clip(-FARTHEST, FARTHEST)
        missing = math.prod(shape) - scaled.shape[1]
        pictures: Array = np.pad(scaled.astype(np.float32), ((0, 0), (0, missing))).reshape(-1, *shape)
        return pictures


def unscaled(channels: int) -> Scaling:
    """A scaling that changes nothing: it is done already."""
    return Scaling(np.zeros(channels), np.ones(channels), None)
