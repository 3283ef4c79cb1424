"""The online walk of a row, shared by every softmax-like family.

A row is cut by its length alone: into segments of SEGMENT columns, each into blocks of BLOCK that
fit L1. Within a segment the walk keeps a state (M, R and so on, below); segments merge in order, in
float64. So a row's bits do not depend on the other rows, on the threads, or on who walks which
segment: a row is one task, or, where rows are few and long, or long and side by side, each of its segments
is (phase WALK, then FINISH).

`finish` writes a row of results from exponentials that the walk kept in L2 scratch, or, where the
row is longer than that (or was walked by several workers), from exponentials made again from the
logits and the maximum each block saw: the same numbers, bit for bit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np

from fastloss._engine import launch, strips, threads, twofold
from fastloss._engine.again import remember
from fastloss._engine.arrays import DIRECT, F64, STRIDE, SWAP, Array, Layout, upcast
from fastloss._engine.blocks import (
    AHEAD,
    BLOCK,
    O_BLOCK,
    SEGMENT,
    T_BLOCK,
    X_BLOCK,
    D,
    E,
    Scratch,
    W,
    ahead_of,
    apart,
    block,
    buffer,
    in_vectors,
    load_halves,
    load_padded,
    make_past,
    pad,
    padded,
    put,
    put_halves,
    ragged,
    segment_of,
    segments,
    vectors_of_halves,
)
from fastloss._engine.elementary import exp_nonpositive, log1p, two_sum
from fastloss._engine.jit import inline, leaf
from fastloss._engine.kernels import Arguments, Kernel
from fastloss._engine.leaves import (
    LOG_PROBS,
    LOGITS,
    PROBS,
    affine,
    blended,
    block_max,
    curve,
    dot_sum,
    exp_each,
    exp_sum,
    exp_sum_paying,
    exp_sum_peak,
    forward_watched,
    index_of,
    own_sum,
    reverse_watched,
    scale,
    shift,
    spread,
    sum_of,
    weigh,
)
from fastloss._engine.strips import Place, Side
from fastloss._engine.twofold import Pair
from fastloss._engine.vector import LANES, cast, itemsize, many_registers, maximum, outlined, view

# What a task is: a row; or a segment of a row, first walked, then finished.
WHOLE, WALK, FINISH = 0, 1, 2
# What walks beside it: nothing; tangents t, for u = sum(e (t - c)); cotangents t, for v = sum(t); weights w
# of the classes, for u = sum(w (m - x)) and v = sum(w); the row itself, for OWN; the last two.
ALONE, TANGENTS, COTANGENTS, WEIGHTS, ITSELF, BOTH = 0, 1, 2, 3, 4, 5
# What `finish` writes, with p = softmax: b p; log p; b p (1 - p) inv; and with d = (t - hi) - lo, where
# hi + lo is <p, t>, (a p + g) d inv FORWARD, and (g t + b p) inv in REVERSE, b being -g sum(t). The factor
# inv = 1/T comes last, so that p = 0 stays 0 where b inv would overflow.
SCALE, LOG, CURVE, FORWARD, REVERSE = 0, 1, 2, 3, 4
# What the walk keeps of a segment, and a row. M: the running maximum m. R: the sum of exponentials
# below it but one element at the maximum, so that 1 - p and log(1 + r) keep their digits where one
# probability is nearly 1. U, V: the sums over the companion. C: the tangent or cotangent at the maximum,
# where u has its origin, so that <p, t> = c + u/s and t - <p, t> keep theirs. PEAK: the maximum's column.
# OWN: sum(e (x - m)), so that <p, x> = m + own/s.
# (M, R hold for logits alone; C, PEAK where something else walks beside them.)
M, R, U, V, C, PEAK, OWN, STATE = 0, 1, 2, 3, 4, 5, 6, 7

# ---- the walk -------------------------------------------------------------------------------
@inline
def exponentials(
    x: Array, tail: int, holds: int, m: Any, inv: Any, e: Array, ahead: int, following: int
) -> Any:
    """e from a block of a row under its running maximum; the sum of e, and of logits the largest of as many
    at `following`, if that is not 0: see `exp_sum`.
    """
    if holds == LOGITS and m != -np.inf:
        total, top = exp_sum(x, tail, m, inv, e, ahead, following)
        return np.float64(total), top
    if holds == LOG_PROBS:
        return exp_each(x, tail, e), m
    pad(e, 0, cast(0.0, inv))  # nothing but -inf so far: (-inf) - (-inf) must not be formed
    return 0.0, block_max(view(following, x.size if following else 0, inv), 0)


@inline
def kept(work: int, keep: int, j: int, n: int, like: Any) -> Any:
    """Where the exponentials of the block at column j lie: with the row's, from `keep` on, or if that is 0
    in a block's scratch.
    """
    at = keep + j * itemsize(like) if keep else buffer(work, E, like)
    return view(at, padded(n), like)


@inline
def keep_at(work: int, room: int, like: Any) -> int:
    """Where a row's exponentials are kept; 0 where there is no room for them."""
    return int(buffer(work, E, like) if room else 0)


# ---- the row whose results are owed ---------------------------------------------------------
# Writing waits for memory, and the walk for arithmetic: so a row's results by SCALE are written while the
# next row is walked, whose exponentials take their place; and so are those by LOG, of logits that lie in the
# row, and mostly are in a cache still. With AVX-512 most are written within the loop that walks
# (`exp_sum_within`), all others before it, a block at a time (`pay`).
TO, KEPT_AT, SLOT, SPOT, MODE = 0, 1, 2, 3, 4  # where to (0: nothing is owed), from where, whose maxima
# M, R; b, or log(1 + R) by LOG; and by SCALE what the exponentials below SEEN are multiplied by.
TOP, REST, FACTOR, EXACT, SEEN, NOW = 0, 1, 2, 3, 4, 5


