"""The verb that starts a run as many processes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli.options import Overrides
from firstlight.support.errors import ConfigError

_SLURM = "With --slurm"
_BY_HAND = "Several machines without Slurm"
_PORT = 29400


def launch(
    recipe: Annotated[str, typer.Argument(help="A recipe, a YAML file, or a run folder to resume.", metavar="RECIPE")],
    overrides: Overrides = None,
    nodes: Annotated[int | None, typer.Option(help="Machines; unset: launch.nodes.", min=1)] = None,
    gpus_per_node: Annotated[
        int | None,
        typer.Option(help="Accelerators, or processes on a CPU, per machine; unset: launch.gpus_per_node.", min=1),
    ] = None,
    max_restarts: Annotated[
        int, typer.Option(help="How often to start again from the last checkpoint after a process has died.", min=0)
    ] = 0,
    host: Annotated[
        str | None,
        typer.Option(help="The machine where they meet; unset: this one.", metavar="HOST", rich_help_panel=_BY_HAND),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help=f"A port of it; unset: {_PORT}.", min=1, max=65535, rich_help_panel=_BY_HAND),
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Write a batch script instead.", rich_help_panel=_SLURM)
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The script; unset: NAME.sbatch.", metavar="FILE", rich_help_panel=_SLURM)
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time limit, as in 24:00:00.", metavar="TIME", rich_help_panel=_SLURM)
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Partition.", rich_help_panel=_SLURM)] = None,
    account: Annotated[str | None, typer.Option(help="Account.", rich_help_panel=_SLURM)] = None,
    cpus_per_node: Annotated[
        int | None, typer.Option(help="Cores per machine; unset: whole machines.", min=1, rich_help_panel=_SLURM)
    ] = None,
    save_seconds: Annotated[
        int | None,
        typer.Option(
            help="How long before the time limit to save and stop; unset: 300.",
            min=1,
            max=65535,
            rich_help_panel=_SLURM,
        ),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            help="A further option of sbatch, as in --sbatch=--qos=high; may be given several times.",
            metavar="OPTION",
            rich_help_panel=_SLURM,
        ),
    ] = None,
) -> None:
    """Train as many processes: on this machine, on several, or as a Slurm job.

    Example: [cyan]firstlight launch llama-1b --gpus-per-node 8[/cyan]

    Several machines (prints the command to type on each): [cyan]firstlight launch llama-7b --nodes 16[/cyan]

    Slurm (writes the batch script): [cyan]firstlight launch llama-7b --nodes 16 --slurm --time 24:00:00[/cyan]
    """
    from firstlight.launch import SlurmJob, node_command, plan_launch, start_here, write_script
    from firstlight.support.console import command, note

    plan = plan_launch(recipe, overrides or [], nodes, gpus_per_node, max_restarts)
    _check_in_place(
        slurm,
        {"--output": output, "--time": time, "--partition": partition, "--account": account}
        | {"--cpus-per-node": cpus_per_node, "--save-seconds": save_seconds, "--sbatch": sbatch},
        not slurm and plan.nodes > 1,
        {"--host": host, "--port": port},
    )
    if slurm:
        job = SlurmJob(time, partition, account, cpus_per_node, save_seconds or 300, tuple(sbatch or ()))
        file = write_script(plan, job, output)
        note(f"wrote {file}: {plan.nodes} × {plan.gpus_per_node} processes. Next:")
        command(f"sbatch {file}")
    elif plan.nodes > 1:
        note(f"On each of the {plan.nodes} machines, in this folder:")
        print(node_command(plan, host or socket.gethostname(), port or _PORT))
    else:
        raise typer.Exit(start_here(plan))


def _check_in_place(slurm: bool, for_slurm: dict[str, object], by_hand: bool, for_by_hand: dict[str, object]) -> None:
    """ConfigError for an option that would have no effect."""
    for option, value in for_slurm.items():
        if value is not None and not slurm:
            raise ConfigError(f"{option} is for a batch script; give --slurm too, or leave it out.")
    for option, value in for_by_hand.items():
        if value is not None and not by_hand:
            raise ConfigError(f"{option} is for several machines without --slurm; leave it out.")
