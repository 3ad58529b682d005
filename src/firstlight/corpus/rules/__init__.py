"""Quality rules with published thresholds: Gopher, C4, FineWeb, FineWeb-2 for Mandarin, and rules for source code.

They run over the UTF-8 bytes of a block in compiled code (numba), and share what is counted once: its words.
"""

from firstlight.config.rules import C4, CodeRules, FineWeb, FineWeb2Mandarin, GopherQuality, GopherRepetition
from firstlight.corpus.rules.c4 import C4Step
from firstlight.corpus.rules.code import CodeStep
from firstlight.corpus.rules.lines import LinesStep
from firstlight.corpus.rules.mandarin import MandarinStep
from firstlight.corpus.rules.quality import QualityStep
from firstlight.corpus.rules.repetition import RepetitionStep

STEPS = {
    GopherRepetition: RepetitionStep,
    GopherQuality: QualityStep,
    C4: C4Step,
    FineWeb: LinesStep,
    FineWeb2Mandarin: MandarinStep,
    CodeRules: CodeStep,
}

__all__ = ["STEPS"]
