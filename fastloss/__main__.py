"""`python -m fastloss`."""

from __future__ import annotations

import sys

from fastloss.cli import main

sys.exit(main())
