"""What is to be started where: the recipe with its settings, machines and processes, checked before anything starts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firstlight.config import RunConfig
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError


@dataclass(frozen=True)
class Launch:
    """`firstlight train RECIPE KEY=VALUE…` on `nodes` machines with `gpus_per_node` processes each."""

    recipe: str
    overrides: tuple[str, ...]
    nodes: int
    gpus_per_node: int
    max_restarts: int
    config: RunConfig

    @property
    def arguments(self) -> list[str]:
        """torchrun's arguments that are the same wherever the machines meet; the last ones are those of Firstlight."""
        return [
            *(f"--nproc-per-node={self.gpus_per_node}", f"--max-restarts={self.max_restarts}"),
            *("-m", "firstlight", "train", self.recipe, *self.overrides),
        ]


def plan_launch(
    recipe: str,
    overrides: Sequence[str] = (),
    nodes: int | None = None,
    gpus_per_node: int | None = None,
    max_restarts: int = 0,
) -> Launch:
    """Read a recipe (or the run folder to resume) and settle machines and processes.

    `nodes` and `gpus_per_node` take the place of the recipe's `launch` section; unset there too, it is one machine with
    as few processes as the parallel sizes ask for. Raises ConfigError with the arithmetic when model and batch cannot
    be divided over so many processes.
    """
    given = {"launch.nodes": nodes, "launch.gpus_per_node": gpus_per_node}
    settings = (*overrides, *(f"{key}={value}" for key, value in given.items() if value is not None))
    config = load_config(Path(recipe, "config.yaml") if Path(recipe).is_dir() else recipe, settings)
    machines = config.launch.nodes or 1
    processes = config.launch.gpus_per_node
    if processes is None and machines > 1:
        raise ConfigError(f"{machines} nodes, but launch.gpus_per_node is unset; give --gpus-per-node N.")
    processes = processes or config.declared_world_size
    config.layout(machines * processes)
    return Launch(recipe, settings, machines, processes, max_restarts, config)


def start_here(launch: Launch) -> int:
    """Run the processes of a launch on this machine to their end; the exit code of the run.

    Raises ConfigError when there are fewer accelerators than processes.
    """
    if launch.config.training.device != "cpu":
        import torch

        found = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
        if 0 < found < launch.gpus_per_node:
            raise ConfigError(
                f"--gpus-per-node {launch.gpus_per_node}: this machine has {found}; use --gpus-per-node {found}, "
                "or training.device=cpu."
            )
    from firstlight.launch.torchrun import torchrun

    return torchrun(launch.arguments)


def node_command(launch: Launch, host: str, port: int) -> str:
    """The command to type on each machine; they meet at `host`, which is one of them, on `port`."""
    meeting = [
        *(f"--nnodes={launch.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={launch.config.name}"),
        f"--rdzv-endpoint={host}:{port}",
    ]
    return shlex.join([sys.executable, "-m", "firstlight.launch.torchrun", *meeting, *launch.arguments])
