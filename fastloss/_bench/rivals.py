"""One table of who computes what: a class a library, a method an operation.

A method returns the call to be timed, which computes the operation once and returns what NumPy can
convert. Each library is given its best form: an output that is there already where it takes one,
contiguous arrays, fastloss's number of threads (JAX sizes its own pool by the CPUs it may run on). A
library is imported when its class is made.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import fastloss as fl
from fastloss._bench.operations import Call, Candidate, quietly
from fastloss._bench.sizes import Problem
from fastloss._bench.tensors import Jax, Torch, TorchCompile
from fastloss._bench.textbook import NumPy, OnArrays
from fastloss._engine import threads


class Fastloss:
    def __init__(self, problem: Problem) -> None:
        self.problem, self.axis, self.out = problem, problem.axis, problem.out
        self.x, self.y = problem.logits, problem.targets

    def softmax(self) -> Call:
        return partial(fl.softmax, self.x, axis=self.axis)

    def softmax_out(self) -> Call:
        return partial(fl.softmax, self.x, axis=self.axis, out=self.out)

    def log_softmax_out(self) -> Call:
        return partial(fl.log_softmax, self.x, axis=self.axis, out=self.out)

    def logsumexp(self) -> Call:
        return partial(fl.logsumexp, self.x, axis=self.axis)

    def cross_entropy(self) -> Call:
        return partial(fl.cross_entropy, self.x, self.y, axis=self.axis)

    def value_and_grad(self) -> Call:
        return partial(fl.cross_entropy.value_and_grad, self.x, self.y, axis=self.axis, out=self.out)

    def value_and_grad_in_place(self) -> Candidate:
        call = partial(fl.cross_entropy.value_and_grad, self.out, self.y, axis=self.axis, out=self.out)
        return Candidate(call, self.problem.restore)

    def jvp(self) -> Call:
        return partial(fl.softmax.jvp, self.x, self.problem.vector, axis=self.axis, out=self.out)

    def vjp(self) -> Call:
        return partial(fl.softmax.vjp, self.x, self.problem.vector, axis=self.axis, out=self.out)

    def vjp_from_output(self) -> Call:
        p, u = self.problem.probs, self.problem.vector
        return partial(fl.softmax.vjp_from_output, p, u, axis=self.axis, out=self.out)


class SciPy(OnArrays):

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.special = quietly("scipy.special")

    def softmax(self) -> Call:
        return lambda: self._narrow(self.special.softmax(self._wide(self.x), axis=self.axis))

    softmax_out = softmax

    def log_softmax_out(self) -> Call:
        return lambda: self._narrow(self.special.log_softmax(self._wide(self.x), axis=self.axis))

    def logsumexp(self) -> Call:
        return lambda: self.special.logsumexp(self._wide(self.x), axis=self.axis)

    def cross_entropy(self) -> Call:
        def call() -> Any:
            return -self._taken(self.special.log_softmax(self._wide(self.x), axis=self.axis)).mean()

        return call


class OnnxRuntime:
    """A model of one Softmax."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.runtime = problem, quietly("onnxruntime")
        onnx = quietly("onnx")
        kind = onnx.helper.np_dtype_to_tensor_dtype(problem.dtype)
        ends = [onnx.helper.make_tensor_value_info(n, kind, problem.workload.shape) for n in "xy"]
        node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=problem.axis)
        graph = onnx.helper.make_graph([node], "softmax", ends[:1], ends[1:])
        opset = onnx.helper.make_opsetid("", 13)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = threads.count()
        # Its threads would spin after a call, in the time of whoever comes next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = self.runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def softmax(self) -> Call:
        return lambda: self.session.run(None, {"x": self.problem.logits})[0]

    def softmax_out(self) -> Call:
        out, binding = self.problem.out, self.session.io_binding()
        binding.bind_cpu_input("x", self.problem.logits)
        binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)

        def call() -> Any:
            self.session.run_with_iobinding(binding)
            return out

        return call


class ScikitLearn:
    """The loss of multinomial logistic regression; a weight of 1/N a row makes it a mean."""

    def __init__(self, problem: Problem) -> None:
        rows, dtype = problem.workload.rows, problem.dtype
        self.loss = quietly("sklearn._loss.loss").HalfMultinomialLoss(n_classes=problem.workload.classes)
        self.arguments = {
            "y_true": problem.targets.astype(dtype), "raw_prediction": problem.logits,
            "sample_weight": np.full(rows, 1 / rows, dtype), "loss_out": np.empty(rows, dtype),
            "gradient_out": problem.out, "n_threads": threads.count(),
        }

    def value_and_grad(self) -> Call:
        def call() -> tuple[Any, Any]:
            losses, grad = self.loss.loss_gradient(**self.arguments)
            return losses.sum(), grad

        return call


class Library(NamedTuple):
    """Its name as printed, what it imports, the distribution that has its version, its class."""

    label: str
    modules: tuple[str, ...]
    distribution: str
    adapter: Any
    dtypes: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")
    axes: tuple[int, ...] = (-1, 0)


LIBRARIES = {
    "fastloss": Library("fastloss", ("fastloss",), "fastloss", Fastloss),
    "numpy": Library("NumPy", ("numpy",), "numpy", NumPy),
    "scipy": Library("SciPy", ("scipy",), "scipy", SciPy),
    "torch": Library("PyTorch", ("torch",), "torch", Torch),
    "torch.compile": Library("torch.compile", ("torch",), "torch", TorchCompile),
    "jax": Library("JAX", ("jax",), "jax", Jax),
    "onnxruntime": Library(
        "ONNX Runtime", ("onnxruntime", "onnx"), "onnxruntime", OnnxRuntime,
        dtypes=("float32", "float64", "float16"),
    ),
    "sklearn": Library(
        "scikit-learn", ("sklearn",), "scikit-learn", ScikitLearn,
        dtypes=("float32", "float64"), axes=(-1,),
    ),
}  # fmt: skip


def is_installed(library: str) -> bool:
    return all(find_spec(module) is not None for module in LIBRARIES[library].modules)


def computes(library: str, operation: str, problem: Problem) -> bool:
    """Whether it is installed and has this operation for this dtype and axis."""
    adapter, dtypes, axes = LIBRARIES[library][3:]
    return (
        is_installed(library)
        and hasattr(adapter, operation)
        and problem.dtype.name in dtypes
        and problem.axis in axes
    )


def candidate(library: str, operation: str, problem: Problem) -> Candidate:
    """The call of a library that computes it."""
    made = getattr(LIBRARIES[library].adapter(problem), operation)()
    return made if isinstance(made, Candidate) else Candidate(made)
