"""`fastloss warmup`: compile ahead, into the cache."""

from __future__ import annotations

import json
import time

from fastloss import runtime
from fastloss._engine import cache
from fastloss.cli.errors import BadInputError


def run_warmup(*, dtypes: tuple[str, ...], ops: tuple[str, ...] | None, as_json: bool) -> None:
    start = time.perf_counter()
    try:
        compiled = runtime.warmup(dtypes, ops)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInputError(str(error)) from None
    seconds = time.perf_counter() - start
    kept = cache.describe()
    if as_json:
        print(json.dumps({"compiled": compiled, "seconds": round(seconds, 3), "cache": kept}))
        return
    where = f"kept in {kept['path']}" if kept["path"] else f"not kept: {kept['state']}"
    print(f"{compiled} compilations in {seconds:.1f} s, {where}")
