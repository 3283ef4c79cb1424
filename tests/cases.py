"""Every operation and method: how to sample its arguments, which options to try, who judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import naive
import numpy as np

import fastloss as fl
from fastloss import reference

BLOCK = 1024
Options = dict[str, Any]
Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One callable of the public API and its oracle, which take the same arguments."""

    name: str
    call: Callable[..., Any]
    truth: Callable[..., Any]
    naive: Callable[..., Any]
    sample: Callable[[Rng, tuple[int, ...], type, Options], tuple[Any, ...]]
    options: tuple[Options, ...] = ({},)
    rowwise: bool = True  # a result for each element, judged row by row along the axis
    shapes: tuple[tuple[int, ...], ...] = ((5, 7), (3, 1), (2, 33), (2, 3, 4), (1, 1500))
    terms: Callable[..., Any] | None = None
    cancels: bool = False  # whether terms cancel in a single element, too, and nothing makes up for it
    long: Callable[..., Any] | None = None

    @property
    def truth_of_long_rows(self) -> Callable[..., Any]:
        """What judges rows too long for the reference's explicit matrices, in a wider type."""
        return self.long or self.naive

    def size_of_terms(self, args: tuple[Any, ...], options: Options) -> Any:
        """For `assert_close`: of rows longer than a block, where fastloss does not make up for terms
        that cancel in every element.
        """
        if self.terms is None:
            return None
        if not self.cancels and args[0].shape[options.get("axis", -1)] <= BLOCK:
            return None
        return self.terms(*args, **options)


