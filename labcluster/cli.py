"""The commands of ./lab."""

# ruff: noqa: PLC0415 - what is imported up here is imported by `exec` too, which has to be quick

import argparse
import signal
import sys
from collections.abc import Callable, Sequence

from labcluster.enter import enter
from labcluster.errors import LabError
from labcluster.layout import MOST_NODES, Layout

# What `docker exec` and `ssh` do as well: a status of their own, apart from the command's.
_EXEC_FAILED = 125
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        return command(arguments)
    except (LabError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return _EXEC_FAILED if command in {_exec, _shell} else 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab", description="A private Grid Engine cluster with a QPU, on this machine."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str, **more: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, **more)  # type: ignore[arg-type]
        sub.set_defaults(command=command)
        sub.add_argument("--name", default="lab", help="which cluster, if there are several (default: lab)")
        return sub

    up = add("up", _up, "Set up a cluster and leave it standing.")
    up.add_argument(
        "nodes", nargs="?", type=int, default=2, metavar="N", help=f"execution hosts, 1 to {MOST_NODES} (2)"
    )
    up.add_argument("--bare", action="store_true", help="Grid Engine alone, without the kit, Warden and the QPU")
    up.add_argument("--qrmi", action="store_true", help="QRMI's own clients, too: qrmi-python and task_runner")
    up.add_argument(
        "--shot-rate", type=float, default=0, metavar="R", help="shots a second of the QPU (0: as fast as it can)"
    )
    add("down", _down, "End everything on a cluster and remove it.")
    for name, function, text, words in (
        ("exec", _exec, "Run a command on a host; its exit status and output are this command's.", " CMD..."),
        ("shell", _shell, "Open a login shell on a host.", ""),
    ):
        sub = add(name, function, text, usage=f"lab {name} [--name NAME] HOST [--user USER]{words}")
        sub.add_argument("--user", default="root", help="root (default), alice, bob or warden")
        sub.add_argument("rest", nargs=argparse.REMAINDER, metavar=f"HOST{words}", help="master, node1, node2 ...")
        sub.set_defaults(parser=sub)
    add("status", _status, "Show what stands, and where its logs are.")
    demo = add("demo", _demo, "Set up a cluster of its own and show jobs that use the QPU.")
    demo.set_defaults(name="demo")
    test = add("test", _test, "Run the tests through tox and sum them up.")
    test.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="ENV", help="lint, types, py311 ... cluster, site, interop (all)"
    )
    return parser


def _up(arguments: argparse.Namespace) -> int:
    from labcluster.cluster import Cluster

    cluster = Cluster(arguments.name)
    kind = {"with_kit": not arguments.bare, "with_qrmi": arguments.qrmi}
    if cluster.up(arguments.nodes, **kind, shot_rate=arguments.shot_rate, say=_say):
        _say(f"cluster {cluster.name} is up: {', '.join(cluster.hosts)}; try ./lab exec{cluster.option} master qhost")
    else:
        _say(f"cluster {cluster.name} is up already")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from labcluster.cluster import Cluster

    cluster = Cluster(arguments.name)
    _say(f"cluster {cluster.name} is gone" if cluster.down() else f"there is no cluster {cluster.name}")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    host, command = _host_and_rest(arguments)
    if not command:
        arguments.parser.error("tell what to run on the host, or use lab shell")
    return enter(Layout(arguments.name), host, arguments.user, command)


def _shell(arguments: argparse.Namespace) -> int:
    host, command = _host_and_rest(arguments)
    if command:
        arguments.parser.error("a shell takes no command: use lab exec")
    return enter(Layout(arguments.name), host, arguments.user, [])


def _host_and_rest(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """The host and what follows it, with the options between the two taken in."""
    if not arguments.rest:
        arguments.parser.error("tell which host: master, node1, node2 ...")
    host, *rest = arguments.rest
    if rest[:1] != ["--"]:
        arguments.parser.parse_args(rest, arguments)
        rest = arguments.rest
    return host, rest[1:] if rest[:1] == ["--"] else rest


def _status(_arguments: argparse.Namespace) -> int:
    from labcluster.cluster import Cluster

    for cluster in Cluster.all():
        state = "up" if cluster.is_up() else "not complete: run ./lab down" + cluster.option
        running = [host for host in cluster.hosts if cluster.is_running(host)]
        print(f"{cluster.name}: {state}; runs {', '.join(running) or 'nothing'}; logs in {cluster.logs}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from labcluster.cluster import Cluster
    from labcluster.demo import main as demo

    return demo(Cluster(arguments.name))


def _test(arguments: argparse.Namespace) -> int:
    from labcluster.suite import run

    return run(arguments.rest)


def _say(line: str) -> None:
    print(f"lab: {line}", file=sys.stderr, flush=True)
