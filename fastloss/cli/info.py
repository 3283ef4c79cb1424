"""`fastloss info`: `show_config`, for a terminal or as JSON."""

from __future__ import annotations

import json

from fastloss import runtime


def run_info(*, as_json: bool) -> None:
    if as_json:
        print(json.dumps(runtime.show_config("dicts")))
    else:
        runtime.show_config()
