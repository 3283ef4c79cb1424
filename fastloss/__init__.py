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

if TYPE_CHECKING:
    from fastloss._engine.threads import num_threads as num_threads
    from fastloss._engine.threads import set_num_threads as set_num_threads
    from fastloss.cross_entropy import cross_entropy as cross_entropy
    from fastloss.cross_entropy import nll_loss as nll_loss
    from fastloss.gradcheck import check_gradient as check_gradient
    from fastloss.gradcheck import numerical_gradient as numerical_gradient
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
    "check_gradient": "gradcheck",
    "cross_entropy": "cross_entropy",
    "log_sigmoid": "softmax",
    "log_softmax": "softmax",
    "logsumexp": "softmax",
    "nll_loss": "cross_entropy",
    "num_threads": "_engine.threads",
    "numerical_gradient": "gradcheck",
    "set_num_threads": "_engine.threads",
    "show_config": "runtime",
    "sigmoid": "softmax",
    "softmax": "softmax",
    "softplus": "softmax",
    "warmup": "runtime",
}

__all__ = [
    "check_gradient",
    "cross_entropy",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "num_threads",
    "numerical_gradient",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "softmax",
    "softplus",
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
