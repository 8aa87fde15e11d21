"""Python runs this first in each process that a test starts: conftest.py puts the folder on PYTHONPATH."""

import sys

import economy

economy.after_import(economy.ONE_THREAD)
if {"fit", "pick", "compile", "measure", "requalify"} & set(sys.orig_argv):
    economy.after_import(economy.BRIEF)
if {"measure", "bench", "requalify"} & set(sys.orig_argv):
    economy.after_import(economy.QUIET)
