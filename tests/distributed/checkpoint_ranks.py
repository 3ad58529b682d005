"""One rank of the tests of checkpoints: `python checkpoint_ranks.py MEETING FOLDER TASK…`.

RANK and WORLD_SIZE are in the environment; MEETING is a file that does not exist yet, by which the ranks find each
other; each task has the folder of its name. The model is small and awkward: dimensions that no number of ranks divides,
one with fewer rows than ranks. What a rank must hold after loading is not computed here but taken from the same model
after FSDP and tensor parallelism divided it.
"""

from __future__ import annotations

import functools
import itertools
import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from firstlight.config import CheckpointConfig
from firstlight.support.errors import CheckpointError
from firstlight.support.peers import leave_process
from firstlight.training.checkpoint import CheckpointWriter, load_checkpoint

COLUMNS = {"head": 51, "up": 9, "gate": 7, "few": 3}
"""Linear layers that tensor parallelism divides by rows of the weight: name → rows."""
ROWS = {"down": 10, "out": 51}
"""Linear layers that it divides by columns: name → columns."""
WIDTH = 6
LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "shard 4": ((4,), ("shard",)),
    "shard 2 × tensor 2": ((2, 2), ("shard", "tensor")),
    "replicate 2 × shard 2": ((2, 2), ("replicate", "shard")),
    "pipeline 2 × shard 2": ((2, 2), ("pipeline", "shard")),
    "tensor 4": ((4,), ("tensor",)),
    "shard 3 × tensor 2": ((3, 2), ("shard", "tensor")),
}
FIRST_STAGE, LAST_STAGE = ("head", "up", "gate"), ("few", "down", "out", "head")
"""The layers of two pipeline stages; the head is tied to the embedding, so that both hold it."""


def whole_tensors(seed: int = 0) -> dict[str, Tensor]:
    """What a checkpoint of the model holds, undivided: weights, one optimizer state of each, two plain tensors."""
    model = build(seed)
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    return with_states(tensors, seed)


def build(seed: int, layers: Iterable[str] = (*COLUMNS, *ROWS)) -> nn.Sequential:
    """Some layers of the model; what is in them depends on the seed and the name alone."""
    model = nn.Sequential()
    for name in layers:
        in_features, out_features = (WIDTH, COLUMNS[name]) if name in COLUMNS else (ROWS[name], WIDTH)
        layer = nn.Linear(in_features, out_features, bias=name in COLUMNS)
        generator = torch.Generator().manual_seed(seed + 10 * len(name) + in_features * out_features)
        for parameter in layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        model.add_module(name, layer)
    return model


