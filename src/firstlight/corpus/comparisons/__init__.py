"""Duplicates: exact and near ones, lines of many documents, and overlaps with evaluation sets.

What documents are compared by is made of their UTF-8 bytes in compiled code (numba), block by block; what follows from
it is found on the engine (Daft), so that no machine needs to hold the corpus.
"""

from firstlight.config.duplicates import Decontaminate, ExactDuplicates, NearDuplicates, RepeatedLines
from firstlight.corpus.comparisons.decontaminate import DecontaminateStep
from firstlight.corpus.comparisons.exact import ExactComparison
from firstlight.corpus.comparisons.lines import RepeatedLinesComparison
from firstlight.corpus.comparisons.near import NearComparison

COMPARISONS = {
    ExactDuplicates: ExactComparison,
    NearDuplicates: NearComparison,
    RepeatedLines: RepeatedLinesComparison,
}
STEPS = {Decontaminate: DecontaminateStep}

__all__ = ["COMPARISONS", "STEPS"]
