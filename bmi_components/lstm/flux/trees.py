"""Flux models that are ensembles of decision trees, kept as plain arrays: stepping needs no other package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import BundleError
from bmi_components.lstm.flux.models import FluxModel
from bmi_components.trained_model import TrainedModel

__all__ = ["TREE_MODELS", "TreeModel", "random_forest_arrays", "xgboost_arrays"]

TREE_MODELS = ("random_forest", "xgboost")

Arrays = dict[str, NDArray[Any]]

_MOST_NODES = 2**24
"""Node numbers are saved as float32, which is exact up to here."""

_VALUES_AT_ONCE = 2**20
"""Pairs of window and tree that are worked on together."""


class TreeModel(FluxModel):
    """A random forest (Breiman 2001) or gradient-boosted trees (Chen and Guestrin 2016) on all days of a window.

    The bundle's weights describe every node of every tree, one after the other: ``feature[node]`` and
    ``threshold[node]`` say which number of the flattened window ``[day * input]`` is compared, ``left[node]`` and
    ``right[node]`` where a window goes whose number is at most, or above, the threshold, and ``value[node]`` what a
    leaf gives; a leaf leads to itself. ``root[tree]`` is where each tree begins. A forest gives the trees' mean,
    boosting ``base`` plus their sum.

    Raises
    ------
    BundleError
        If the arrays do not make trees.
    """

    def __init__(self, bundle: TrainedModel) -> None:
        super().__init__(bundle)
        weights = bundle.weights
        needed = {"feature", "threshold", "left", "right", "value", "root", "base"}
        if set(weights) != needed:
            raise BundleError(
                f"the bundle's weights are {', '.join(sorted(weights))}; trees need {', '.join(sorted(needed))}"
            )
        nodes = weights["value"].size
        features = self.sequence_length * len(self.input_names)
        self._feature = _whole_numbers("feature", weights["feature"], nodes, features)
        self._left = _whole_numbers("left", weights["left"], nodes, nodes)
        self._right = _whole_numbers("right", weights["right"], nodes, nodes)
        self._root = _whole_numbers("root", weights["root"], weights["root"].size, nodes)
        if weights["threshold"].shape != (nodes,) or weights["base"].shape != (1,) or not self._root.size:
            raise BundleError(
                "the trees need one threshold per node, one number as base and at least one tree"
            )
        self._threshold = weights["threshold"].astype(np.float32)
        self._value = weights["value"]
        self._base = weights["base"]
        self._mean = self.hyperparameters.model == "random_forest"
        self._depth = self._measure_depth()

    def _measure_depth(self) -> int:
        """Return how many comparisons the longest path takes; refuse arrays in which a path never ends."""
        level, depth = np.unique(self._root), 0
        own = np.arange(self._value.size)
        while True:
            inner = level[(self._left[level] != own[level]) | (self._right[level] != own[level])]
            if not inner.size:
                return depth
            if (self._left[inner] <= inner).any() or (self._right[inner] <= inner).any():
                raise BundleError("a tree's branch leads back; children must come after their parent")
            level = np.unique(np.concatenate((self._left[inner], self._right[inner])))
            depth += 1

    def _predict(self, inputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        x = inputs.reshape(len(inputs), -1).astype(np.float32)
        windows = max(1, _VALUES_AT_ONCE // self._root.size)
        result = np.empty(len(x))
        for start in range(0, len(x), windows):
            result[start : start + windows] = self._combine(self._leaves(x[start : start + windows]))
        return result

    def _leaves(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the leaf that each window reaches in each tree, ``[window, tree]``."""
        rows = np.arange(len(x))[:, None]
        node = np.broadcast_to(self._root, (len(x), self._root.size))
        for _ in range(self._depth):
            goes_left = x[rows, self._feature[node]] <= self._threshold[node]
            node = np.where(goes_left, self._left[node], self._right[node])
        return node

    def _combine(self, leaves: NDArray[np.int64]) -> NDArray[np.float64]:
        values = self._value[leaves]
        if self._mean:
            mean: NDArray[np.float64] = values.mean(axis=1, dtype=np.float64)
            return mean
        # one tree after the other in float32, as XGBoost adds them
        start = np.broadcast_to(self._base.astype(np.float32), (len(values), 1))
        total = np.concatenate((start, values.astype(np.float32)), axis=1).cumsum(axis=1, dtype=np.float32)
        return total[:, -1].astype(np.float64)


def random_forest_arrays(forest: Any) -> Arrays:
    """Turn a fitted ``sklearn.ensemble.RandomForestRegressor`` of one output into a bundle's weights."""
    trees = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        # scikit-learn compares float32 inputs with float64 thresholds: x <= t holds just when x <= t rounded down
        threshold = tree.threshold.astype(np.float32)
        above = threshold > tree.threshold
        threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
        trees.append((tree.children_left, tree.children_right, tree.feature, threshold, tree.value[:, 0, 0]))
    return _concatenate(trees, base=0.0, values=np.float64)


def xgboost_arrays(regressor: Any) -> Arrays:
    """Turn a fitted ``xgboost.XGBRegressor`` with squared error into a bundle's weights."""
    learner = json.loads(regressor.get_booster().save_raw("json"))["learner"]
    trees = []
    for tree in learner["gradient_booster"]["model"]["trees"]:
        condition = np.array(tree["split_conditions"], dtype=np.float32)  # of a leaf: its value
        # XGBoost goes left where x < t, that is where x is at most the number before t
        threshold = np.nextafter(condition, np.float32(-np.inf))
        children = (np.array(tree[name]) for name in ("left_children", "right_children", "split_indices"))
        trees.append((*children, threshold, condition))
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    return _concatenate(trees, base=base, values=np.float32)


def _concatenate(
    trees: Sequence[tuple[NDArray[Any], ...]], base: float, values: type[np.float32] | type[np.float64]
) -> Arrays:
    """Put trees ``(left, right, feature, threshold, value)`` one after the other; -1 as left child marks a leaf."""
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("left", "right", "feature", "threshold", "value")
    }
    roots, first = [], 0
    for left, right, feature, threshold, value in trees:
        own = np.arange(left.size)
        leaf = left == -1
        parts["left"].append(np.where(leaf, own, left) + first)
        parts["right"].append(np.where(leaf, own, right) + first)
        parts["feature"].append(np.where(leaf, 0, feature))
        parts["threshold"].append(np.where(leaf, 0.0, threshold))
        parts["value"].append(np.where(leaf, value, 0.0))
        roots.append(first)
        first += left.size
    if first > _MOST_NODES:
        raise BundleError(
            f"the trees have {first:,} nodes together; at most {_MOST_NODES:,} can be kept: fewer or shallower trees"
        )
    arrays: Arrays = {name: np.concatenate(arrays).astype(np.float32) for name, arrays in parts.items()}
    arrays["value"] = np.concatenate(parts["value"]).astype(values)
    arrays["root"] = np.array(roots, dtype=np.float32)
    arrays["base"] = np.array([base], dtype=np.float32)
    return arrays


def _whole_numbers(name: str, array: NDArray[Any], size: int, limit: int) -> NDArray[np.int64]:
    """Check and convert an array of positions below ``limit``."""
    whole = array.astype(np.int64)
    if array.shape != (size,) or (whole != array).any() or (whole < 0).any() or (whole >= limit).any():
        raise BundleError(
            f"the trees' {name} must hold {size} whole numbers from 0 to {limit - 1}; shape is {array.shape}"
        )
    return whole