def with_states(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    states = {f"optimizer.{name.removeprefix('model.')}.exp_avg": 2 * value for name, value in tensors.items()}
    plain = {"optimizer.step": torch.tensor(float(seed)), "random": torch.arange(7, dtype=torch.uint8) + seed}
    return {**tensors, **states, **plain}


def divided_tensors(layout: str, seed: int) -> dict[str, Tensor]:
    """The tensors of this rank after the model was really divided."""
    mesh, names = mesh_of(layout), LAYOUTS[layout][1]
    stages = (FIRST_STAGE, LAST_STAGE) if "pipeline" in names else ((*COLUMNS, *ROWS),)
    model = build(seed, stages[mesh.get_local_rank("pipeline") if "pipeline" in names else 0])
    divide(model, mesh, names)
    return with_states({f"model.{name}": value.detach() for name, value in model.named_parameters()}, seed)


@functools.cache
def mesh_of(layout: str) -> DeviceMesh:
    shape, names = LAYOUTS[layout]
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def divide(model: nn.Module, mesh: DeviceMesh, names: tuple[str, ...]) -> None:
    if "tensor" in names:
        plan = {name: ColwiseParallel() for name in COLUMNS} | {name: RowwiseParallel() for name in ROWS}
        parallelize_module(model, mesh["tensor"], plan)
    data = tuple(name for name in names if name in ("replicate", "shard"))
    if data:
        fully_shard(model, mesh=mesh[data])


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def save_everywhere_and_load_everywhere(folder: Path) -> None:
    """Save at each layout of this number of ranks, then load every checkpoint in `folder` at each of them.

    The tensors are overwritten as soon as `save` returns.
    """
    layouts = [name for name, (shape, _) in LAYOUTS.items() if torch.tensor(shape).prod() == dist.get_world_size()]
    for layout in layouts:
        tensors = divided_tensors(layout, seed=5)
        with CheckpointWriter(folder / layout, CheckpointConfig()) as writer:
            writer.save(5, tensors, {"layout": layout})
            for tensor in tensors.values():
                local(tensor).fill_(3)
    for layout in layouts:
        expected = divided_tensors(layout, seed=5)
        for source in sorted(folder.iterdir()):
            loaded = divided_tensors(layout, seed=6)
            state = load_checkpoint(source, loaded)
            assert state == {"step": 5, "layout": source.name}
            for name, value in expected.items():
                assert torch.equal(local(loaded[name]), local(value)), f"{source.name} → {layout}: {name}"


def die_while_saving(folder: Path) -> None:
    """Save step 1; then rank 1 is killed when it has written its part of step 2."""
    tensors = divided_tensors("shard 4", seed=1)
    write_data = FileSystemWriter.write_data

    def write_and_die(*arguments):  # type: ignore[no-untyped-def]
        write_data(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    with CheckpointWriter(folder, CheckpointConfig()) as writer:
        writer.save(1, tensors, {})
        writer.wait()
        if dist.get_rank() == 1:
            FileSystemWriter.write_data = write_and_die  # type: ignore[method-assign]
        writer.save(2, tensors, {})


def resume(folder: Path) -> None:
    """What a start after a kill does: make a writer, load, train, save."""
    with CheckpointWriter(folder, CheckpointConfig()) as writer:
        assert not list(folder.glob(".*"))
        loaded, expected = divided_tensors("shard 4", seed=0), divided_tensors("shard 4", seed=1)
        assert load_checkpoint(folder, loaded) == {"step": 1}
        assert all(torch.equal(local(loaded[name]), local(expected[name])) for name in expected)
        writer.save(3, loaded, {})


def fail_on_one_rank(folder: Path) -> None:
    """The disk of rank 1 refuses step 2: a save that is waited for raises on every rank, one that is not is due again
    on all of them at the same step, and then works."""
    tensors = divided_tensors("shard 4", seed=1)
    tensors["large"] = distribute_tensor(torch.ones(4, 50_000), mesh_of("shard 4"), [Shard(0)])
    with CheckpointWriter(folder, CheckpointConfig(interval_steps=1_000_000_000)) as writer:
        writer.save(1, tensors, {}, wait=True)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if dist.get_rank() == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            writer.save(2, tensors, {}, wait=True)
        except CheckpointError as problem:
            print("fail_on_one_rank:", problem)
        writer.save(2, tensors, {})
        again = next(step for step in itertools.count(2 + 100_000_000, 100_000_000) if writer.due(step))
        dist.barrier()
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["step_000001"], names
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        steps = [0] * dist.get_world_size()
        dist.all_gather_object(steps, again)
        assert set(steps) == {again}
        writer.save(3, tensors, {})


def set_damaged_aside(folder: Path) -> None:
    """Load from a folder whose newest checkpoint is damaged in one rank's file."""
    loaded, expected = divided_tensors("shard 4", seed=0), divided_tensors("shard 4", seed=1)
    assert load_checkpoint(folder, loaded)["step"] == 1
    assert all(torch.equal(local(loaded[name]), local(expected[name])) for name in expected)


def refuse_another_model(folder: Path) -> None:
    """Every rank gets the sentence, also where only one rank's tensors do not fit."""
    tensors = divided_tensors("shard 4", seed=1)
    if dist.get_rank() == 2:
        tensors["random"] = torch.zeros(8, dtype=torch.uint8)
    try:
        load_checkpoint(folder, tensors)
    except CheckpointError as problem:
        print("refuse_another_model:", problem)


def main() -> None:
    meeting, folder, *tasks = sys.argv[1:]
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    for task in tasks:
        globals()[task](Path(folder) / task)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    leave_process()
