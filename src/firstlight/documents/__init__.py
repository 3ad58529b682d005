"""From whatever holds text to a stream of documents: JSON lines, Parquet, Arrow, plain text, datasets, starter text.

A document is a text and its metadata. Readers are generators with bounded memory that never stop at a bad line: they
yield it as a `BadLine` and go on, so that the caller can count, show and decide.
"""

from firstlight.documents.document import BadLine, Document, json_line
from firstlight.documents.inputs import expand_inputs, input_size, sources_fingerprint
from firstlight.documents.read import read_documents

__all__ = [
    "BadLine",
    "Document",
    "expand_inputs",
    "input_size",
    "json_line",
    "read_documents",
    "sources_fingerprint",
]
