"""Where work runs: worker programs on this machine, the same programs on a Ray cluster, and tables in Daft.

Only this room knows the document engine, Daft (https://www.daft.ai, extra `firstlight[corpus]`); it is loaded when it
is needed, never by an import.
"""

from firstlight.engine.folders import finished_folder, remove_unfinished
from firstlight.engine.tables import load_daft, run_query
from firstlight.engine.workers import run_jobs

__all__ = ["finished_folder", "load_daft", "remove_unfinished", "run_jobs", "run_query"]
