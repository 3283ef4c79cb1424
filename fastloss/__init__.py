"""fastloss: softmax, cross-entropy and their derivatives, as fast on a CPU as memory allows.

>>> import fastloss as fl
>>> fl.softmax([1, 2, 3]).round(4)
array([0.09  , 0.2447, 0.6652])

Importing the package brings no Numba; the first operation touched does, and the first call of an
operation on a type compiles it, once a machine (it is kept in a cache).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastloss._engine import process as _process  # noqa: F401 - now, since later it could not tell

if TYPE_CHECKING:
    from fastloss._engine.threads import num_threads as num_threads
    from fastloss._engine.threads import set_num_threads as set_num_threads
    from fastloss.binary import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
    from fastloss.binary import hinge_loss as hinge_loss
    from fastloss.binary import logistic_loss as logistic_loss
    from fastloss.binary import perceptron_loss as perceptron_loss
    from fastloss.binary import sigmoid_focal_loss as sigmoid_focal_loss
    from fastloss.binary import squared_hinge_loss as squared_hinge_loss
    from fastloss.cross_entropy import cross_entropy as cross_entropy
    from fastloss.cross_entropy import nll_loss as nll_loss
    from fastloss.divergence import distribution_cross_entropy as distribution_cross_entropy
    from fastloss.divergence import entropy as entropy
    from fastloss.divergence import entropy_from_logits as entropy_from_logits
    from fastloss.divergence import information_content as information_content
    from fastloss.divergence import js_divergence as js_divergence
    from fastloss.divergence import js_divergence_from_logits as js_divergence_from_logits
    from fastloss.divergence import kl_divergence as kl_divergence
    from fastloss.divergence import kl_divergence_from_logits as kl_divergence_from_logits
    from fastloss.gradcheck import check_gradient as check_gradient
    from fastloss.gradcheck import numerical_gradient as numerical_gradient
    from fastloss.margin import additive_margin_softmax_loss as additive_margin_softmax_loss
    from fastloss.margin import arcface_loss as arcface_loss
    from fastloss.margin import cosine_logits as cosine_logits
    from fastloss.margin import focal_loss as focal_loss
    from fastloss.margin import lse_hinge_loss as lse_hinge_loss
    from fastloss.margin import max_hinge_loss as max_hinge_loss
    from fastloss.margin import multiclass_hinge_loss as multiclass_hinge_loss
    from fastloss.penalty import feature_incay_penalty as feature_incay_penalty
    from fastloss.penalty import l1_penalty as l1_penalty
    from fastloss.penalty import l2_penalty as l2_penalty
    from fastloss.regression import huber_loss as huber_loss
    from fastloss.regression import l1_loss as l1_loss
    from fastloss.regression import log_cosh_loss as log_cosh_loss
    from fastloss.regression import mse_loss as mse_loss
    from fastloss.regression import pinball_loss as pinball_loss
    from fastloss.regression import smooth_l1_loss as smooth_l1_loss
    from fastloss.runtime import show_config as show_config
    from fastloss.runtime import warmup as warmup
    from fastloss.softmax import log_sigmoid as log_sigmoid
    from fastloss.softmax import log_softmax as log_softmax
    from fastloss.softmax import logsumexp as logsumexp
    from fastloss.softmax import sigmoid as sigmoid
    from fastloss.softmax import softmax as softmax
    from fastloss.softmax import softplus as softplus

__version__ = "0.1.0"

# Where each public name lives; touched, it is imported and stays.
_HOME = {
    "additive_margin_softmax_loss": "margin",
    "arcface_loss": "margin",
    "binary_cross_entropy_with_logits": "binary",
    "check_gradient": "gradcheck",
    "cosine_logits": "margin",
    "cross_entropy": "cross_entropy",
    "distribution_cross_entropy": "divergence",
    "entropy": "divergence",
    "entropy_from_logits": "divergence",
    "feature_incay_penalty": "penalty",
    "focal_loss": "margin",
    "hinge_loss": "binary",
    "huber_loss": "regression",
    "information_content": "divergence",
    "js_divergence": "divergence",
    "js_divergence_from_logits": "divergence",
    "kl_divergence": "divergence",
    "kl_divergence_from_logits": "divergence",
    "l1_loss": "regression",
    "l1_penalty": "penalty",
    "l2_penalty": "penalty",
    "log_cosh_loss": "regression",
    "log_sigmoid": "softmax",
    "log_softmax": "softmax",
    "logistic_loss": "binary",
    "logsumexp": "softmax",
    "lse_hinge_loss": "margin",
    "max_hinge_loss": "margin",
    "mse_loss": "regression",
    "multiclass_hinge_loss": "margin",
    "nll_loss": "cross_entropy",
    "num_threads": "_engine.threads",
    "numerical_gradient": "gradcheck",
    "perceptron_loss": "binary",
    "pinball_loss": "regression",
    "set_num_threads": "_engine.threads",
    "show_config": "runtime",
    "sigmoid": "softmax",
    "sigmoid_focal_loss": "binary",
    "smooth_l1_loss": "regression",
    "softmax": "softmax",
    "softplus": "softmax",
    "squared_hinge_loss": "binary",
    "warmup": "runtime",
}

__all__ = [
    "additive_margin_softmax_loss",
    "arcface_loss",
    "binary_cross_entropy_with_logits",
    "check_gradient",
    "cosine_logits",
    "cross_entropy",
    "distribution_cross_entropy",
    "entropy",
    "entropy_from_logits",
    "feature_incay_penalty",
    "focal_loss",
    "hinge_loss",
    "huber_loss",
    "information_content",
    "js_divergence",
    "js_divergence_from_logits",
    "kl_divergence",
    "kl_divergence_from_logits",
    "l1_loss",
    "l1_penalty",
    "l2_penalty",
    "log_cosh_loss",
    "log_sigmoid",
    "log_softmax",
    "logistic_loss",
    "logsumexp",
    "lse_hinge_loss",
    "max_hinge_loss",
    "mse_loss",
    "multiclass_hinge_loss",
    "nll_loss",
    "num_threads",
    "numerical_gradient",
    "perceptron_loss",
    "pinball_loss",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "squared_hinge_loss",
    "warmup",
]


class _Package(ModuleType):
    """A package whose operations win over the submodules of the same name.

    `fastloss.softmax` is the operation. Importing the submodule, which the operation lives in, would
    bind the module over it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _HOME:
            value = getattr(value, name)
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastloss' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastloss.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
