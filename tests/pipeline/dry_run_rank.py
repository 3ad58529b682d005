"""One of two processes: print how many elements of the parameters it holds at each layout, as JSON.

Run as `python dry_run_rank.py RANK WORLD_SIZE STORE RECIPE`, STORE being a file that all ranks meet at. Each further
argument is a layout: settings of `parallel`, as JSON.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist

from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import make_ranks
from firstlight.recipe import load_config
from firstlight.support.parts import local_part
from firstlight.support.peers import leave_process

rank, world_size, store, recipe, *layouts = sys.argv[1:]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world_size))
counts = []
for layout in layouts:
    config = load_config(recipe, [f"parallel.{name}={value}" for name, value in json.loads(layout).items()])
    config = config.model_copy(update={"model": config.model.resolved()})
    model = ParallelModel(config, make_ranks(config.layout(int(world_size)), torch.device("cpu")))
    model.materialize()
    counts.append(sum(local_part(parameter).numel() for _, parameter in model.named_parameters()))
print(json.dumps(counts))
dist.barrier()
dist.destroy_process_group()
leave_process()
