"""Whether settings, data and weights will train, said before anything is trained."""

from frcnn.check.findings import Findings
from frcnn.check.run import check

__all__ = ["Findings", "check"]
