"""The batch script, run with stand-ins for Slurm's commands: real shells, real launchers, real ranks, real signals."""

from __future__ import annotations

import re
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from firstlight.launch import SlurmJob, plan_launch, write_script
from firstlight.support.errors import ConfigError

SRUN = """\
#!/bin/bash
# Runs its command once on each of two "machines", and ends with the highest exit code, as srun does.
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do
    SLURM_NODEID=$node SLURMD_NODENAME=127.0.0.1 "$@" &
    tasks+=($!)
done
echo "${tasks[@]}" > tasks
highest=0
for task in "${tasks[@]}"; do wait "$task"; code=$?; highest=$((code > highest ? code : highest)); done
exit "$highest"
"""
SCANCEL = """\
#!/bin/bash
# Signals the tasks and, as Slurm does, the processes that they have started.
for task in $(cat tasks); do kill -TERM "$task" $(cat "/proc/$task/task/$task/children"); done
echo "$@" > scancelled
"""
SCONTROL = """\
#!/bin/bash
if [ "$1" = show ]; then printf '%s\\n' 127.0.0.1 127.0.0.2; else echo "$@" > requeued; fi
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment of a job on a cluster of two machines that are both this one."""
    monkeypatch.chdir(tmp_path)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    return {"PATH": f"{commands}:/usr/bin:/bin", "SLURM_JOB_ID": str(free_job()), "SLURM_JOB_NODELIST": "n[0-1]"}


def free_job() -> int:
    """A job id whose port is free."""
    for job in range(4711, 9000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", 10000 + job))
            except OSError:
                continue
            return job
    raise AssertionError


@pytest.fixture
def script(cluster) -> Path:
    launch = plan_launch(
        "quickstart",
        ["training.device=cpu", "training.global_batch_size=16", "description=two words"],
        nodes=2,
        gpus_per_node=1,
    )
    return write_script(launch, SlurmJob(time="1:00:00"))


def test_the_time_limit_saves_and_queues_the_job_again(script, cluster, start, stand_in, until, tmp_path) -> None:
    job = start("bash", script, env=cluster | stand_in("train"))
    until(lambda: (tmp_path / "working_0").exists() and (tmp_path / "working_1").exists(), job)
    job.send_signal(signal.SIGUSR1)  # to the batch shell alone, as --signal=B:USR1 says
    said, _ = job.communicate(timeout=60)
    assert said.splitlines() == ["rank 0 works", "stopped: a step of 2 ranks, saved."]
    assert job.returncode == 75
    assert (tmp_path / "saved_0").exists() and (tmp_path / "saved_1").exists()
    assert (tmp_path / "scancelled").read_text().split() == ["--signal=TERM", cluster["SLURM_JOB_ID"]]
    assert (tmp_path / "requeued").read_text().split() == ["requeue", cluster["SLURM_JOB_ID"]]


@pytest.mark.slow
def test_a_job_that_its_owner_cancels_saves_and_stays_away(script, cluster, start, stand_in, until, tmp_path) -> None:
    job = start("bash", script, env=cluster | stand_in("train"))
    until(lambda: (tmp_path / "working_0").exists() and (tmp_path / "working_1").exists(), job)
    subprocess.run(["bash", tmp_path / "bin" / "scancel"], check=True, cwd=tmp_path)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 75, said
    assert (tmp_path / "saved_1").exists()
    assert not (tmp_path / "requeued").exists()


def test_a_failure_is_not_queued_again(script, cluster, start, stand_in, tmp_path) -> None:
    job = start("bash", script, env=cluster | stand_in("data"))
    said, _ = job.communicate(timeout=60)
    assert said.splitlines() == ["rank 0 works", "error: rank 1: shard_7.bin: the file is cut short."]
    assert job.returncode == 1
    assert not (tmp_path / "requeued").exists()


def test_what_the_script_asks_of_slurm(script, tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    asked = re.findall(r"^#SBATCH (\S.*)$", script.read_text(), re.MULTILINE)
    assert {"--nodes=2", "--ntasks-per-node=1", "--time=1:00:00", f"--chdir={tmp_path}", "--requeue"} <= set(asked)
    assert "--signal=B:USR1@300" in asked
    assert not any(option.startswith("--gpus") for option in asked), "the recipe trains on CPUs"
    assert "training.global_batch_size=16 'description=two words' launch.nodes=2" in script.read_text()


def test_cores_accelerators_and_other_options(cluster) -> None:
    launch = plan_launch("quickstart", ["training.global_batch_size=128"], nodes=2, gpus_per_node=8)
    job = SlurmJob(partition="long", account="me", cpus_per_node=64, save_seconds=60, directives=("--qos=high",))
    text = write_script(launch, job, Path("job.sh")).read_text()
    asked = re.findall(r"^#SBATCH (\S.*)$", text, re.MULTILINE)
    assert {"--partition=long", "--account=me", "--gpus-per-node=8", "--cpus-per-task=64", "--qos=high"} <= set(asked)
    assert "--signal=B:USR1@60" in asked and "--exclusive" not in asked
    assert "srun --ntasks-per-node=1 --cpus-per-task=64 " in text, "srun does not take it from the job"


def test_only_an_untouched_script_is_replaced(script: Path) -> None:
    launch = plan_launch("quickstart", ["training.global_batch_size=128"], nodes=2, gpus_per_node=8)
    write_script(launch, SlurmJob(), script)
    edited = script.read_text() + "# mine\n"
    script.write_text(edited)
    with pytest.raises(ConfigError, match="not as `firstlight launch` wrote it"):
        write_script(launch, SlurmJob(), script)
    assert script.read_text() == edited


@pytest.mark.parametrize("option", ["qos=high", "--comment=a\nrm -rf"])
def test_an_option_that_would_break_the_script_is_refused(cluster, option: str) -> None:
    with pytest.raises(ConfigError, match="one line that begins with -"):
        write_script(
            plan_launch("quickstart", ["training.global_batch_size=128"], nodes=2, gpus_per_node=8),
            SlurmJob(directives=(option,)),
        )
    assert not Path("quickstart.sbatch").exists()