def logits(rng: Rng, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Normal logits with an outlier here and there, so that a wrong maximum shows."""
    x = rng.normal(0, 3, shape)
    spikes = rng.random(shape) < 0.02
    return np.where(spikes, x * 12, x).astype(dtype)


def alone(rng: Rng, shape: tuple[int, ...], dtype: type, _: Options) -> tuple[Any, ...]:
    return (logits(rng, shape, dtype),)


def with_vector(rng: Rng, shape: tuple[int, ...], dtype: type, _: Options) -> tuple[Any, ...]:
    return logits(rng, shape, dtype), rng.normal(0, 2, shape).astype(dtype)


def with_row_vector(rng: Rng, shape: tuple[int, ...], dtype: type, options: Options) -> tuple[Any, ...]:
    axis = options.get("axis", -1)
    rows = list(shape)
    if options.get("keepdims"):
        rows[axis] = 1
    else:
        del rows[axis]
    return logits(rng, shape, dtype), rng.normal(0, 2, rows).astype(dtype)


def log_probs(rng: Rng, shape: tuple[int, ...], dtype: type, options: Options) -> tuple[Any, ...]:
    x, y = with_targets(rng, shape, dtype, options)
    return naive.log_softmax(x, options.get("axis", -1)), y


def with_targets(rng: Rng, shape: tuple[int, ...], dtype: type, options: Options) -> tuple[Any, ...]:
    axis = options.get("axis", -1)
    rows = list(shape)
    classes = rows.pop(axis)
    y = rng.integers(0, classes, rows)
    if y.size > 1:  # ignore some rows, never all of them
        ignored = rng.random(rows) < 0.25
        ignored.flat[rng.integers(0, y.size)] = False
        y[ignored] = options.get("ignore_index", -100)
    return logits(rng, shape, dtype), y


def with_targets_and_vector(
    rng: Rng, shape: tuple[int, ...], dtype: type, options: Options
) -> tuple[Any, ...]:
    x, y = with_targets(rng, shape, dtype, options)
    return x, y, rng.normal(0, 2, shape).astype(dtype)


def with_predictions(rng: Rng, shape: tuple[int, ...], dtype: type, _: Options) -> tuple[Any, ...]:
    z = logits(rng, shape, dtype)
    y = rng.normal(0, 3, shape).astype(dtype)
    return z, np.where(rng.random(shape) < 0.1, z, y)


def with_labels(rng: Rng, shape: tuple[int, ...], dtype: type, _: Options) -> tuple[Any, ...]:
    return logits(rng, shape, dtype), np.where(rng.random(shape) < 0.5, 1, -1).astype(dtype)


def with_probabilities(rng: Rng, shape: tuple[int, ...], dtype: type, _: Options) -> tuple[Any, ...]:
    t = rng.random(shape)
    return logits(rng, shape, dtype), np.where(t < 0.6, np.round(t / 0.6), t).astype(dtype)


def with_classes_of_probability(
    rng: Rng, shape: tuple[int, ...], dtype: type, options: Options
) -> tuple[Any, ...]:
    """Rows of probabilities: some zeros, some one-hot, some that do not sum to one, one of nothing."""
    axis = options.get("axis", -1)
    q = np.moveaxis(rng.random(shape) ** 3, axis, -1)
    q = np.where(rng.random(q.shape) < 0.3, 0, q)
    total = q.sum(axis=-1, keepdims=True)
    q = np.where(rng.random((*q.shape[:-1], 1)) < 0.7, q / np.where(total == 0, 1, total), q)
    one_hot = np.arange(q.shape[-1]) == rng.integers(0, q.shape[-1], (*q.shape[:-1], 1))
    q = np.where(rng.random((*q.shape[:-1], 1)) < 0.3, one_hot, q)
    return logits(rng, shape, dtype), np.ascontiguousarray(np.moveaxis(q, -1, axis)).astype(dtype)


def with_classes_of_probability_and_vector(
    rng: Rng, shape: tuple[int, ...], dtype: type, options: Options
) -> tuple[Any, ...]:
    t = rng.normal(0, 2, shape).astype(dtype)
    return *with_classes_of_probability(rng, shape, dtype, options), t


def cosines(rng: Rng, shape: tuple[int, ...], dtype: type, options: Options) -> tuple[Any, ...]:
    """Cosines of angles, some of them 0 and pi, and targets."""
    c = rng.uniform(-1, 1, shape)
    ends = rng.random(shape) < 0.02
    return np.where(ends, np.sign(c), c).astype(dtype), with_targets(rng, shape, dtype, options)[1]


def directions(rng: Rng, shape: tuple[int, ...], dtype: type, _: Options) -> tuple[Any, ...]:
    """Features, and as many classes as they are long; some are 0."""
    f, w = rng.normal(0, 3, shape), rng.normal(0, 0.1, (shape[-1], shape[-1]))
    f, w = (np.where(rng.random((*a.shape[:-1], 1)) < 0.1, 0, a) for a in (f, w))
    return f.astype(dtype), w.astype(dtype)


def directions_and_vector(
    rng: Rng, shape: tuple[int, ...], dtype: type, options: Options
) -> tuple[Any, ...]:
    return *directions(rng, shape, dtype, options), rng.normal(0, 2, shape).astype(dtype)


EACH = "each"  # stands for a sample weight of every element


def filled(options: Options, rng: Rng, shape: tuple[int, ...], dtype: type) -> Options:
    """Options in which `...` stands for an array: class weights, or sample weights."""
    options = {
        k: rng.uniform(0.2, 3, shape).astype(dtype) if isinstance(v, str) and v == EACH else v
        for k, v in options.items()
    }
    axis = options.get("axis", -1)
    rows = list(shape)
    classes = rows.pop(axis)
    sizes = {"weight": (classes,), "sample_weight": tuple(rows)}
    return {
        k: rng.uniform(0.2, 3, sizes[k]).astype(dtype) if v is ... else v for k, v in options.items()
    }


AXES = ({}, {"axis": 0}, {"axis": 1})
SOFT = (*AXES, {"temperature": 0.3}, {"temperature": 1.7}, {"temperature": 20.0, "axis": 0})
LSE = (*AXES, {"keepdims": True}, {"keepdims": True, "axis": 0})
CE = (
    {},
    {"axis": 0, "reduction": "sum"},
    {"reduction": "none"},
    {"weight": ...},
    {"weight": ..., "reduction": "none", "axis": 1},
    {"sample_weight": ...},
    {"sample_weight": ..., "weight": ..., "reduction": "sum"},
    {"sample_weight": ..., "reduction": "none"},
    {"label_smoothing": 0.1},
    {"label_smoothing": 0.4, "weight": ..., "sample_weight": ..., "reduction": "mean"},
    {"label_smoothing": 1.0, "weight": ..., "reduction": "none", "axis": 0},
    {"ignore_index": 0},
    {"ignore_index": -1, "weight": ..., "axis": 0},
    {"temperature": 0.4, "reduction": "sum"},
    {"temperature": 3.0, "label_smoothing": 0.2, "weight": ..., "reduction": "none"},
)
NLL = tuple(o for o in CE if not {"sample_weight", "label_smoothing", "temperature"} & set(o))


REDUCED: tuple[Options, ...] = (
    {},
    {"reduction": "sum"},
    {"sample_weight": EACH, "reduction": "sum"},
    {"sample_weight": EACH, "reduction": "none"},
    {"reduction": "none"},
    {"sample_weight": EACH},
)


def swept(name: str, *values: Any, **others: Any) -> tuple[Options, ...]:
    """Every reduction, with one value of an option after the other."""
    return tuple(
        {**options, name: values[k % len(values)], **others} for k, options in enumerate(REDUCED)
    )


# Element-wise losses: how their arguments are sampled, and their options.
ELEMENTS: dict[str, tuple[Callable[..., tuple[Any, ...]], tuple[Options, ...]]] = {
    "mse_loss": (with_predictions, REDUCED),
    "l1_loss": (with_predictions, REDUCED),
    "huber_loss": (with_predictions, swept("delta", 0.3, 1.0, 4.0)),
    "smooth_l1_loss": (with_predictions, swept("beta", 0.0, 0.4, 3.0)),
    "log_cosh_loss": (with_predictions, REDUCED),
    "pinball_loss": (with_predictions, swept("quantile", 0.0, 0.3, 0.9)),
    "hinge_loss": (with_labels, swept("margin", 0.2, 1.0, 3.0)),
    "squared_hinge_loss": (with_labels, swept("margin", 0.2, 1.0, 3.0)),
    "perceptron_loss": (with_labels, REDUCED),
    "logistic_loss": (with_labels, REDUCED),
    "binary_cross_entropy_with_logits": (with_probabilities, swept("pos_weight", 0.3, 1.0, 5.0)),
    "sigmoid_focal_loss": (
        with_probabilities,
        (*swept("gamma", 0.0, 1.5, 2.0), *swept("gamma", 0.5, 3.0, alpha=0.25), {"alpha": 0.9}),
    ),
}


# Losses of scores and class indices: how scores are sampled, and the options that are their own.
CLASSES = (
    {},
    {"reduction": "none"},
    {"axis": 0, "reduction": "sum"},
    {"weight": ...},
    {"ignore_index": 0},
    {"weight": ..., "reduction": "none", "axis": 1},
    {"sample_weight": ...},
    {"ignore_index": -1, "weight": ..., "axis": 0},
    {"sample_weight": ..., "reduction": "none"},
    {"sample_weight": ..., "weight": ..., "reduction": "sum"},
    {"weight": ..., "sample_weight": ...},
)


def beside_classes(*own: Options) -> tuple[Options, ...]:
    """The options that are a loss's own, in turn, beside the common ones."""
    return tuple({**own[k % len(own)], **options} for k, options in enumerate(CLASSES))


def scales_and_margins(*pairs: tuple[float, float]) -> tuple[Options, ...]:
    return tuple({"scale": scale, "margin": margin} for scale, margin in pairs)


MARGINS: dict[str, tuple[Callable[..., tuple[Any, ...]], tuple[Options, ...]]] = {
    "multiclass_hinge_loss": (
        with_targets,
        beside_classes({}, *({"margin": m, "squared": q} for q in (True, False) for m in (0.3, 1, 4))),
    ),
    "max_hinge_loss": (with_targets, beside_classes({}, *({"margin": m} for m in (0.0, 0.3, 1.0, 4.0)))),
    "lse_hinge_loss": (with_targets, beside_classes({}, *({"margin": m} for m in (-2.0, 0.3, 1.0, 4.0)))),
    "additive_margin_softmax_loss": (
        cosines,
        beside_classes({}, *scales_and_margins((1, 0), (8, 0.1), (30, 0.6), (64, 0.35))),
    ),
    "arcface_loss": (
        cosines,
        beside_classes({}, *scales_and_margins((1, 0.1), (8, 0.9), (30, 1.3), (64, 0.3))),
    ),
    "focal_loss": (with_targets, beside_classes(*({"gamma": g} for g in (2, 0, 0.5, 1, 3.5)))),
}
SCALES: tuple[Options, ...] = ({}, {"scale": 30.0}, {"scale": 0.3})
# Of probability targets: of the options those that there are.
SOFT_TARGETS = (*(o for o in CE if "ignore_index" not in o), {"weight": ..., "temperature": 1.7})


def _scaled_terms(part: int, **defaults: Any) -> Callable[..., Any]:
    return lambda *args, **options: naive.scaled_terms(*args, **{**defaults, **options})[part]


def _times(times: Callable[[Options], float], formula: Callable[..., Any]) -> Callable[..., Any]:
    """A result's own size, so many times."""
    return lambda *args, **options: times(options) * np.abs(formula(*args, **options))


AM, ARC = {"scale": 30.0, "margin": 0.35}, {"scale": 64.0, "margin": 0.5, "arc": True}
TERMS = {
    "multiclass_hinge_loss": lambda *a, **k: naive.multiclass_hinge_terms(*a, **k)[0],
    "multiclass_hinge_loss_grad": lambda *a, **k: naive.multiclass_hinge_terms(*a, **k)[1],
    "max_hinge_loss": naive.max_hinge_terms,
    "lse_hinge_loss": naive.lse_hinge_terms,
    "additive_margin_softmax_loss": _scaled_terms(0, **AM),
    "additive_margin_softmax_loss_grad": _scaled_terms(1, **AM),
    "additive_margin_softmax_loss_scale_grad": _scaled_terms(2, **AM),
    "arcface_loss": _scaled_terms(0, **ARC),
    "arcface_loss_grad": _scaled_terms(1, **ARC),
    "focal_loss": _times(lambda options: 1 + options.get("gamma", 2), reference.focal_loss),
    "focal_loss_grad": _times(lambda options: 1 + options.get("gamma", 2), reference.focal_loss_grad),
    "binary_cross_entropy_with_logits_grad": naive.binary_cross_entropy_terms,
    "sigmoid_focal_loss_grad": lambda *a, **k: naive.focal_terms(*a, **k)[0],
    "sigmoid_focal_loss_hess": lambda *a, **k: naive.focal_terms(*a, **k)[1],
}


def _hessian_of(op: Any) -> Callable[..., Any]:
    return lambda *args, **options: op.value_grad_hess(*args, **options)[2]


def _element_cases() -> list[Case]:
    cases = []
    for name, (sample, options) in ELEMENTS.items():
        op = getattr(fl, name)
        for suffix, call in {"": op, "_grad": op.grad, "_hess": _hessian_of(op)}.items():
            truth = getattr(reference, name + suffix)
            cases.append(
                Case(
                    name + suffix.replace("_", "."), call, truth, naive.in_type(truth), sample, options,
                    rowwise=bool(suffix), terms=TERMS.get(name + suffix), cancels=True,
                )
            )
    for name, values in {
        "l2_penalty": ({},), "l1_penalty": ({},),
        "feature_incay_penalty": tuple({"eps": eps} for eps in (1e-6, 1e-2, 3.0)),
    }.items():
        op = getattr(fl, name)
        for suffix, call in {"": op, "_grad": op.grad}.items():
            truth = getattr(reference, name + suffix)
            cases.append(
                Case(
                    name + suffix.replace("_", "."), call, truth, naive.in_type(truth), alone, values,
                    rowwise=bool(suffix),
                )
            )
    return cases


def _scale_grad_of(op: Any) -> Callable[..., Any]:
    return lambda *args, **options: op.scale_grad(*args, **options)[1]


def distributions(rng: Rng, shape: tuple[int, ...], dtype: type, options: Options) -> tuple[Any, ...]:
    """Rows of probabilities, a tenth of them 0 in the first."""
    axis = options.get("axis", -1)
    p, q = (naive.softmax(logits(rng, shape, np.float64) / 3, axis) for _ in range(2))
    return np.where(rng.random(shape) < 0.1, 0, p).astype(dtype), np.maximum(q, 1e-30).astype(dtype)


def distribution(rng: Rng, shape: tuple[int, ...], dtype: type, options: Options) -> tuple[Any, ...]:
    return distributions(rng, shape, dtype, options)[:1]


def pair_of_logits(rng: Rng, shape: tuple[int, ...], dtype: type, _: Options) -> tuple[Any, ...]:
    return logits(rng, shape, dtype), logits(rng, shape, dtype)


def with_cotangent(sample: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Arguments, and a cotangent of the shape of what the reduction makes."""

    def sampled(rng: Rng, shape: tuple[int, ...], dtype: type, options: Options) -> tuple[Any, ...]:
        rows = list(shape)
        del rows[options.get("axis", -1)]
        if options.get("reduction", "none") != "none":
            rows = []
        return *sample(rng, shape, dtype, options), np.asarray(rng.normal(0, 2, rows)).astype(dtype)

    return sampled


BASES: tuple[Options, ...] = (
    {}, {"axis": 0, "base": 2}, {"base": 10.0, "reduction": "mean"}, {"axis": 1, "reduction": "sum"},
    {"base": 0.5, "reduction": "sum", "axis": 0}, {"reduction": "mean", "axis": 1}, {"base": 2},
)
TEMPERED: tuple[Options, ...] = (
    *BASES, {"temperature": 0.3}, {"temperature": 20.0, "axis": 0, "reduction": "mean"},
    {"temperature": 1.7, "base": 10},
)
# Divergences: how their arguments are sampled, and their options; of logits with derivatives.
DIVERGENCES: dict[str, tuple[Callable[..., tuple[Any, ...]], tuple[Options, ...]]] = {
    "information_content": (distribution, ({}, {"base": 10}, {"base": 2})),
    "entropy": (distribution, BASES),
    "distribution_cross_entropy": (distributions, BASES),
    "kl_divergence": (distributions, BASES),
    "js_divergence": (distributions, BASES),
    "entropy_from_logits": (alone, BASES),
    "kl_divergence_from_logits": (pair_of_logits, TEMPERED),
    "js_divergence_from_logits": (pair_of_logits, TEMPERED),
}


def _one_of(op: Any, k: int) -> Callable[..., Any]:
    """One of the two gradients."""

    def call(*args: Any, out: Any = None, **options: Any) -> Any:
        pair = None if out is None else ((out, None), (None, out))[k]
        return op.vjp(*args, out=pair, **options)[k]

    return call


def _first(formula: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: formula(*args, **options)[0]


def _margin_cases() -> list[Case]:
    cases = []
    for name, (sample, options) in MARGINS.items():
        op = getattr(fl, name)
        calls = {"": op, "_grad": op.grad}
        if name == "additive_margin_softmax_loss":
            calls["_scale_grad"] = _scale_grad_of(op)
        for suffix, call in calls.items():
            truth = getattr(reference, name + suffix)
            cases.append(
                Case(
                    name + suffix.replace("_", ".", 1), call, truth, naive.in_type(truth), sample,
                    options, rowwise=suffix == "_grad", terms=TERMS.get(name + suffix), cancels=True,
                    long=truth,
                )
            )
    shapes = ((5, 7), (3, 1), (2, 33), (2, 3, 4), (1, 300))
    vjp = reference.cosine_logits_vjp
    return [
        *cases,
        Case(
            "cosine_logits", fl.cosine_logits, reference.cosine_logits,
            naive.in_type(reference.cosine_logits), directions, SCALES, shapes=shapes,
            terms=naive.cosine_terms, cancels=True,
        ),
        Case(
            "cosine_logits.vjp", _one_of(fl.cosine_logits, 0), _first(vjp), _first(naive.in_type(vjp)),
            directions_and_vector, SCALES, shapes=shapes, terms=_first(naive.cosine_vjp_terms),
            cancels=True,
        ),
    ]


def _soft_target_cases() -> list[Case]:
    """Cross-entropy of probability targets; and what a temperature changes, of either kind."""
    ce = fl.cross_entropy
    sample, soft = with_classes_of_probability, "cross_entropy(probabilities)"

    def slope(*args: Any, **options: Any) -> Any:
        return ce.temperature_grad(*args, **options)[1]

    def curve(*args: Any, **options: Any) -> Any:
        return ce.value_grad_hess(*args, **options)[2]

    slopes = (slope, reference.cross_entropy_temperature_grad, naive.cross_entropy_temperature_grad)
    by_temperature: Options = {"rowwise": False, "terms": naive.temperature_terms, "cancels": True}
    return [
        Case(soft, ce, reference.cross_entropy, naive.cross_entropy, sample, SOFT_TARGETS, rowwise=False),
        Case(
            f"{soft}.grad", ce.grad, reference.cross_entropy_grad, naive.cross_entropy_grad, sample,
            SOFT_TARGETS, terms=naive.probability_terms, cancels=True,
        ),
        Case(
            f"{soft}.hvp", ce.hvp, reference.cross_entropy_hvp, naive.cross_entropy_hvp,
            with_classes_of_probability_and_vector, SOFT_TARGETS, terms=naive.cross_entropy_terms,
        ),
        Case(
            f"{soft}.hess", curve, reference.cross_entropy_hess, naive.cross_entropy_hess, sample,
            SOFT_TARGETS, long=naive.cross_entropy_hess_of_long_rows,
        ),
        Case(f"{soft}.temperature_grad", *slopes, sample, SOFT_TARGETS, **by_temperature),
        Case("cross_entropy.temperature_grad", *slopes, with_targets, CE, **by_temperature),
    ]
def _item(formula: Callable[..., Any], k: int) -> Callable[..., Any]:
    return lambda *args, **options: formula(*args, **options)[k]


def _divergence_cases() -> list[Case]:
    cases = []
    for name, (sample, options) in DIVERGENCES.items():
        op, truth = getattr(fl, name), getattr(reference, name)
        rowwise = name == "information_content"
        terms = {
            "kl_divergence": naive.kl_terms_of_probabilities, "kl_divergence_from_logits": naive.kl_terms
        }.get(name)
        cases.append(
            Case(
                name, op, truth, naive.in_type(truth), sample, options, rowwise=rowwise, terms=terms,
                cancels=True,
            )
        )
        if not name.endswith("from_logits"):
            continue
        slope = getattr(reference, f"{name}_vjp")
        textbook, drawn = naive.in_type(slope), with_cotangent(sample)
        if sample is alone:
            cases.append(Case(f"{name}.vjp", op.vjp, slope, textbook, drawn, options))
            continue
        for k, row in enumerate("pq"):
            cases.append(
                Case(
                    f"{name}.vjp.{row}", _one_of(op, k), _item(slope, k), _item(textbook, k), drawn, options,
                    terms=naive.divergence_terms(name[:2], k), cancels=True,
                )
            )
    return cases


def _from_output(op: Any, method: str) -> Callable[..., Any]:
    """`op.METHOD_from_output` as a function of x: by way of op's output."""

    def call(x: Any, v: Any, *args: Any, out: Any = None, **options: Any) -> Any:
        y = op(x, *args, **options)
        return getattr(op, f"{method}_from_output")(y, v, *args, out=out, **options)

    return call


NARROWER = {np.dtype(np.float64): np.float32, np.dtype(np.longdouble): np.float64}


def _given_output(op: Any, method: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The truth and the textbook formula of `op.METHOD_from_output`, given what op made of x: that it
    was rounded is not the method's error. The truth goes by the logits that give this output exactly.
    """
    name = f"{op.__name__}_{method}"

    def truth(x: Any, v: Any, axis: Any = -1, *, temperature: float = 1.0) -> Any:
        y = op(x.astype(NARROWER[x.dtype]), axis, temperature=temperature).astype(x.dtype)
        with np.errstate(divide="ignore"):
            z = np.log(y) if op is fl.softmax else y
        judge = reference if x.shape[axis] < 100 else naive
        return getattr(judge, name)(z, v, axis) / temperature

    def textbook(x: Any, v: Any, axis: Any = -1, *, temperature: float = 1.0) -> Any:
        y = op(x, axis, temperature=temperature)
        return getattr(naive, f"{name}_from_output")(y, v, axis, temperature=temperature)

    return truth, textbook


def _cases() -> list[Case]:
    cases = []
    for name in ("softmax", "log_softmax"):
        op = getattr(fl, name)
        cases.append(Case(name, op, getattr(reference, name), getattr(naive, name), alone, SOFT))
        for method in ("jvp", "vjp"):
            direct = [getattr(judge, f"{name}_{method}") for judge in (reference, naive)]
            for suffix, call, judges in (
                ("", getattr(op, method), direct),
                ("_from_output", _from_output(op, method), _given_output(op, method)),
            ):
                cases.append(
                    Case(
                        f"{name}.{method}{suffix}", call, *judges, with_vector, SOFT,
                        terms=getattr(naive, f"{name}_terms"),
                    )
                )
    lse = fl.logsumexp
    cases += [
        Case("logsumexp", lse, reference.logsumexp, naive.logsumexp, alone, LSE, rowwise=False),
        Case(
            "logsumexp.jvp", lse.jvp, reference.logsumexp_jvp, naive.logsumexp_jvp, with_vector, LSE,
            rowwise=False, terms=naive.logsumexp_terms,
        ),
        Case(
            "logsumexp.vjp", lse.vjp, reference.logsumexp_vjp, naive.logsumexp_vjp, with_row_vector, LSE
        ),
    ]
    for name in ("softplus", "sigmoid", "log_sigmoid"):
        op = getattr(fl, name)
        cases.append(Case(name, op, getattr(reference, name), getattr(naive, name), alone))
        for method in ("jvp", "vjp"):
            judges = [
                (lambda slope: lambda x, v: slope(x) * v)(getattr(judge, f"{name}_grad"))
                for judge in (reference, naive)
            ]
            cases.append(Case(f"{name}.{method}", getattr(op, method), *judges, with_vector))
    ce, nll = fl.cross_entropy, fl.nll_loss
    cases += [
        Case(
            "cross_entropy", ce, reference.cross_entropy, naive.cross_entropy, with_targets, CE,
            rowwise=False,
        ),
        Case(
            "cross_entropy.grad", ce.grad, reference.cross_entropy_grad, naive.cross_entropy_grad,
            with_targets, CE,
        ),
        Case(
            "cross_entropy.hvp", ce.hvp, reference.cross_entropy_hvp, naive.cross_entropy_hvp,
            with_targets_and_vector, CE, terms=naive.cross_entropy_terms,
        ),
        Case(
            "cross_entropy.hess", lambda *a, **k: ce.value_grad_hess(*a, **k)[2],
            reference.cross_entropy_hess, naive.cross_entropy_hess, with_targets, CE,
            long=naive.cross_entropy_hess_of_long_rows,
        ),
        Case("nll_loss", nll, reference.nll_loss, naive.nll_loss, log_probs, NLL, rowwise=False),
        Case(
            "nll_loss.grad", nll.grad, reference.nll_loss_grad, naive.nll_loss_grad, log_probs, NLL
        ),
    ]
    return cases + _element_cases() + _margin_cases() + _soft_target_cases() + _divergence_cases()


CASES = {case.name: case for case in _cases()}


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays equal to x that lie differently in memory."""
    swapped = x.astype(x.dtype.newbyteorder("S"))
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    unaligned = raw.view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    return {
        "C": x.copy(),
        "F": np.asfortranarray(x),
        "reversed": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        "upside down": np.ascontiguousarray(x[::-1])[::-1],
        "strided": wide[..., ::2],
        "swapped": swapped,
        "unaligned": unaligned,
        "read-only": frozen,
    }
