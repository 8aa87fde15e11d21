"""Everything edgeeff refuses, and the exit code of each kind.

    EdgeeffError
    ├── BadInput              2   a wrong path, image, checkpoint, budget, target or bundle
    ├── BudgetNotMet          3   no variant, or not this one, fits the budget
    ├── AccuracyGateFailed    4   a step lost more accuracy than --max-drop allows
    ├── ToolMissing           5   a package that this step needs is not installed
    ├── Unreachable           6   a hub or a device that does not answer
    ├── BuildFailed           7   the device's compiler made no engine of a graph
    └── Disturbed             8   the machine was slowed down while it was measured, twice

A message states what was wrong, what was expected and what to do, in one line.
"""

from __future__ import annotations

from typing import Any


class EdgeeffError(Exception):
    """Base of all refusals; `exit_code` is what the command line returns, `result` what there is to tell all the same."""

    exit_code = 1

    def __init__(self, message: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result


class BadInput(EdgeeffError):
    exit_code = 2


class BudgetNotMet(EdgeeffError):
    exit_code = 3


class AccuracyGateFailed(EdgeeffError):
    exit_code = 4


class ToolMissing(EdgeeffError):
    exit_code = 5


class Unreachable(EdgeeffError):
    exit_code = 6


class BuildFailed(EdgeeffError):
    exit_code = 7


class Disturbed(EdgeeffError):
    exit_code = 8
