"""Python runs this first in each process that a test starts: conftest.py puts the folder on PYTHONPATH."""

import os
import sys
from pathlib import Path

import economy

economy.after_import(economy.ONE_THREAD)
economy.for_words(sys.orig_argv)
if "FAULTS_AT" in os.environ:
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import remote_faults

    remote_faults.far_steps()
