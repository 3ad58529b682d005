"""Starting a run as many processes: on this machine, by hand on several, or as a Slurm job. torchrun does the starting.

What is started is `firstlight train` with the same recipe and settings on every rank; nothing here knows of training.
"""

from firstlight.launch.plan import Launch, node_command, plan_launch, start_here
from firstlight.launch.slurm import SlurmJob, write_script

__all__ = ["Launch", "SlurmJob", "node_command", "plan_launch", "start_here", "write_script"]
