"""Puts the Python programs, which are scripts beside their modules, on the import path."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("preprocess", "postprocess", "bench"):
    sys.path.insert(0, str(ROOT / folder))
