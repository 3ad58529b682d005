"""From whatever holds text to a stream of documents: JSON lines, tables, web archives, plain text, datasets.

A document is a text and its metadata. Readers are generators with bounded memory that never stop at a bad line: they
yield it as a `BadLine` and go on, so that the caller can count, show and decide. What rightly holds no document is
`Skipped`, to be counted apart.
"""

from firstlight.documents.document import BadLine, Document, Item, Skipped, encode_json, json_line
from firstlight.documents.inputs import expand_inputs, in_units, input_size, sources_fingerprint
from firstlight.documents.metadata import document_weight
from firstlight.documents.read import read_documents

__all__ = [
    "BadLine",
    "Document",
    "Item",
    "Skipped",
    "document_weight",
    "encode_json",
    "expand_inputs",
    "in_units",
    "input_size",
    "json_line",
    "read_documents",
    "sources_fingerprint",
]
