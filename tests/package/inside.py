"""Runs the scenarios of this directory inside the root, as those of the suite boot are run."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "boot"), str(HERE / "scenarios"), str(HERE)]
import inside  # noqa: E402

inside.main()
