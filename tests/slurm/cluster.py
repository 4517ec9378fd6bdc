"""A real SLURM cluster on this machine: login node and compute nodes in network namespaces, each with its own address.

The nodes pretend to have 8 GPUs, 64 CPUs and 500 GB (`SlurmdParameters=config_overrides`); a GPU file is a clone of
/dev/null. Every "host" has its own network, host name and /etc/hosts; the file system is shared, as on a cluster.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

NODES = 4  # what train_70b.sbatch asks for
NETWORK = "10.213.77"

SLURM_CONF = """\
ClusterName=test
SlurmctldHost=login({network}.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
# A requeued job waits as long as credentials live: 120 s by default.
AuthInfo=cred_expire=5
SchedulerParameters=sched_interval=3,bf_interval=3
SlurmctldPort=26817
SlurmdPort=26818
SrunPortRange=30000-30200
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
# No cgroups and no systemd are needed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
GresTypes=gpu
"""
NODE_SHAPE = "CPUs=64 Boards=1 SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=500000 Gres=gpu:8"


def why_not_here() -> str | None:
    """Return what this machine lacks to run the cluster, or None."""
    if os.geteuid() != 0:
        return "network namespaces need the superuser"
    missing = [name for name in ("slurmctld", "slurmd", "ip", "nsenter", "unshare") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm iproute2 util-linux)"
    return None


class Cluster:
    """The running cluster; `folder` holds its configuration, state and logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = f"agentlm{os.getpid()}"
        self.nodes = [f"node{i + 1}" for i in range(NODES)]
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Lay the network, write the configuration, start the daemons and wait until all nodes are idle."""
        self._write_configuration()
        self._lay_network()
        self._start_daemon("login", ["slurmctld", "-D"])
        for node in self.nodes:
            self._start_daemon(node, ["slurmd", "-D", "-N", node])
        self.wait_until_idle(60)

    def stop(self) -> None:
        """Stop the daemons, what their jobs left, and the network."""
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=10)
            daemon.kill()
            daemon.wait()
        for host in ["login", *self.nodes]:
            left = subprocess.run(["ip", "netns", "pids", self._namespace(host)], capture_output=True, text=True)
            for process in left.stdout.split():
                subprocess.run(["kill", "-9", process], stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "netns", "del", self._namespace(host)], stderr=subprocess.DEVNULL)

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """Return `command` as run on `host`: its network, host name and /etc/hosts."""
        enter = f'mount --bind {self.folder}/hosts /etc/hosts && hostname "$0" && exec "$@"'
        namespace = f"--net=/run/netns/{self._namespace(host)}"
        return ["nsenter", namespace, "unshare", "--uts", "--mount", "sh", "-c", enter, host, *command]

    def run(
        self, *command: str, host: str = "login", env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """Run `command` on a host to its end; output and errors are kept apart."""
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **(env or {})}
        return subprocess.run(
            self.command(host, command), env=environment, capture_output=True, text=True, timeout=timeout
        )

    def state(self, job: str) -> dict[str, str]:
        """Return the fields of `scontrol show job`; {} when SLURM has forgotten the job."""
        shown = self.run("scontrol", "--oneliner", "show", "job", job).stdout
        return dict(field.split("=", 1) for field in shown.split() if "=" in field)

    def wait_for(self, job: str, *states: str, timeout: float = 180) -> dict[str, str]:
        """Wait until `job` is in one of `states`; AssertionError with its fields after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        fields: dict[str, str] = {}
        while time.monotonic() < deadline:
            fields = self.state(job)
            if fields.get("JobState") in states:
                return fields
            time.sleep(0.5)
        raise AssertionError(f"job {job} is not in {states} after {timeout} s: {fields}")

    def wait_until_idle(self, timeout: float) -> None:
        """Wait until all nodes take jobs."""
        deadline = time.monotonic() + timeout
        shown = None
        while time.monotonic() < deadline:
            shown = self.run("sinfo", "--noheader", "--Node", "--format=%N %t")
            if shown.stdout.split("\n")[:-1] == [f"{node} idle" for node in self.nodes]:
                return
            time.sleep(0.3)
        logs = "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in (self.folder / "log").glob("*"))
        raise AssertionError(f"the cluster did not start in {timeout} s: {shown}\n{logs}")

    def _namespace(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def _write_configuration(self) -> None:
        for name in ("state", "log", "dev", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        for i in range(8):
            os.mknod(self.folder / "dev" / f"nvidia{i}", 0o20666, os.makedev(1, 3))
        addresses = {"login": f"{NETWORK}.1"} | {node: f"{NETWORK}.{11 + i}" for i, node in enumerate(self.nodes)}
        conf = SLURM_CONF.format(folder=self.folder, network=NETWORK)
        conf += "".join(f"NodeName={node} NodeAddr={addresses[node]} {NODE_SHAPE}\n" for node in self.nodes)
        conf += "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(
            f"NodeName=node[1-{NODES}] Name=gpu File={self.folder}/dev/nvidia[0-7]\n"
        )
        hosts = "".join(f"{address} {name}\n" for name, address in addresses.items())
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")

    def _lay_network(self) -> None:
        login = self._namespace("login")
        for host in ["login", *self.nodes]:
            _ip("netns", "add", self._namespace(host))
            _ip("-n", self._namespace(host), "link", "set", "lo", "up")
        _ip("-n", login, "link", "add", "switch", "type", "bridge")
        _ip("-n", login, "addr", "add", f"{NETWORK}.1/24", "dev", "switch")
        _ip("-n", login, "link", "set", "switch", "up")
        for i, node in enumerate(self.nodes):
            port, namespace = f"port{i}", self._namespace(node)
            _ip("-n", login, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("-n", login, "link", "set", port, "master", "switch", "up")
            _ip("-n", namespace, "addr", "add", f"{NETWORK}.{11 + i}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")

    def _start_daemon(self, host: str, command: list[str]) -> None:
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        with open(self.folder / "log" / f"{host}.out", "wb") as log:
            daemon = subprocess.Popen(
                self.command(host, command), env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.daemons.append(daemon)


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster for as long as the block lasts."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
