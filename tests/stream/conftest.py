"""`totals` is imported by tests and run by the scripts that they start, so it is a module beside them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
