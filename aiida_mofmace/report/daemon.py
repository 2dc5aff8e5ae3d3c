"""What keeps a sound run from moving: no daemon, or a dead worker that the broker still counts."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path

from aiida.manage import get_manager

__all__ = ["dead_workers", "guard_daemon", "mend_daemon", "profile_option", "release_dead_workers"]

_ANSWER_SECONDS = 5.0


def profile_option() -> str:
    """Return what `verdi` and `mofmace` must be given to work in this profile: nothing where it is the default."""
    from aiida.manage.configuration import get_config

    profile = get_manager().get_profile()
    if profile is None or profile.name == get_config().default_profile_name:
        return ""
    return f" -p {profile.name}"


def mend_daemon() -> str | None:
    """Say what the daemon suffers from, None if nothing; processes of dead workers are handed to living ones."""
    from aiida.engine.daemon.client import get_daemon_client

    profile = get_manager().get_profile()
    if profile is None or not profile.process_control_backend:
        return None
    if not get_daemon_client(profile.name).is_daemon_running:
        return f"the daemon is not running, so nothing moves: start it with `verdi{profile_option()} daemon start`"
    guard_daemon()
    dead = release_dead_workers()
    return f"workers of the daemon that died: {dead}; what they were at goes on in the others" if dead else None


def guard_daemon() -> bool:
    """Put a process beside the daemon that does this when nobody looks; return whether it was put there now.

    The daemon starts it again should it die, and takes it along when it stops. Brokers other than ZeroMQ need none.
    """
    from aiida.brokers.zeromq import ZeromqBroker
    from aiida.engine.daemon.client import DaemonException, get_daemon_client

    profile = get_manager().get_profile()
    if profile is None or not isinstance(get_manager().get_broker(), ZeromqBroker):
        return False
    client = get_daemon_client(profile.name)
    name = f"{client.daemon_name}-mofmace-guard"
    log = Path(client.daemon_log_file).with_name(f"mofmace-guard-{profile.name}.log")
    command = [sys.executable, "-W", "ignore", "-m", "aiida_mofmace.report.guard", profile.name, str(log)]
    watcher = {"name": name, "cmd": shlex.join(command), "start": True, "options": {"copy_env": True}}
    try:
        if name in client.call_client({"command": "list", "properties": {}}).get("watchers", []):
            return False
        answer = client.call_client({"command": "add", "properties": watcher})
    except DaemonException:
        return False
    return bool(answer.get("status") == "ok")


def dead_workers() -> int:
    """Count the workers that the ZeroMQ broker still gives work to though they are gone; 0 for any other broker.

    The broker's account is up to 5 s old, so that a worker that has just died or started may be counted wrongly.
    """
    from aiida.brokers.zeromq import ZeromqBroker
    from aiida.engine.daemon.client import get_daemon_client

    profile, broker = get_manager().get_profile(), get_manager().get_broker()
    if profile is None or not isinstance(broker, ZeromqBroker) or not broker.check_service_reachable():
        return 0
    client = get_daemon_client(profile.name)
    if not client.is_daemon_running:
        return 0
    known = broker.probe_service_status().get("task_subscribers")
    return max(0, known - client.get_number_of_workers()) if isinstance(known, int) else 0


def release_dead_workers() -> int:
    """Have the broker give the processes of dead workers to living ones; return how many were dead.

    The broker of aiida-core 2.9.4 looks for dead workers only in the moment in which a connection breaks, and in that
    moment the dead one may still look alive; then its processes wait for ever. Any other connection that ends makes it
    look again: here one that asks for a recipient nobody has.
    """
    from aiida.brokers.zeromq import ZeromqBroker

    dead, profile = dead_workers(), get_manager().get_profile()
    if not dead or profile is None:
        return 0
    with ZeromqBroker(profile) as broker, contextlib.suppress(Exception):
        broker.get_communicator().rpc_send("nobody", None).result(timeout=_ANSWER_SECONDS)
    return dead