@inline
def owe(
    owed_at: Array, owed: Array, to: int, keep: int, slot: int, spot: int, m: float, r: float, b: float,
    exact: float, mode: int,
) -> None:
    """Results by `mode`, but `exact` at column `spot`, for `pay` to write."""
    owed_at[TO], owed_at[KEPT_AT], owed_at[SLOT], owed_at[SPOT], owed_at[MODE] = to, keep, slot, spot, mode
    owed[TOP], owed[REST], owed[FACTOR], owed[EXACT] = m, r, b, exact
    owed[SEEN], owed[NOW] = m, 1.0 / mass(LOGITS, m, r) * b  # as by `factor_of`


@inline
def factor_of(seen: Any, owed: Array, inv: float) -> float:
    """What exponentials below `seen` are multiplied by."""
    if np.float64(seen) != owed[SEEN]:
        owed[SEEN] = seen
        owed[NOW] = power(owed[SEEN], owed[TOP], inv) / mass(LOGITS, owed[TOP], owed[REST]) * owed[FACTOR]
    return float(owed[NOW])


@inline
def odd_ones(to: int, g: Array, streamed: int) -> int:
    """How many numbers lie before the first cache line, where whole ones are written."""
    return int((-to & 63) // g[STRIDE] if streamed else 0)


@inline
def can_pay_within(j: int, columns: int, owed_at: Array, seen: Array, g: Array, streamed: int) -> bool:
    """Whether what `pay` would write with the whole block at column j is so many numbers like each other."""
    if not g[DIRECT]:
        return False
    over = odd_ones(owed_at[TO], g, streamed)
    at = owed_at[SPOT] - j - over
    if j + over + BLOCK > columns or 0 <= at < BLOCK:
        return False
    return bool(not over or (j and (owed_at[MODE] == LOG or seen[j // BLOCK] == seen[j // BLOCK + 1])))


@inline
def exp_sum_within(
    x: Array, m: Any, inv: Any, e: Array, ahead: int, following: int, peak: bool,
    j: int, owed_at: Array, owed: Array, seen: Array, g: Array, streamed: int,
) -> Any:
    """`exp_sum_paying` of the block at column j, with something following or not."""
    first = (j + odd_ones(owed_at[TO], g, streamed)) * itemsize(inv)
    if owed_at[MODE] == LOG:
        a, b, c = cast(owed[TOP], inv), inv, cast(owed[FACTOR], inv)
    else:
        a = c = cast(0.0, inv)
        b = cast(factor_of(seen[j // BLOCK], owed, np.float64(inv)), inv)
    beyond = following or int(np.int64(x.ctypes.data))  # an unsigned one beside it would make it a float64
    return exp_sum_paying(
        x, m, inv, e, ahead, beyond, peak, owed_at[KEPT_AT] + first, a, b, c, owed_at[TO] + first, streamed
    )


@leaf
def pay(
    j: int, n: int, columns: int, owed_at: Array, owed: Array, seen: Array, g: Array, streamed: int,
    work: int, inv: Any,
) -> None:
    """Write the block at column j of what is owed; `seen` are the maxima that its blocks saw.

    Past the cache whole lines are written: the first numbers of the next block, which are still there, with
    this one.
    """
    outlined()
    to, keep, spot = owed_at[TO], owed_at[KEPT_AT], owed_at[SPOT]
    exact, rate = cast(owed[EXACT], inv), np.float64(inv)
    j0, j1, end = j, j + n, j + n
    if streamed and columns > BLOCK and (g[DIRECT] or in_vectors(to, g[STRIDE], g[SWAP] != 0, n)):
        over = odd_ones(to, g, streamed)
        j0, j1 = j + over if j else 0, min(j1 + over, columns)
    if owed_at[MODE] == LOG:
        m, log_s = cast(owed[TOP], inv), cast(owed[FACTOR], inv)
        shifted(keep, j0, j1 - j0, m, log_s, to, g, streamed, work, inv)
        return
    top = seen[j // BLOCK]
    if end < j1 and seen[j // BLOCK + 1] == top:
        end = j1
    if j0 < end:
        scaled(
            kept(work, keep, j0, end - j0, inv), j0, end - j0, cast(factor_of(top, owed, rate), inv), spot,
            exact, to, g, streamed, work, inv,
        )
    if end < j1:
        scaled(
            kept(work, keep, end, j1 - end, inv), end, j1 - end,
            cast(factor_of(seen[j // BLOCK + 1], owed, rate), inv), spot, exact, to, g, streamed, work, inv,
        )


@leaf
def pay_all(
    columns: int, owed_at: Array, owed: Array, maxima: Array, g: Array, streamed: int, work: int, inv: Any
) -> None:
    """Write all columns of what is owed, if anything is."""
    outlined()
    if owed_at[TO]:
        for j in range(0, columns, BLOCK):
            pay(
                j, min(BLOCK, columns - j), columns, owed_at, owed, maxima[owed_at[SLOT]], g, streamed, work,
                inv,
            )
    owed_at[TO] = 0


@inline
def made_in_place(to: int, g: Array, n: int, streamed: int, changed: bool) -> bool:
    """Whether n results are made where they belong: not the odd end of a row nor what lies otherwise, and
    streamed ones where they start on a cache line and none is `changed` afterwards.
    """
    return bool(g[DIRECT] and n % LANES == 0 and not (streamed and (to & 63 or changed)))


@leaf
def scaled(
    exps: Array, j: int, n: int, factor: Any, spot: int, exact: Any, out: int, g: Array, streamed: int,
    work: int, inv: Any,
) -> None:
    """Write columns j to j + n - 1 of exponentials times a factor, but `exact` at `spot`."""
    to, at = out + j * g[STRIDE], spot - j
    if vectors_of_halves(to, g, n) and not 0 <= at < n:
        put_halves(exps, factor, n, to, g, streamed)
        return
    if streamed and g[DIRECT] and n >= LANES:
        none = cast(0.0, inv)
        at = at if 0 <= at < n else -1
        make_past(view(exps.ctypes.data, n, inv), none, factor, none, at, exact, to, streamed)
        return
    o = view(buffer(work, O_BLOCK, inv), padded(n), inv)
    whole = n // LANES * LANES if g[DIRECT] else 0  # made where they belong
    if whole:
        there = view(to, whole, inv)
        scale(exps[:whole], factor, there)
        if 0 <= at < whole:
            there[at] = exact
    if whole < n:
        scale(exps[whole : whole + padded(n - whole)], factor, o)
        if whole <= at < n:
            o[at - whole] = exact
        put(o, n - whole, out, g, j + whole, streamed)


@leaf
def shifted(
    row: int, j: int, n: int, m: Any, log_s: Any, out: int, g: Array, streamed: int, work: int, inv: Any
) -> None:
    """Write columns j to j + n - 1 of log p, where the logits lie in the row as results do."""
    outlined()
    size, to = itemsize(inv), out + j * g[STRIDE]
    if streamed and n >= LANES:
        make_past(view(row + j * size, n, inv), m, inv, log_s, -1, log_s, to, streamed)
        return
    whole = n // LANES * LANES
    if whole:
        shift(view(row + j * size, whole, inv), m, inv, log_s, view(to, whole, inv), 0)
    if whole < n:
        o = view(buffer(work, O_BLOCK, inv), padded(n - whole), inv)
        x = block(row, g, j + whole, n - whole, cast(0.0, inv), buffer(work, O_BLOCK, inv))
        shift(x, m, inv, log_s, o, 0)
        put(o, n - whole, out, g, j + whole, streamed)


@leaf
def task_of(task: int, workers: int, phase: int, count: int, states: Array) -> Any:
    """(row, first segment, last segment + 1) of a task, by whether there are states for each segment of
    each row.
    """
    if phase == WHOLE:
        return task, 0, count
    i, k = segment_of(task, workers, states.shape[0] // count, count)
    return i, k, k + 1


@inline
def mass(holds: int, m: float, r: float) -> float:
    """The sum of exponentials below m; or of probabilities, where the row holds them."""
    if holds != LOGITS:
        return r
    return 0.0 if m == -np.inf else 1.0 + r


@inline
def beside(other: int, g: Array, j: int, n: int, fill: Any, scratch: int, blend: Array) -> Any:
    """The block at column j of what walks beside a row; with `blend` = (a, b, w_0, w_1, ...) that is
    w (a t + b).
    """
    t = block(other, g, j, n, fill, scratch)
    if blend.size:
        to = view(scratch, padded(n), fill)
        blended(t, blend, j, to)
        pad(to, n, fill)
        t = to
    return t


@leaf
def walk(
    row: int, g: Array, columns: int, j0: int, j1: int, holds: int, inv: Any,
    other: int, og: Array, companion: int, blend: Array, spot: int, value: Any,
    keep: int, work: int, maxima: Array, slot: int, state: Array,
    owed_at: Array, owed: Array, owed_g: Array, streamed: int,
) -> None:
    """The state of one segment, columns j0 to j1 - 1, of a row that has `value` in column `spot`;
    maxima[slot, b] = the m that block b saw. These columns of what is owed are written on the way.
    """
    fill = cast(0.0 if holds == PROBS else -np.inf, inv)
    zero = cast(0.0, inv)
    x_block, t_block = buffer(work, X_BLOCK, inv), buffer(work, T_BLOCK, inv)
    m, c = cast(-np.inf, inv), zero
    r = u = v = own = r_low = u_low = 0.0  # r + r_low, u + u_low: blocks add up without rounding
    peak, following = 0, 0
    top = m
    for j in range(j0, j1, BLOCK):
        n = min(BLOCK, j1 - j)
        loose = companion <= COTANGENTS  # whose loops take what fills no lanes from elsewhere
        here = row + j * g[STRIDE]
        if following:  # its maximum is known
            x = view(following, BLOCK, fill)
        elif holds == LOGITS and vectors_of_halves(here, g, n) and not j <= spot < j + n:
            top = load_halves(here, g, n, fill, x_block)
            x = view(x_block, padded(n), fill)
        else:
            x = ragged(row, g, j, n, fill, x_block) if loose else block(row, g, j, n, fill, x_block)
            if j <= spot < j + n:
                load_padded(here, g, n, fill, x_block)
                x = view(x_block, padded(n), fill)
                x[spot - j] = value
            top = block_max(x, x_block)
        ahead = ahead_of(row, g, j, x)
        # The next block, where it is whole, lies in the row and has no value in its place.
        plain = holds == LOGITS and g[DIRECT] != 0 and not 0 <= spot - (j + BLOCK) < BLOCK
        known = many_registers() and plain and j + 2 * BLOCK <= j1
        following = here + BLOCK * itemsize(inv) if known else 0
        exps = x if holds == PROBS else kept(work, keep, j, n, inv)
        old = m
        s = mass(holds, old, r)  # up to here, below `old`
        # A branch with all that follows from it in its arm: the exponentials of a block that does not
        # raise the maximum need not wait for that block's own.
        grown = not top <= m  # larger, or NaN
        owes, within = owed_at[TO] != 0, False
        seen = maxima[owed_at[SLOT] if owes else slot]
        if owes:
            if many_registers() and holds == LOGITS and n == BLOCK and (grown or m != -np.inf):
                within = can_pay_within(j, columns, owed_at, seen, owed_g, streamed)
            if not within:
                pay(j, n, columns, owed_at, owed, seen, owed_g, streamed, work, inv)
        if grown:
            m = maximum(m, top)
            if holds == LOGITS:
                factor = exp_nonpositive(np.float64((old - m) * inv))
                s *= factor
                r_low *= factor
                if companion == TANGENTS:
                    u *= factor
                    u_low *= factor
                if companion >= ITSELF:
                    own *= factor
                    own += 0.0 if old == -np.inf else s * (np.float64(old) - np.float64(m))
                if within:
                    total, top = exp_sum_within(
                        x, m, inv, exps, ahead, following, True, j, owed_at, owed, seen, owed_g, streamed
                    )
                else:
                    total, top = exp_sum_peak(x, x_block, m, inv, exps, ahead, following, 0)
                r, low = two_sum(s, np.float64(total))
                r_low += low
                if m == np.inf:
                    r = np.nan
            elif holds == LOG_PROBS:
                r, low = two_sum(r, exp_each(x, x_block, exps))
                r_low += low
        elif within:
            total, top = exp_sum_within(
                x, m, inv, exps, ahead, following, False, j, owed_at, owed, seen, owed_g, streamed
            )
            r, low = two_sum(r, np.float64(total))
            r_low += low
        elif holds != PROBS:
            more, top = exponentials(x, x_block, holds, m, inv, exps, ahead, following)
            r, low = two_sum(r, more)
            r_low += low
        maxima[slot, j // BLOCK] = m
        # 1 + r = sum(exp((x[:j+n] - m) inv)), unless m is -inf
        if companion in (TANGENTS, COTANGENTS):
            t = (
                ragged(other, og, j, n, zero, t_block) if loose else block(other, og, j, n, zero, t_block)
            )
            t_ahead = ahead_of(other, og, j, t)
            if grown:
                at = index_of(x, m)
                u += (np.float64(c) - np.float64(t[at])) * s
                c = t[at]
                peak = j + at
            if companion == COTANGENTS:
                v += sum_of(t, t_block, t_ahead)
            else:
                du, ds = dot_sum(
                    exps, x_block, t, t_block, c, ahead if holds == PROBS else 0, t_ahead
                )
                u, low = two_sum(u, np.float64(du))
                u_low += low
                if holds == PROBS:  # exps is x, and nobody has summed it yet
                    r, low = two_sum(r, ds)
                    r_low += low
        if companion >= ITSELF:
            own += own_sum(exps, x, m)
        if companion in (WEIGHTS, BOTH):
            # u = sum(w[:j] (m - x[:j])), measured from 0 while m is -inf
            t = beside(other, og, j, n, zero, t_block, blend)
            if grown:
                u += (np.float64(m) - (0.0 if old == -np.inf else np.float64(old))) * v
                at = index_of(x, m)
                c = t[at]
                peak = j + at
            origin = zero if m == -np.inf else m
            pad(x, n, origin)  # 0 (m - (-inf)) would be NaN there
            du, dv = weigh(x, origin, t, 0, AHEAD if blend.size else ahead_of(other, og, j, t))
            u += du
            v += dv
    if abs(r) < np.inf:
        r += r_low
    if abs(u) < np.inf:
        u += u_low
    state[M], state[R], state[U], state[V], state[C], state[PEAK], state[OWN] = m, r, u, v, c, peak, own


@leaf
def walk_block(
    row: int, g: Array, n: int, inv: Any, keep: int, work: int, maxima: Array, slot: int, state: Array,
    owed_at: Array, owed: Array, owed_g: Array, streamed: int,
) -> None:
    """`walk` of n logits of one block: a row of a thousand takes a third less time without what long ones
    need.
    """
    outlined()
    tail = buffer(work, X_BLOCK, inv)
    none, exps = cast(-np.inf, inv), kept(work, keep, 0, n, inv)
    if vectors_of_halves(row, g, n):
        m = load_halves(row, g, n, none, tail)
        x = view(tail, padded(n), none)
    else:
        x = ragged(row, g, 0, n, none, tail)
        m = block_max(x, tail)
    ahead = ahead_of(row, g, 0, x)
    if owed_at[TO]:
        pay(0, n, n, owed_at, owed, maxima[owed_at[SLOT]], owed_g, streamed, work, inv)
        owed_at[TO] = 0
    r = 0.0
    if m == -np.inf:
        pad(exps, 0, cast(0.0, inv))
    else:
        r = np.float64(exp_sum_peak(x, tail, m, inv, exps, ahead, 0, 0)[0])
    maxima[slot, 0] = m
    state[:] = 0.0
    state[M], state[R] = m, np.nan if m == np.inf else r


@inline
def walk_segments(
    row: int, g: Array, columns: int, k0: int, k1: int, holds: int, inv: Any,
    other: int, og: Array, companion: int, blend: Array, spot: int, value: Any,
    keep: int, work: int, maxima: Array, slot: int, parts: Array,
    owed_at: Array, owed: Array, owed_g: Array, streamed: int,
) -> None:
    """parts[slot count + k] = the state of segment k, for k0 <= k < k1, of `count`. What is owed of them is
    paid.
    """
    if columns <= BLOCK and holds == LOGITS and companion == ALONE and spot < 0:
        walk_block(
            row, g, columns, inv, keep, work, maxima, slot, parts[slot], owed_at, owed, owed_g, streamed
        )
    else:
        walk_long(
            row, g, columns, k0, k1, holds, inv, other, og, companion, blend, spot, value, keep, work,
            maxima, slot, parts, owed_at, owed, owed_g, streamed,
        )


@leaf
def walk_long(
    row: int, g: Array, columns: int, k0: int, k1: int, holds: int, inv: Any,
    other: int, og: Array, companion: int, blend: Array, spot: int, value: Any,
    keep: int, work: int, maxima: Array, slot: int, parts: Array,
    owed_at: Array, owed: Array, owed_g: Array, streamed: int,
) -> None:
    """parts[slot count + k] = the state of segment k, for k0 <= k < k1, of `count`. What is owed of them is
    paid.
    """
    outlined()
    first = slot * segments(columns)
    for k in range(k0, k1):
        walk(
            row, g, columns, k * SEGMENT, min((k + 1) * SEGMENT, columns), holds, inv,
            other, og, companion, blend, spot, value, keep, work, maxima, slot, parts[first + k],
            owed_at, owed, owed_g, streamed,
        )
    owed_at[TO] = 0


@inline
def merged(parts: Array, first: int, count: int, holds: int, companion: int, inv: Any) -> Any:
    """(m, r, u, v, c, peak) of a row from the states of its segments, in their order."""
    if count == 1 and abs(parts[first, M]) < np.inf:
        one = parts[first]
        return one[M], one[R], one[U], one[V], one[C], int(one[PEAK])
    return merged_segments(parts, first, count, holds, companion, inv)


@leaf
def merged_segments(parts: Array, first: int, count: int, holds: int, companion: int, inv: Any) -> Any:
    """`merged` of any."""
    outlined()
    top = first
    m = parts[first, M]
    for k in range(first + 1, first + count):
        if parts[k, M] > m:
            top = k
        m = maximum(m, parts[k, M])
    c = parts[top, C]
    r = u = v = 0.0
    for k in range(first, first + count):
        mk, rk, uk, vk = parts[k, M], parts[k, R], parts[k, U], parts[k, V]
        sk = mass(holds, mk, rk)
        factor = 0.0 if mk == -np.inf else math.exp((mk - m) * np.float64(inv))
        if holds != LOGITS:
            factor = 1.0
        r += rk if k == top else sk * factor
        if companion == TANGENTS:
            u += (uk + (parts[k, C] - c) * sk) * factor
        elif companion in (WEIGHTS, BOTH):
            u += uk + (m - (0.0 if mk == -np.inf else mk)) * vk
        v += vk
    return m, r, u, v, c, int(parts[top, PEAK])


@leaf
def own_merged(parts: Array, first: int, count: int, m: float, inv: Any) -> float:
    """OWN of a row of logits whose maximum is m, from the states of its segments."""
    own = 0.0
    for k in range(first, first + count):
        mk = parts[k, M]
        if mk != -np.inf:
            factor = math.exp((mk - m) * np.float64(inv))
            own += (parts[k, OWN] + (mk - m) * mass(LOGITS, mk, parts[k, R])) * factor
    return own


@inline
def middle(holds: int, m: float, r: float, u: float) -> float:
    """<p, t> - c. What is given as an output is one of some logits: but for rounding it sums to 1."""
    return u / mass(holds, m, r) if holds == LOGITS else u


@inline
def odds(holds: int, m: float, r: float) -> Any:
    """(p, 1 - p) of the maximum of logits or of their log-softmax, both with all their digits."""
    if holds == LOGITS:
        s = mass(holds, m, r)
        return 1.0 / s, r / s
    return math.exp(m), -math.expm1(m)


@inline
def power(a: float, b: float, inv: float) -> float:
    """exp((a - b) inv) for finite a <= b, as if the difference were not rounded; by rule elsewhere."""
    d = a - b
    e: float = exp_nonpositive(d * inv)
    if e > 0.0 and b < np.inf:
        back = a - d
        e += e * (((a - (d + back)) + (back - b)) * inv)
    return e


@leaf
def make_again(
    row: int, g: Array, n: int, holds: int, inv: Any, temperature: float, other: int, og: Array,
    blend: Array, work: int, mode: int, origin: float, m: float, a: float, gt: float, spot: int, extra: Pair,
    o: Array,
) -> None:
    """Products of a row of one block whose terms cancel, from a, gt and t with `extra` added in column `spot`
    alone: of float32 in float64 vectors, and where those have not the digits, and of float64, by `twofold`.
    """
    outlined()
    x = block(
        row, g, 0, n, cast(0.0 if holds == PROBS else -np.inf, inv), buffer(work, X_BLOCK, inv)
    )
    t = beside(other, og, 0, n, cast(0.0, inv), buffer(work, T_BLOCK, inv), blend)
    reverse, doubtful = mode == REVERSE, True
    if itemsize(inv) == 4:
        e, d = view(buffer(work, W, inv), padded(n), 0.0), view(buffer(work, D, inv), padded(n), 0.0)
        top = block_max(x, 0)
        m, peak = np.float64(top), index_of(x, top)
        origin = np.float64(t[peak])
        doubtful = twofold.wide_products(
            x, holds, m, peak, 1.0 / temperature, t, n, reverse, a, gt, spot, extra[0] + extra[1], e, d, o
        )
    if doubtful:
        twofold.products(x, holds, m, temperature, t, n, origin, not reverse, a, gt, spot, extra, o)


@inline
def nearest(hi: Any, lo: Any) -> Any:
    """(<p, t> = hi + lo, rounded; the rest), where that is finite: measured from there differences are as
    right as <p, t> is.
    """
    near, rest = two_sum(hi, lo)
    return (near, rest) if abs(near) < np.inf else (hi, lo)


@leaf
def finish_block(
    row: int, g: Array, n: int, holds: int, inv: Any, temperature: float, exps: Array, other: int, og: Array,
    blend: Array, work: int, m: float, r: float, mode: int, c: Any, lo: Any, a: float, b: Any, gt: float,
    spot: int, exact: Any, doubt: Any, extra: Pair, out: int, outg: Array, streamed: int,
) -> None:
    """`finish` of products of a row of one block. The ends of what lies in the row may be in X_BLOCK."""
    outlined()
    x_block, t_block = buffer(work, X_BLOCK, inv), buffer(work, T_BLOCK, inv)
    o = view(buffer(work, O_BLOCK, inv), padded(n), inv)
    p_of_e, own_a, own_g = cast(1.0, inv), cast(a, inv), cast(gt, inv)
    if holds == LOGITS:
        p_of_e = cast(1.0 / mass(holds, m, r) if abs(m) < np.inf else np.nan, inv)
    if blend.size:
        t = beside(other, og, 0, n, cast(0.0, inv), t_block, blend)
    else:
        t = ragged(other, og, 0, n, cast(0.0, inv), t_block)
    if mode == FORWARD:
        hi, rest = nearest(c, lo)
        top, weight = forward_watched(
            exps, x_block, p_of_e, t, t_block, n, hi, rest, own_a, own_g, inv, o, ahead_of(other, og, 0, t)
        )
        # What is wrong with e moves the mean by its share of e (t - <p, t>), and the sum of e is rounded,
        # too; of what is given only products are, which float64 has whole.
        moved = cast(0.5, inv) * abs(hi - c)
        if holds != PROBS or itemsize(inv) == 8:
            share = cast(0.5 if holds == PROBS else 1.0, inv)
            moved += share * spread(exps, x_block, p_of_e, t, t_block, hi if holds == LOGITS else c)
        own = top + weight * moved
    else:
        top, own = reverse_watched(exps, x_block, p_of_e, t, t_block, n, b, own_g, inv, spot, o)
    largest, size = np.float64(top * inv), np.float64(own * inv)
    if 0 <= spot < n:
        o[spot] = exact
        largest, size = max(largest, abs(np.float64(exact))), max(size, np.float64(doubt))
    beyond = itemsize(inv) == 4 and abs(m) < np.inf and not size < np.inf  # where float64 may be finite
    if twofold.DOUBTFUL * largest < size or beyond:
        make_again(
            row, g, n, holds, inv, temperature, other, og, blend, work, mode, np.float64(c), m, a, gt, spot,
            extra, o,
        )
    put(o, n, out, outg, 0, streamed)


@inline
def product_of(
    mode: int, holds: int, m: float, r: float, u: float, v: float, c: float, peak: int, g: float, inv: float
) -> Any:
    """(hi, lo, b, spot, exact, doubt), what `finish` is told of a row's products."""
    if mode == FORWARD:
        # No mass: the mean is 0.
        hi = 0.0 if holds != LOGITS and r == 0.0 else c
        return hi, middle(holds, m, r, u), 0.0, -1, 0.0, 0.0
    # t_j - p_j sum(t) where p_j may be nearly 1
    p, q = odds(holds, m, r)
    exact = inv * g * (c * q - p * (v - c))
    doubt = inv * abs(g) * (abs(c) * q + p * (abs(v) + abs(c)))
    return 0.0, 0.0, -g * v, -1 if m == -np.inf else peak, exact, doubt


@leaf
def multiply_block(
    row: int, g: Array, n: int, holds: int, inv: Any, temperature: float, other: int, og: Array, work: int,
    mode: int, a: float, gt: float, out: int, outg: Array, streamed: int,
) -> None:
    """Write the products of a row of one block."""
    outlined()
    x_block, t_block = buffer(work, X_BLOCK, inv), buffer(work, T_BLOCK, inv)
    x = ragged(row, g, 0, n, cast(0.0 if holds == PROBS else -np.inf, inv), x_block)
    t = ragged(other, og, 0, n, cast(0.0, inv), t_block)
    ahead, t_ahead = ahead_of(row, g, 0, x), ahead_of(other, og, 0, t)
    exps = x if holds == PROBS else view(buffer(work, E, inv), padded(n), inv)
    m, c, r, peak = block_max(x, x_block), cast(0.0, inv), 0.0, 0
    if m != -np.inf:
        peak = index_of(x, m)
        c = t[peak]
    if holds == LOGITS and m != -np.inf:
        r = np.float64(exp_sum_peak(x, x_block, m, inv, exps, ahead, 0, 0)[0])
        if m == np.inf:
            r = np.nan
    elif holds != PROBS:
        r = exponentials(x, x_block, holds, m, inv, exps, ahead, 0)[0]
    u = v = 0.0
    if mode == REVERSE:
        v = sum_of(t, t_block, t_ahead)
    else:
        u, s = dot_sum(exps, x_block, t, t_block, c, ahead if holds == PROBS else 0, 0)
        if holds == PROBS:
            r = s
    top = np.float64(m)
    hi, lo, b, spot, exact, doubt = product_of(
        mode, holds, top, r, u, v, np.float64(c), peak, gt, np.float64(inv)
    )
    finish_block(
        row, g, n, holds, inv, temperature, exps, other, og, view(0, 0, inv), work, top, r, mode,
        cast(hi, inv), cast(lo, inv), a, cast(b, inv), gt, spot, cast(exact, inv), cast(doubt, inv),
        (0.0, 0.0), out, outg, streamed,
    )


@leaf
def finish(
    row: int, g: Array, j0: int, j1: int, columns: int, holds: int, inv: Any, temperature: float,
    other: int, og: Array, blend: Array, keep: int, work: int, maxima: Array, m: float, r: float,
    mode: int, hi: Any, lo: Any, a: float, b: Any, gt: float, spot: int, exact: Any, doubt: Any, extra: Pair,
    out: int, outg: Array, streamed: int,
) -> None:
    """Write columns j0 to j1 - 1 of a row of results by `mode`, but `exact` at column `spot`.

    `doubt` is the size of the terms whose difference is `exact`. Products of a row of one block whose terms
    cancel everywhere are made again, from `extra` at `spot`.
    """
    outlined()
    fill = cast(0.0 if holds == PROBS else -np.inf, inv)
    zero = cast(0.0, inv)
    x_block, t_block, o_block = (
        buffer(work, X_BLOCK, inv), buffer(work, T_BLOCK, inv), buffer(work, O_BLOCK, inv)
    )
    s = mass(holds, m, r)
    top, log_s, rest = cast(m, inv), cast(log1p(r), inv), cast(r / s, inv)
    seen = cast(np.nan, inv)
    p_of_e, own_a, own_g = zero, cast(a, inv), cast(gt, inv)
    if mode >= FORWARD and columns <= BLOCK:
        exps = kept(work, keep, 0, columns, inv)
        if holds == PROBS:
            exps = ragged(row, g, 0, columns, fill, x_block)
        elif not keep:
            exponentials(
                block(row, g, 0, columns, fill, x_block), x_block, holds, maxima[0], inv, exps, AHEAD, 0
            )
        finish_block(
            row, g, columns, holds, inv, temperature, exps, other, og, blend, work, m, r, mode, hi, lo, a, b,
            gt, spot, exact, doubt, extra, out, outg, streamed,
        )
        return
    if mode == FORWARD:
        hi, lo = nearest(hi, lo)
    for j in range(j0, j1, BLOCK):
        n = min(BLOCK, j1 - j)
        if mode == SCALE:
            exps, mj = kept(work, keep, j, n, inv), maxima[j // BLOCK]
            if not keep:
                exponentials(block(row, g, j, n, fill, x_block), x_block, holds, mj, inv, exps, AHEAD, 0)
            if mj != seen:
                seen = mj
                c = 1.0 if np.float64(mj) == m else power(np.float64(mj), m, np.float64(inv))
                p_of_e = cast(c / s * np.float64(b), inv)
            scaled(exps, j, n, p_of_e, spot, exact, out, outg, streamed, work, inv)
            continue
        to = out + j * outg[STRIDE]
        in_place = made_in_place(to, outg, n, streamed, j <= spot < j + n)
        past = int(in_place and streamed)
        o = view(to if in_place else o_block, padded(n), inv)
        if mode == LOG:
            shift(block(row, g, j, n, fill, x_block), top, inv, log_s, o, past)
        else:
            exps = kept(work, keep, j, n, inv)
            mj = maxima[j // BLOCK] if holds == LOGITS else zero
            if holds == PROBS:
                exps = block(row, g, j, n, fill, x_block)
            elif not keep:
                exponentials(block(row, g, j, n, fill, x_block), x_block, holds, mj, inv, exps, AHEAD, 0)
            # p = exps * exp((mj - m) inv) / s
            if mj != seen:
                seen = mj
                c = 1.0
                if holds == LOGITS:
                    c = power(np.float64(mj), m, np.float64(inv)) / s
                p_of_e = cast(c, inv)
            if mode == CURVE:
                curve(exps, p_of_e, b, rest, inv, o, past)
            else:
                t = beside(other, og, j, n, hi, t_block, blend)
                affine(exps, p_of_e, t, hi, lo, own_a, b, own_g, inv, o, past)
        if j <= spot < j + n:
            o[spot - j] = exact
        if not in_place:
            put(o, n, out, outg, j, streamed)


@inline
def checked_sum(
    row: int, g: Array, n: int, inv: Any, other: int, og: Array, companion: int, work: int,
    m: float, r: float, c: float, result: float,
) -> float:
    """`result`, or what `sum_where_terms_cancel` makes of it, which is called only where it may differ."""
    if n <= BLOCK and (companion == TANGENTS or twofold.CANCELLED * abs(result) < abs(m)):
        return float(sum_where_terms_cancel(row, g, n, inv, other, og, companion, work, m, r, c, result))
    return result


@leaf
def sum_where_terms_cancel(
    row: int, g: Array, n: int, inv: Any, other: int, og: Array, companion: int, work: int,
    m: float, r: float, c: float, result: float,
) -> float:
    """`result`, log(sum(exp(x))) or <softmax(x), t> of a row of one block that has just been walked,
    made with twice the digits where it is small beside its terms. c is the tangent at the maximum.
    """
    outlined()
    size = abs(m)
    if companion == TANGENTS:
        x = block(row, g, 0, n, cast(-np.inf, inv), buffer(work, X_BLOCK, inv))
        t = block(other, og, 0, n, cast(0.0, inv), buffer(work, T_BLOCK, inv))
        exps = view(buffer(work, E, inv), padded(n), inv)
        p_of_e = cast(1.0 / mass(LOGITS, m, r), inv)
        size = np.float64(spread(exps, 0, p_of_e, t, 0, cast(c, inv)))
        size += 0.5 * abs(result - c)  # the sum of p is rounded, too
    if not twofold.CANCELLED * abs(result) < size:
        return result
    x = block(row, g, 0, n, cast(-np.inf, inv), buffer(work, X_BLOCK, inv))
    if companion == TANGENTS:
        if itemsize(inv) == 4:
            e, d = view(buffer(work, W, inv), padded(n), 0.0), view(buffer(work, D, inv), padded(n), 0.0)
            mean, doubtful = twofold.wide_mean(x, m, index_of(x, cast(m, inv)), t, n, e, d)
            if not doubtful:
                return float(mean)
        return twofold.mean(x, m, t, n)
    if itemsize(inv) == 4:  # a float64 has the digits, unless nearly all of them go
        rest, left_out = 0.0, False  # but one element at the maximum, as R is
        for j in range(n):
            if x[j] == m and not left_out:
                left_out = True
            else:
                rest += exp_nonpositive(np.float64(x[j]) - m)
        result = m + log1p(rest)
        if abs(result) > twofold.LOST * abs(m):
            return float(result)
    return twofold.log_sum(x, m, n)


# ---- the plan of a call ---------------------------------------------------------------------
P = TypeVar("P")
KEPT = 2 << 20  # bytes of a row's exponentials that a worker keeps at most
HELD = 128 << 10  # bytes of a worker's scratch that a remembered call may keep


class Plan:
    """Who does what in one call, and the scratch for it: per worker seven blocks and at most KEPT
    bytes of exponentials, per segment STATE numbers, per block its maximum.
    """

    def __init__(
        self, n: int, columns: int, rate: float, dtype: np.dtype[Any], exponentials: bool, beside: bool
    ) -> None:
        self._type = dtype.char
        count = -(-columns // SEGMENT)
        few = count > 1 and n < 4 * threads.count()
        self._workers = launch.workers(n * columns, n * count if few else n)
        # A task is short enough to wait for when Ctrl-C comes.
        split = (few and self._workers > 1) or columns > launch.LAUNCH or (beside and count > 1)
        self._phases = (WALK, FINISH) if split else (WHOLE,)
        self._tasks = (n * count, SEGMENT) if split else (n, columns)
        padded = -(-columns // LANES) * LANES
        room = padded * dtype.itemsize if exponentials and not split else 0
        if room > KEPT:
            room = 0
        # Vectors that begin anywhere in a row may end beyond it.
        size = (E * BLOCK + LANES) * dtype.itemsize + max(room, BLOCK * dtype.itemsize)
        self._scratch = Scratch(self._workers, size)
        slots = n if split else 2 * self._workers
        maxima, parts = apart(slots, -(-columns // BLOCK), dtype), apart(slots * count, STATE, F64)
        self._dtype = dtype
        self._args = Arguments((
            columns, self._scratch.address, self._scratch.stride, room, maxima, parts, rate,
            apart(self._workers, MODE + 1, np.dtype(np.int64)), apart(self._workers, NOW + 1, F64),
        ))

    def sides(self, *seen: Place, made: tuple[Place, ...] = ()) -> list[Side]:
        """The arrays that a kernel reads and writes, if it does so in strips. The phase does not count
        as one of its arguments.
        """
        found = strips.sides_of(seen, made, self._dtype)
        return [each._replace(at=each.at + 1, geometry=each.geometry + 1) for each in found]

    def run(self, kernel: Kernel, *args: Any, sides: list[Side]) -> None:
        made = any(each.written for each in sides)
        for phase in self._phases:
            strips.run(
                kernel, self._workers, self._dtype, *self._tasks, (phase, *args),
                sides if made or phase != FINISH else [],  # which looks at no array then
                writes=phase != WALK, fixed=self._args,
            )

    def remember(
        self, key: tuple[Any, ...], kernel: Kernel, args: tuple[Any, ...], shape: tuple[int, ...], alive: Any
    ) -> None:
        """A call that has been run, if its planning would be felt, and its scratch is small: the first of
        `args` are the addresses.
        """
        if self._tasks[0] * self._tasks[1] <= launch.LAUNCH and self._scratch.stride <= HELD:
            remember(
                key, kernel, self._type, self._workers, self._tasks,
                [(phase, *args) for phase in self._phases], self._args, 1, shape, (self, alive),
            )


class _Plans(threading.local):
    """Plans of one worker and one launch that this thread has made before, by what they are made from:
    a launch finds nothing in their scratch that another has left.
    """

    def __init__(self) -> None:
        self.made: dict[tuple[Any, ...], Any] = {}


_plans = _Plans()


def plan_of(x: Layout, rate: float, dtype: np.dtype[Any], *, exponentials: bool) -> Plan:
    """A plan for rows, that no other thread is using."""
    n, columns = x.rows, x.columns
    make = partial(Plan, n, columns, rate, dtype, exponentials, strips.suits(x, dtype))
    if columns > SEGMENT or not launch.is_small(n * columns, n):
        return make()
    return kept_plan((n, columns, rate, dtype.char, exponentials), make)


def kept_plan(key: tuple[Any, ...], make: Callable[[], P]) -> P:
    """The plan of this thread under a key, made if it is not there."""
    plan: P | None = _plans.made.get(key)
    if plan is None:
        if len(_plans.made) == 16:
            _plans.made.clear()
        plan = _plans.made[key] = make()
    return plan


def compute_type(dtype: np.dtype[Any], temperature: float) -> np.dtype[Any]:
    """The type of the arithmetic behind results of a type: float64 where a float32 could not hold
    logits / T.
    """
    return upcast(dtype) if 2.0**-60 <= temperature <= 2.0**60 else F64


def reciprocal(temperature: float, dtype: np.dtype[Any]) -> float:
    """1/temperature, as `normal`."""
    return normal(1.0 / temperature, dtype)


@lru_cache(maxsize=64)
def normal(rate: float, dtype: np.dtype[Any]) -> float:
    """A rate rounded to the compute type, kept finite and normal: 0 * inf must not be formed."""
    limits = np.finfo(dtype)
    return float(dtype.type(min(max(rate, float(limits.tiny)), float(limits.max))))

