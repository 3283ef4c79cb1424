"""The table "What every input gets" of the contract, a row a test.

Rows come in three widths: within a block, of several blocks, and of several segments; what is special
about a row stands in its first block, in its last, or everywhere but in one column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CASES
from closeness import assert_close
from scipy import special
from test_agreement import widened, widened_options

import fastloss as fl
from fastloss import reference

Array = np.ndarray
Options = dict[str, Any]

WIDTHS = (5, 2500, 70_000)
PLACES = ("first", "last", "first half", "last half", "all but one", "all but the last")
MAPS = [n for n in CASES if n.startswith(("softmax", "log_softmax"))]
SUMS = ["logsumexp", "logsumexp.jvp", "logsumexp.vjp"]
ENTROPIES = ["cross_entropy", "cross_entropy.grad", "cross_entropy.hvp", "cross_entropy.hess"]
LIKELIHOODS = ["nll_loss", "nll_loss.grad"]
GATES = ["softplus", "sigmoid", "log_sigmoid"]
EACH: Options = {"reduction": "none"}
INF = np.inf


def at(place: str, columns: int) -> Array:
    """A mask of the columns that a special value stands in."""
    j = np.arange(columns)
    return {
        "first": j == 0,
        "last": j == columns - 1,
        "first half": j < columns // 2,
        "last half": j >= columns // 2,
        "all but one": j != columns // 3,
        "all but the last": j != columns - 1,
        "everywhere": j >= 0,
    }[place]


def arguments(name: str, x: Array, rng: np.random.Generator, y: Any = None) -> tuple[Any, ...]:
    """x and what `name` takes beside it; targets y, by default of no particular class."""
    if name in ENTROPIES + LIKELIHOODS:
        y = rng.integers(0, x.shape[1], len(x)) if y is None else y
        vector = (rng.normal(0, 2, x.shape).astype(x.dtype),) if name.endswith("hvp") else ()
        return x, y, *vector
    if "jvp" not in name and "vjp" not in name:
        return (x,)
    shape = x.shape[:1] if name == "logsumexp.vjp" else x.shape
    return x, rng.normal(0, 2, shape).astype(x.dtype)


def judged(name: str, args: tuple[Any, ...], what: str = "", **options: Any) -> Array:
    """The result of `name`, which agrees with the reference (long rows: with the formula, wider)."""
    case, dtype = CASES[name], args[0].dtype.type
    ours = case.call(*args, **options)
    direct = args[0].shape[-1] < 100 or name.endswith("from_output")
    truth = case.truth if direct else case.truth_of_long_rows
    with np.errstate(all="ignore"):
        expected = truth(*widened(args, dtype), **widened_options(options, dtype))
        textbook = case.naive(*args, **options)
        terms = case.size_of_terms(args, options)
    axis = -1 if case.rowwise else None
    assert_close(ours, expected, textbook, axis, f"{name}{options}{args[0].shape}{what}", terms)
    return np.asarray(ours)


def finite_target(x: Array, row: int = 1) -> Array:
    """Targets 0, but in one row its last finite column."""
    y = np.zeros(len(x), np.int64)
    y[row] = np.flatnonzero(np.isfinite(x[row]))[-1]
    return y


# ---- -inf -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MAPS + SUMS + ENTROPIES)
@pytest.mark.parametrize("place", PLACES)
def test_minus_inf_is_a_class_that_is_not_there(
    name: str, place: str, dtype: type, rng: np.random.Generator
) -> None:
    for columns in WIDTHS:
        gone = at(place, columns)
        x = rng.normal(0, 3, (3, columns)).astype(dtype)
        x[1, gone] = -INF
        args = arguments(name, x, rng, finite_target(x))
        options = EACH if name in ENTROPIES else {}
        result = judged(name, args, place, **options)
        if name == "log_softmax":
            assert (result[1, gone] == -INF).all()
        else:
            assert np.isfinite(result).all()
        if name.startswith("log_softmax.vjp"):
            assert np.array_equal(result[1, gone], args[1][1, gone])
        elif result.ndim == 2 and not name.startswith("log_softmax"):
            assert not result[1, gone].any()


@pytest.mark.parametrize("columns", [1, *WIDTHS])
def test_all_minus_inf(columns: int, dtype: type, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (3, columns)).astype(dtype)
    clean = {name: CASES[name].call(x) for name in ("softmax", "log_softmax", "logsumexp")}
    x[1] = -INF
    for name, expected in clean.items():
        expected[1] = -INF if name == "logsumexp" else np.nan
        assert np.array_equal(CASES[name].call(x), expected, equal_nan=True)
    for options in (
        {}, {"label_smoothing": 0.1}, {"label_smoothing": 1.0}, {"weight": np.ones(columns)},
        {"temperature": 2.0},
    ):
        for y in (0, columns - 1):
            losses, grad = fl.cross_entropy.value_and_grad(x, [0, y, 0], **EACH, **options)
            assert np.isnan(losses).tolist() == [False, True, False]
            assert np.isnan(grad[1]).all()
            assert np.isfinite(grad[::2]).all()


@pytest.mark.parametrize("place", PLACES)
def test_minus_inf_at_the_target(place: str, dtype: type, rng: np.random.Generator) -> None:
    for columns in WIDTHS:
        gone = at(place, columns)
        x = rng.normal(0, 3, (3, columns)).astype(dtype)
        x[1, gone] = -INF
        weight = rng.uniform(1, 2, columns).astype(dtype)
        for y in np.flatnonzero(gone)[[0, -1]]:
            losses = judged("cross_entropy", (x, [0, y, 0]), **EACH)
            assert losses[1] == INF
            for name in ENTROPIES[1:]:
                judged(name, arguments(name, x, rng, np.array([0, y, 0])), weight=weight)
            value, grad = fl.cross_entropy.value_and_grad(x, [0, y, 0], weight=weight, reduction="sum")
            assert value == INF
            assert grad[1, y] == -weight[y]
            assert fl.cross_entropy(x, [0, y, 0]) == INF
            mean = fl.cross_entropy.grad(x, [0, y, 0])
            assert_close(mean[1, y], np.float64(-1 / 3), np.float64(-1 / 3))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_minus_inf_under_smoothing(
    place: str, smoothing: float, dtype: type, rng: np.random.Generator
) -> None:
    for columns in WIDTHS:
        x = rng.normal(0, 3, (3, columns)).astype(dtype)
        x[1, at(place, columns)] = -INF
        weight = rng.uniform(1, 2, columns).astype(dtype)
        for options in ({}, {"weight": weight}):
            for y in (0, columns - 1):
                targets = np.array([0, y, 0])
                loss = judged("cross_entropy", (x, targets), label_smoothing=smoothing, **EACH, **options)
                assert loss[1] == INF
                for name in ENTROPIES[1:]:
                    args = arguments(name, x, rng, targets)
                    result = judged(name, args, label_smoothing=smoothing, **options)
                    assert np.isfinite(result).all()


# ---- +inf and NaN ---------------------------------------------------------------------------
@pytest.mark.parametrize("place", [*PLACES, "everywhere"])
def test_plus_inf(place: str, dtype: type, rng: np.random.Generator) -> None:
    for columns in WIDTHS:
        x = rng.normal(0, 3, (3, columns)).astype(dtype)
        there = at(place, columns)
        for rest in (x[1, ~there], -INF):
            x[1, ~there] = rest
            x[1, there] = INF
            for op in (fl.softmax, fl.log_softmax):
                assert np.isnan(op(x)[1]).all()
                assert np.isfinite(op(x)[::2]).all()
            assert fl.logsumexp(x)[1] == INF
            assert np.isfinite(fl.logsumexp(x)[::2]).all()
            for options in ({}, {"label_smoothing": 0.1}, {"weight": np.ones(columns)}):
                for y in (0, columns // 3, columns - 1):
                    losses, grad = fl.cross_entropy.value_and_grad(x, [0, y, 0], **EACH, **options)
                    assert np.isnan(losses).tolist() == [False, True, False]
                    assert np.isnan(grad[1]).all()
                    assert np.isfinite(grad[::2]).all()
                    assert np.isnan(fl.cross_entropy(x, [0, y, 0], **options))


@pytest.mark.parametrize("rest", ["finite", "-inf", "+inf"])
@pytest.mark.parametrize("name", MAPS + SUMS + ENTROPIES)
def test_nan_fills_its_row_and_no_other(
    name: str, rest: str, dtype: type, rng: np.random.Generator
) -> None:
    for columns in WIDTHS:
        for place in ("first", "last", "all but one", "everywhere"):
            x = rng.normal(0, 3, (3, columns)).astype(dtype)
            args = arguments(name, x, rng)
            for options in (EACH, {"label_smoothing": 0.1, **EACH}) if name in ENTROPIES else ({},):
                clean = CASES[name].call(*args, **options)
                dirty = x.copy()
                if rest != "finite":
                    dirty[1] = float(rest)
                dirty[1, at(place, columns)] = np.nan
                result = CASES[name].call(dirty, *args[1:], **options)
                assert np.isnan(result[1]).all(), (columns, place, options)
                assert np.array_equal(result[::2], clean[::2]), (columns, place, options)


@pytest.mark.parametrize("name", GATES)
def test_gates_of_special_values(name: str, dtype: type, rng: np.random.Generator) -> None:
    for columns in WIDTHS:
        x = rng.normal(0, 3, (1, columns)).astype(dtype)
        for j, value in enumerate([INF, -INF, np.nan, 1e30, -1e30]):
            x[0, j], x[0, -1 - j] = value, value
        ours = judged(name, (x,))
        with np.errstate(all="ignore"):
            theirs = {
                "softplus": np.logaddexp(0, x),
                "sigmoid": special.expit(x),
                "log_sigmoid": special.log_expit(x),
            }[name]
        odd = ~np.isfinite(x)
        assert np.array_equal(ours[odd], theirs[odd], equal_nan=True)
        for method in ("jvp", "vjp"):
            judged(f"{name}.{method}", (x, rng.normal(0, 2, x.shape).astype(dtype)))


SPECIAL_ROWS = [
    [-INF, 1.0, 2.0],
    [-INF, -INF, 2.0],
    [-INF, -INF, -INF],
    [np.nan, 1.0, -INF],
    [1e30, -1e30, 0.0],
    [1e30, 1e30, -INF],
]


@pytest.mark.parametrize("row", SPECIAL_ROWS, ids=str)
def test_special_rows_agree_with_scipy(row: list[float], dtype: type) -> None:
    x = np.array([row], dtype)
    for name in ("softmax", "log_softmax", "logsumexp"):
        with np.errstate(all="ignore"):
            truth = getattr(special, name)(x.astype(np.float64), axis=-1)
            theirs = getattr(special, name)(x, axis=-1)
        assert_close(getattr(fl, name)(x), truth, theirs, what=name)


def test_plus_inf_agrees_with_scipy(dtype: type) -> None:
    """But for log_softmax, where SciPy has -inf beside the NaN."""
    x = np.array([[INF, 1, -INF], [INF, INF, 0]], dtype)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(fl.softmax(x), special.softmax(x, axis=-1), equal_nan=True)
    assert np.array_equal(fl.logsumexp(x), special.logsumexp(x, axis=-1))


# ---- rows that do not count -----------------------------------------------------------------
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("name", ENTROPIES + LIKELIHOODS)
def test_ignored_rows_are_zero_whatever_their_logits(
    name: str, ignore_index: int, columns: int, dtype: type, rng: np.random.Generator
) -> None:
    x = rng.normal(0, 3, (7, columns)).astype(dtype)
    y = np.array([ignore_index, 0, ignore_index, 1, ignore_index, ignore_index, columns - 1])
    weight = rng.uniform(1, 2, columns).astype(dtype)
    args = arguments(name, x, rng, y)
    ignored = y == ignore_index
    dirty = x.copy()
    for i, value in zip(np.flatnonzero(ignored), (np.nan, INF, -INF, 1e30), strict=True):
        dirty[i] = value
    for options in ({}, {"weight": weight}, {"label_smoothing": 0.2}):
        if name in LIKELIHOODS and "label_smoothing" in options:
            continue
        for reduction in ("none", "sum", "mean"):
            chosen = {**options, "reduction": reduction, "ignore_index": ignore_index}
            clean = CASES[name].call(*args, **chosen)
            result = CASES[name].call(dirty, *args[1:], **chosen)
            assert np.array_equal(result, clean)
            if result.ndim:
                assert not result[ignored].any()
                assert result[~ignored].any()


def of_no_weight(columns: int) -> dict[str, tuple[Array, Options]]:
    """Targets and weights of which nothing counts."""
    y = np.array([0, columns - 1, 1])
    elsewhere = np.ones(columns)
    elsewhere[y] = 0
    return {
        "every row ignored": (np.full(3, -100), {}),
        "every row ignored, with weights": (np.full(3, -100), {"weight": np.ones(columns)}),
        "class weights 0": (y, {"weight": np.zeros(columns)}),
        "class weights 0 where the targets are": (y, {"weight": elsewhere}),
        "sample weights 0": (y, {"sample_weight": np.zeros(3)}),
        "sample weights only where ignored": (np.array([0, -100, 1]), {"sample_weight": [0, 5, 0]}),
    }


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("case", of_no_weight(5))
def test_no_weight_in_all(case: str, columns: int, dtype: type, rng: np.random.Generator) -> None:
    y, options = of_no_weight(columns)[case]
    x = rng.normal(0, 3, (3, columns)).astype(dtype)
    dirty = x.copy()
    dirty[0], dirty[1], dirty[2, 0] = np.nan, -INF, INF
    expected = {"mean": np.nan, "sum": 0.0, "none": np.zeros(3)}
    for reduction, value in expected.items():
        for smoothing in (0.0, 0.1) if "where" not in case else (0.0,):
            chosen = {**options, "reduction": reduction, "label_smoothing": smoothing}
            got = fl.cross_entropy(x, y, **chosen)
            assert np.array_equal(got, value, equal_nan=True)
            assert np.asarray(got).dtype == dtype
            for logits in (x, dirty):
                for name in ENTROPIES[1:]:
                    result = CASES[name].call(*arguments(name, logits, rng, y), **chosen)
                    assert np.array_equal(result, np.zeros(x.shape, dtype)), (name, chosen)
        if "sample_weight" not in options:
            assert np.array_equal(
                fl.nll_loss(x, y, reduction=reduction, **options), value, equal_nan=True
            )
            assert not fl.nll_loss.grad(dirty, y, reduction=reduction, **options).any()
        if "every" in case:
            assert np.array_equal(
                fl.cross_entropy(dirty, y, reduction=reduction, **options), value, equal_nan=True
            )


@pytest.mark.parametrize("option", ["weight", "sample_weight"])
def test_a_weight_of_zero_does_not_ignore_its_row(option: str, dtype: type) -> None:
    """0 * inf is NaN, as in PyTorch; the gradient is 0 there."""
    x = np.array([[-INF, 0, 1], [3, 1, 2]], dtype)
    weights = {"weight": [0, 1, 1], "sample_weight": [0, 1]}[option]
    losses, grad = fl.cross_entropy.value_and_grad(x, [0, 1], reduction="none", **{option: weights})
    assert np.isnan(losses).tolist() == [True, False]
    assert not grad[0].any()
    assert grad[1].all()
    for reduction in ("sum", "mean"):
        assert np.isnan(fl.cross_entropy(x, [0, 1], reduction=reduction, **{option: weights}))
    if option == "weight":
        losses = fl.nll_loss(x, [0, 1], weight=weights, reduction="none")
        assert np.isnan(losses).tolist() == [True, False]


def test_an_infinite_log_probability_of_an_ignored_row_is_not_touched(dtype: type) -> None:
    x = np.array([[0, 0, -INF], [-1, -2, -3]], dtype)
    for options in ({}, {"weight": [1, 1, 0]}, {"weight": [0, 1, 1]}):
        assert fl.nll_loss(x, [-100, 1], **options) == 2.0
        assert fl.nll_loss(x[::-1], [1, -100], reduction="none", **options).tolist() == [2.0, 0.0]


# ---- few rows, few columns ------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5), (0, 0, 5), (5, 0), (5, 2, 0)], ids=str)
def test_no_rows(shape: tuple[int, ...], dtype: type) -> None:
    """Nothing to do, and results of the right shape."""
    x = np.empty(shape, dtype)
    axis = shape.index(5)
    lead = (*shape[:axis], *shape[axis + 1 :])
    y = np.empty(lead, np.int64)
    for op in (fl.softmax, fl.log_softmax):
        assert op(x, axis).shape == op.jvp(x, x, axis).shape == shape
        assert op.vjp(x, x, axis).shape == op.vjp_from_output(x, x, axis).shape == shape
        assert op.jacobian(x, axis).shape == (*lead, 5, 5)
    assert fl.logsumexp(x, axis).shape == fl.logsumexp.jvp(x, x, axis).shape == lead
    assert fl.logsumexp.vjp(x, np.empty(lead), axis).shape == shape
    for loss in (fl.cross_entropy, fl.nll_loss):
        assert np.isnan(loss(x, y, axis=axis))
        assert loss(x, y, axis=axis, reduction="sum") == 0
        assert loss(x, y, axis=axis, reduction="none").shape == lead
        value, grad = loss.value_and_grad(x, y, axis=axis)
        assert np.isnan(value)
        assert type(value) is dtype
        assert (grad.shape, grad.dtype) == (shape, dtype)
    assert fl.cross_entropy.hvp(x, y, x, axis=axis).shape == shape
    assert [a.shape for a in fl.cross_entropy.value_grad_hess(x, y, axis=axis)] == [(), shape, shape]
    out = np.empty(shape, dtype)
    assert fl.softmax(x, axis, out=out) is out


def test_an_empty_list_of_targets(dtype: type) -> None:
    assert fl.cross_entropy(np.empty((0, 5), dtype), [], reduction="none").shape == (0,)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0), (2, 3, 0)], ids=str)
def test_no_columns(shape: tuple[int, ...], dtype: type) -> None:
    x, lead = np.empty(shape, dtype), shape[:-1]
    for op in (fl.softmax, fl.log_softmax):
        assert op(x).shape == op.jvp(x, x).shape == op.vjp(x, x).shape == shape
        assert op.jacobian(x).shape == (*shape, 0)
    assert np.array_equal(fl.logsumexp(x), np.full(lead, -INF))
    assert np.array_equal(fl.logsumexp.jvp(x, x), np.zeros(lead))
    assert fl.logsumexp.vjp(x, np.zeros(lead)).shape == shape
    assert fl.logsumexp(x, None) == special.logsumexp(np.empty(1), b=0.0) == -INF
    for y in (np.zeros(lead, np.int64), np.full(lead, -100)):
        for loss in (fl.cross_entropy, fl.nll_loss):
            for call in (loss, loss.grad, loss.value_and_grad):
                with pytest.raises(ValueError, match=r"no classes"):
                    call(x, y)
        with pytest.raises(ValueError, match=r"no classes"):
            fl.cross_entropy.hvp(x, y, x)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
def test_gates_of_nothing(shape: tuple[int, ...], dtype: type) -> None:
    x = np.empty(shape, dtype)
    for name in GATES:
        op = getattr(fl, name)
        assert op(x).shape == op.jvp(x, x).shape == op.vjp(x, x).shape == shape


@pytest.mark.parametrize("x", [0.0, -3.5, 1e30, -1e30, 1e-40])
def test_one_column(x: float, dtype: type) -> None:
    one = np.full((3, 1), x, dtype)
    t = np.array([[1.0], [-2.0], [1e30]], dtype)
    assert np.array_equal(fl.softmax(one), np.ones((3, 1)))
    assert np.array_equal(fl.log_softmax(one), np.zeros((3, 1)))
    assert np.array_equal(fl.logsumexp(one), one[:, 0])
    for op in (fl.softmax, fl.log_softmax):
        for product in (op.jvp, op.vjp):
            assert not product(one, t).any()
    assert np.array_equal(fl.logsumexp.jvp(one, t), t[:, 0])
    assert np.array_equal(fl.logsumexp.vjp(one, t[:, 0]), t)
    for options in ({}, {"weight": [2.0]}, {"label_smoothing": 0.3}, {"temperature": 0.1}):
        value, grad, hess = fl.cross_entropy.value_grad_hess(one, [0, 0, 0], **options)
        assert value == 0
        assert not grad.any()
        assert not hess.any()
        assert not fl.cross_entropy.hvp(one, [0, 0, 0], t, **options).any()


# ---- shapes of one element and of one row ---------------------------------------------------
def test_zero_d_is_one_element_of_axis_none(dtype: type) -> None:
    for x in (3.0, -INF, INF, np.nan):
        one, row = dtype(x), np.full(1, x, dtype)
        for name in ("softmax", "log_softmax", "logsumexp"):
            op = getattr(fl, name)
            result = op(one, axis=None)
            assert type(result) is dtype
            assert np.array_equal(result, op(row, axis=None).reshape(()), equal_nan=True)
        for name in GATES:
            result = getattr(fl, name)(one)
            assert type(result) is dtype
            assert np.array_equal(result, getattr(fl, name)(row)[0], equal_nan=True)
    out = np.empty((), dtype)
    assert fl.softmax(dtype(3), axis=None, out=out) is out
    assert out == 1


@pytest.mark.parametrize("y", [2, np.int8(2), np.uint64(2), np.array(2)], ids=repr)
def test_one_d_logits_take_a_scalar_target(y: Any, dtype: type, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, 5).astype(dtype)
    for reduction in ("mean", "sum", "none"):
        value, grad, hess = fl.cross_entropy.value_grad_hess(x, y, reduction=reduction)
        row = fl.cross_entropy.value_grad_hess(x[None], [2], reduction=reduction)
        assert type(value) is dtype
        assert value == np.squeeze(row[0])
        assert np.array_equal([grad, hess], [row[1][0], row[2][0]])
        assert type(fl.nll_loss(x, y, reduction=reduction)) is dtype
    assert type(fl.logsumexp(x)) is dtype
    assert fl.cross_entropy(x, y, sample_weight=2.0, reduction="sum") == 2 * fl.cross_entropy(x, y)
    assert np.isnan(fl.cross_entropy(x, -100))
    assert not fl.cross_entropy.grad(x, -100).any()


# ---- magnitudes -----------------------------------------------------------------------------
HUGE = (EACH, {}, {"temperature": 4.0}, {"label_smoothing": 0.1, **EACH})


@pytest.mark.parametrize("name", MAPS + SUMS + ENTROPIES)
def test_huge_logits(name: str, dtype: type, rng: np.random.Generator) -> None:
    for columns in WIDTHS:
        x = rng.choice([-1e30, 0, 1e30], (3, columns)).astype(dtype)
        x[0, :], x[0, -1] = -1e30, 1e30
        args = arguments(name, x, rng)
        for options in HUGE if name in ENTROPIES else ({},):
            assert np.isfinite(judged(name, args, **options)).all()


def test_a_loss_beyond_its_type_is_infinite(dtype: type) -> None:
    """Two logits at either end of the range; nothing warns."""
    top = np.finfo(dtype).max
    x = np.array([[top, -top], [top, -top], [-top, top]], dtype)
    for reduction, expected in (("mean", INF), ("sum", INF), ("none", [INF, INF, 0])):
        value, grad = fl.cross_entropy.value_and_grad(x, [1, 1, 1], reduction=reduction)
        assert np.array_equal(value, expected)
        assert np.array_equal(np.sign(grad), [[1, -1], [1, -1], [0, 0]])
    assert fl.softmax(x).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert fl.log_softmax(x).tolist() == [[0, -INF], [0, -INF], [-INF, 0]]
    assert fl.logsumexp(x).tolist() == [top, top, top]
    assert fl.nll_loss(x, [1, 1, 0], reduction="sum") == INF


@pytest.mark.parametrize("shift", [1e8, -1e8, 2.0**30])
@pytest.mark.parametrize("name", [*MAPS, "logsumexp.jvp", "logsumexp.vjp", *ENTROPIES])
def test_a_shift_changes_no_bit(
    name: str, shift: float, dtype: type, rng: np.random.Generator
) -> None:
    """Where the shifted logits are exact, as multiples of 128 are here."""
    choices: list[Options] = [{}] if name in SUMS else [{}, {"temperature": 64.0}]
    if name in ENTROPIES:
        choices += [{"temperature": 64.0, "label_smoothing": 0.1}]
    for columns in WIDTHS:
        x = (128 * rng.integers(-3, 3, (3, columns))).astype(dtype)
        moved = x + dtype(shift)
        assert np.array_equal(moved - x, np.full(x.shape, shift))
        args = arguments(name, x, rng)
        for options in choices:
            expected = CASES[name].call(*args, **options)
            got = CASES[name].call(moved, *args[1:], **options)
            assert np.array_equal(got, expected), (columns, options)


@pytest.mark.parametrize("name", MAPS + SUMS + ENTROPIES)
def test_logits_far_from_zero(name: str, dtype: type, rng: np.random.Generator) -> None:
    for columns in WIDTHS:
        x = (rng.normal(0, 30, (3, columns)) + 1e8).astype(dtype)
        assert np.isfinite(judged(name, arguments(name, x, rng))).all()


@pytest.mark.parametrize("power", [-300, -30, 30, 300])
@pytest.mark.parametrize("name", [*MAPS, *ENTROPIES])
def test_huge_and_tiny_temperatures(name: str, power: int, dtype: type) -> None:
    """The limit is softmax of the largest, or of all alike; infinite where a number is too large."""
    x = np.array([[0, 1, 3, 0.5], [3, 2, 0, 1], [0.25, 0, 0.5, 0.75], [2, 2, 2, 2]], dtype)
    targets = np.array([2, 0, 1, 3])
    args = (x, targets) if name in ENTROPIES else (x,)
    if "jvp" in name or "vjp" in name or "hvp" in name:
        args = (*args, np.array([[3, -1, 2, 0.5]] * 4, dtype))
    judged(name, args, temperature=10.0**power, **(EACH if name in ENTROPIES else {}))


@pytest.mark.parametrize("name", MAPS + SUMS + ENTROPIES + GATES)
def test_subnormal_logits(name: str, dtype: type, rng: np.random.Generator) -> None:
    """They are the zeros that they are next to."""
    for columns in WIDTHS:
        x = rng.integers(-9, 9, (3, columns)).astype(dtype) * np.finfo(dtype).smallest_subnormal
        assert np.isfinite(judged(name, arguments(name, x, rng))).all()


@pytest.mark.parametrize("name", ENTROPIES)
def test_subnormal_weights_are_weights(name: str, dtype: type, rng: np.random.Generator) -> None:
    """The mean divides them out again."""
    x = rng.normal(0, 3, (4, 5)).astype(dtype)
    args = arguments(name, x, rng)
    tiny = np.finfo(dtype).smallest_subnormal
    for option, weights in (("weight", [1, 2, 4, 2, 1]), ("sample_weight", [1, 2, 4, 1])):
        judged(name, args, **{option: np.array(weights, dtype) * tiny})


def test_weights_too_large_for_the_type_are_infinite() -> None:
    """As converting them gives, and no warning."""
    x = np.zeros((2, 3), np.float32)
    assert np.isnan(fl.cross_entropy(x, [0, 1], weight=[1e300, 1, 1]))
    assert fl.cross_entropy(x, [0, 1], sample_weight=[1e300, 1], reduction="sum") == np.inf


def test_nothing_raises_where_numpy_would(dtype: type) -> None:
    """Under np.seterr(all="raise"): an infinity or NaN is an answer, and so is a number lost to rounding."""
    x, y = np.array([[1, 2, 3], [3e38, -3e38, 0]], dtype), [0, 1]
    with np.errstate(all="raise"):
        for weight in ([1, 1e-60, 1], [1e30, 1e-30, 1], [np.inf, -np.inf, 0], [np.inf, 0, 1]):
            for options in ({}, {"reduction": "sum"}, {"reduction": "none"}):
                for smoothing in (0.0, 0.1):
                    fl.cross_entropy.value_and_grad(
                        x, y, weight=weight, sample_weight=[1e-310, 1e300],
                        label_smoothing=smoothing, **options,
                    )
                    fl.cross_entropy.hvp(x, y, x, weight=weight, label_smoothing=smoothing, **options)
                fl.nll_loss.value_and_grad(x, y, weight=weight, **options)
        fl.logsumexp.vjp(x, [1e300, 1e-320])
        for name in ("softmax", "log_softmax"):
            op = getattr(fl, name)
            for temperature in (1.0, 1e-300, 1e300):
                op.jvp(x, x, temperature=temperature)
                op.jacobian(x, temperature=temperature)


def test_smoothing_of_large_float32_logits_stays_finite() -> None:
    x = np.array([[3e38, 0.0, 0.0, 0.0] * 8], np.float32)
    loss = fl.cross_entropy(x, [0], label_smoothing=0.5)
    assert_close(loss, reference.cross_entropy(x, [0], label_smoothing=0.5), np.nan)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", ENTROPIES)
def test_smoothing_of_one_forgets_the_target(
    name: str, columns: int, dtype: type, rng: np.random.Generator
) -> None:
    x = rng.normal(0, 3, (3, columns)).astype(dtype)
    for y in ([0, 1, 2], [2, 0, columns - 1]):
        args = arguments(name, x, np.random.default_rng(1), np.array(y))
        judged(name, args, label_smoothing=1.0, **EACH)
        judged(name, args, label_smoothing=1.0, weight=rng.uniform(1, 2, columns).astype(dtype))
    losses = [fl.cross_entropy(x, [y] * 3, label_smoothing=1.0, **EACH) for y in (0, columns - 1)]
    assert np.array_equal(*losses)


# ---- targets of every integer type ----------------------------------------------------------
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">u4", ">i8"]


@pytest.mark.parametrize("kind", INTEGERS)
def test_targets_of_any_integer_type_give_the_same_bits(
    kind: str, dtype: type, rng: np.random.Generator
) -> None:
    x = rng.normal(0, 3, (9, 120)).astype(dtype)
    y = rng.integers(0, 120, 9)
    y[4] = 7
    wide = np.repeat(y.astype(kind), 2)
    for name in ENTROPIES + LIKELIHOODS:
        args = arguments(name, x, rng, y)
        for options in ({}, {"ignore_index": 7}):
            expected = CASES[name].call(*args, **options)
            for same in (y.astype(kind), wide[::2]):
                assert np.array_equal(CASES[name].call(x, same, *args[2:], **options), expected)


def test_ignore_index_is_a_number_not_its_bits(dtype: type, rng: np.random.Generator) -> None:
    """-100 modulo 2**8 and 2**64 is a class like another, or out of range like another."""
    x = rng.normal(0, 3, (1, 200)).astype(dtype)
    assert fl.cross_entropy(x, np.array([156], np.uint8)) == fl.cross_entropy(x, [156])
    assert np.isnan(fl.cross_entropy(x, np.array([-100], np.int8)))
    before = 2**64 - 100
    with pytest.raises(IndexError, match=rf"targets\[0\] is {before}, out of range for 200 classes"):
        fl.cross_entropy(x, np.array([before], np.uint64))
    assert np.isnan(fl.cross_entropy(x, np.array([before], np.uint64), ignore_index=before))
    for never in (2**64 - 100, 2**70, -(2**70)):
        assert fl.cross_entropy(x, [156], ignore_index=never) == fl.cross_entropy(x, [156])
    for kind in INTEGERS:
        for y in {np.iinfo(kind).min, np.iinfo(kind).max} - {0}:
            with pytest.raises(IndexError, match=rf"targets\[0\] is {y}, out of range"):
                fl.cross_entropy(x[:, :100], np.array([y], kind))


@pytest.mark.parametrize("columns", [1, 2, 10, 128, 129, 500, 1024, 1025, 2000])
def test_products_from_an_output_of_nothing(columns: int, dtype: type, rng: np.random.Generator) -> None:
    """A row that a mask has emptied: softmax 0, log_softmax -inf."""
    t = rng.normal(size=(3, columns)).astype(dtype)
    y = np.zeros_like(t)
    for method in ("jvp_from_output", "vjp_from_output"):
        assert not getattr(fl.softmax, method)(y, t).any()
        got = getattr(fl.log_softmax, method)(np.full_like(t, -np.inf), t)
        assert np.array_equal(got, t), method


@pytest.mark.parametrize("smoothing", [1e-37, 1e-40, 1e-50, 1e-300, 1e-310])
@pytest.mark.parametrize("columns", [2, 10, 500, 3000])
def test_smoothing_that_hardly_smooths(
    columns: int, smoothing: float, dtype: type, rng: np.random.Generator
) -> None:
    x, y = rng.normal(0, 3, (4, columns)).astype(dtype), rng.integers(columns, size=4)
    for options in ({}, {"weight": rng.uniform(0.5, 2, columns)}, {"reduction": "sum"}):
        plain = fl.cross_entropy.grad(x, y, **options)
        smooth = fl.cross_entropy.grad(x, y, label_smoothing=smoothing, **options)
        np.testing.assert_allclose(smooth, plain, rtol=20 * np.finfo(dtype).eps, atol=1e-37)
    light = {"sample_weight": np.full(4, 1e-30), "reduction": "sum"}
    truth = reference.cross_entropy_grad(x, y, label_smoothing=0.01, **light)
    ours = fl.cross_entropy.grad(x, y, label_smoothing=0.01, **light)
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-37)
