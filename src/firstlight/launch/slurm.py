"""A batch script for Slurm: it asks for machines, starts our torchrun once on each, and goes on where it was stopped.

Who gets which signal (https://slurm.schedmd.com/sbatch.html, scancel.html, srun.html):

- Some minutes before the time limit Slurm sends USR1 to the batch shell alone (`--signal=B:USR1@…`). The shell sends
  TERM to everything that srun has started (`scancel --signal` does not end a job); the run finishes its step, saves,
  and ends with 75; the shell puts the job back into the queue. srun runs in the background, because bash calls a trap
  only after a command in the foreground has ended, but while it `wait`s.
- A job that has to make room for another gets TERM, saves in the time that the partition grants, and is put back into
  the queue by Slurm itself (`--requeue`), as it is when a machine fails.
- `scancel JOB` gets TERM too and saves; nobody asked the shell, so the job is not queued again.

TERM is not sent to srun, which would end the step and kill what is left after half a minute.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from firstlight.launch.plan import Launch
from firstlight.support.errors import EXIT_STOPPED, ConfigError
from firstlight.support.files import atomic_file


@dataclass(frozen=True)
class SlurmJob:
    """What a job asks of Slurm beyond machines and accelerators."""

    time: str | None = None
    """Time limit, as in 24:00:00 or 2-00:00:00; unset: the partition's."""
    partition: str | None = None
    account: str | None = None
    cpus_per_node: int | None = None
    """Cores per machine; unset: whole machines."""
    save_seconds: int = 300
    """How long before the time limit the run is asked to save."""
    directives: tuple[str, ...] = ()
    """Further options of sbatch, as in --qos=high."""


def write_script(launch: Launch, job: SlurmJob, file: Path | None = None) -> Path:
    """Write the batch script of a launch to `file`, or NAME.sbatch; returns the file.

    A script of ours that is as it was written is replaced; ConfigError when there is anything else.
    """
    file = file or Path(f"{launch.config.name}.sbatch")
    if file.exists() and not (file.is_file() and _is_ours(file.read_bytes())):
        raise ConfigError(
            f"{file}: exists, and is not as `firstlight launch` wrote it; choose another --output FILE, or remove it."
        )
    body = batch_script(launch, job, Path.cwd())
    with atomic_file(file, "w") as handle:
        handle.write(f"{_FIRST_LINE}{_SIGNATURE}{_digest(body.encode())}\n{body}")
    return file


def batch_script(launch: Launch, job: SlurmJob, folder: Path) -> str:
    """The script after its first two lines, to be run in `folder`."""
    on_cpus = launch.config.training.device == "cpu"
    directives = [
        f"--job-name={launch.config.name}",
        *(f"--nodes={launch.nodes}", "--ntasks-per-node=1"),
        *([] if on_cpus else [f"--gpus-per-node={launch.gpus_per_node}"]),
        *([f"--cpus-per-task={job.cpus_per_node}"] if job.cpus_per_node else ["--exclusive", "--mem=0"]),
        *(f"--{name}={value}" for name in ("time", "partition", "account") if (value := getattr(job, name))),
        f"--chdir={folder}",
        *("--output=%x-%j.out", "--open-mode=append"),
        *("--requeue", f"--signal=B:USR1@{job.save_seconds}"),
        *job.directives,
    ]
    for directive in directives:
        if "\n" in directive or not directive.startswith("-"):
            raise ConfigError(f"'{directive}': an option of sbatch is one line that begins with -, as in --qos=high.")
    cores = [f"--cpus-per-task={job.cpus_per_node}"] if job.cpus_per_node else []
    srun = shlex.join(["srun", "--ntasks-per-node=1", *cores, "--cpu-bind=none", "--kill-on-bad-exit=0", "--wait=60"])
    return _SCRIPT.format(
        directives="\n".join(f"#SBATCH {_quoted(directive)}" for directive in directives),
        srun=srun,
        python=shlex.quote(sys.executable),
        nodes=launch.nodes,
        arguments=shlex.join(launch.arguments),
        stopped=EXIT_STOPPED,
    )


_FIRST_LINE = "#!/bin/bash\n"
_SIGNATURE = "# Written by `firstlight launch --slurm`. SHA-256 of the lines below: "

_SCRIPT = """\
{directives}

# The machines meet at the first of them, on a port of this job's own.
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
endpoint="$head_node:$((10000 + SLURM_JOB_ID % 20000))"

# Slurm sends USR1 here before the time limit; the run is then asked to save and stop.
asked= interrupted=
trap 'asked=yes interrupted=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

# One launcher on each machine starts the processes of that machine.
{srun} \\
    bash -c 'exec "$0" -m firstlight.launch.torchrun \\
        --rdzv-conf="is_host=$((SLURM_NODEID == 0))" --local-addr="$SLURMD_NODENAME" "$@"' \\
    {python} --nnodes={nodes} --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$endpoint" \\
    {arguments} &
launchers=$!
until wait "$launchers"; code=$?; [ -z "$interrupted" ]; do interrupted=; done

# {stopped}: stopped and saved. The job goes on from there when it is its turn again.
if [ "$code" -eq {stopped} ] && [ -n "$asked" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _is_ours(script: bytes) -> bool:
    """Whether a script is one of ours, and unchanged."""
    first, signature, body = [*script.split(b"\n", 2), b"", b""][:3]
    return first + b"\n" == _FIRST_LINE.encode() and signature == f"{_SIGNATURE}{_digest(body)}".encode()


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _quoted(directive: str) -> str:
    """An option as sbatch reads it from a script: quoted where its value holds a space."""
    name, equals, value = directive.partition("=")
    return f"{name}{equals}{shlex.quote(value)}" if equals else directive
