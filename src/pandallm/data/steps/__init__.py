"""Clean steps: each may change an example's turns, tell something about it, or give the reason to drop it.

One file a family. docs/cleaning.md lists every step with its rule, its source and its defaults.
"""

from pandallm.data.steps.document import Cleaned, Document, Step, Turns
from pandallm.data.steps.make import check_steps, make_steps, run_steps, step_versions
from pandallm.data.steps.normalize import normalize

__all__ = [
    "Cleaned",
    "Document",
    "Step",
    "Turns",
    "check_steps",
    "make_steps",
    "normalize",
    "run_steps",
    "step_versions",
]
