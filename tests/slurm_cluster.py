"""A Slurm cluster of one node behind SSH, on this machine, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sshd", "ssh-keygen")
HOST = "mofmace-test-cluster"

_SLURM = """
ClusterName=test
SlurmctldHost={node}
SlurmUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
NodeName={node} CPUs={cores} RealMemory={memory} Gres=gpu:{cores}
PartitionName=gpu Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""

# As many GPUs as cores, all of them /dev/null: Slurm only counts them.
_GRES = "NodeName={node} Name=gpu File={files}\n"

_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile {folder}/sshd.pid
PasswordAuthentication no
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv SLURM_CONF={folder}/slurm.conf
Subsystem sftp internal-sftp
"""

_CLIENT = """
Host {host}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/key
  UserKnownHostsFile {home}/.ssh/known_hosts
"""


def missing() -> list[str]:
    """Return what a cluster lacks on this machine."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return lacking + ([] if os.geteuid() == 0 else ["the rights of root"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def _write_configuration(folder: Path, home: Path) -> None:
    node, cores = socket.gethostname().partition(".")[0], os.cpu_count() or 1
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
    text = _SLURM.format(
        folder=folder, node=node, cores=cores, memory=memory, controller_port=_free_port(), node_port=_free_port()
    )
    (folder / "slurm.conf").write_text(text)
    devices = [folder / f"gpu{index}" for index in range(cores)]
    for device in devices:
        device.symlink_to("/dev/null")
    (folder / "gres.conf").write_text("".join(_GRES.format(node=node, files=device) for device in devices))
    port = _free_port()
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder, port=port))
    for name in ("key", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    ssh = home / ".ssh"
    ssh.mkdir(mode=0o700, parents=True)
    (ssh / "config").write_text(_CLIENT.format(host=HOST, port=port, user="root", folder=folder, home=home))
    key = (folder / "host_key.pub").read_text().split()
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")


def _start(folder: Path) -> list[subprocess.Popen[bytes]]:
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    # sshd wants its full path and this folder, which a system without a running sshd may lack.
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd") or "sshd"
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    commands = [
        ["munged", "-F", "-f", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
        + [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")],
        [sshd, "-D", "-f", f"{folder}/sshd_config", "-E", f"{folder}/sshd.log"],
        ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
        ["slurmd", "-D", "-f", f"{folder}/slurm.conf"],
    ]
    started = []
    for command in commands:
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(1.0)
    return started


def _wait_until_idle(folder: Path, seconds: float = 60.0) -> None:
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"the node did not become idle in {seconds:.0f} s\n{logs}")


@contextmanager
def slurm_cluster(folder: Path, home: Path) -> Iterator[str]:
    """Start the cluster, and stop it in the end.

    :param folder: new and empty, for all that the services write
    :param home: new home folder whose ``.ssh/config`` knows the host; ``HOME`` must point to it while AiiDA connects
    :return: name of the host for SSH
    """
    folder.chmod(0o755)
    _write_configuration(folder, home)
    services = _start(folder)
    try:
        _wait_until_idle(folder)
        yield HOST
    finally:
        for service in reversed(services):
            service.terminate()
        for service in services:
            service.wait(timeout=30)
