"""Raw text to a corpus: documents are read, filtered and deduplicated in counted steps, and written in shards.

Only this room knows the document engine, Daft (https://www.daft.ai, extra `firstlight[corpus]`); it is loaded when a
corpus is built, never by an import.
"""

from firstlight.corpus.build import build_corpus
from firstlight.corpus.table import corpus_table

__all__ = ["build_corpus", "corpus_table"]
