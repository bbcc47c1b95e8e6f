#!/usr/bin/env python3
"""The preforking server beside nginx and Python's http.server: the same files, the same clients, in turn, in one run.

    apt-get install wrk nginx-light python3
    cargo build --release --example prefork
    examples/prefork/compare.py

writes docs/benchmarks/http.json, with every single run, and docs/benchmarks/http.md, a section of docs/benchmarks.md.
Everything happens on 127.0.0.1 and in a temporary folder, and is over after SERVERS x SIZES x ROUNDS x SECONDS or little
more. It is for orientation: the clients run on the same cores as the servers.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PREFORK = REPOSITORY / "target/release/examples/prefork"
PYTHON = "/usr/bin/python3"
SIZES = {"1 KiB": 1 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}

# What wrk has counted, in a form that can be read.
COUNT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "seconds": %f, "bytes": %d, "errors": %d, "refused": %d, "p50_us": %d, "p99_us": %d}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
"""

NGINX = """
{user}
daemon off;
worker_processes {cores};
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  default_type application/octet-stream;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=5, help="how long each run takes (default: 5)")
    options.add_argument("--rounds", type=int, default=5, help="how often each server has its turn (default: 5)")
    options.add_argument("--connections", type=int, default=32, help="how many clients ask (default: 32)")
    options.add_argument("--output", type=pathlib.Path, default=REPOSITORY / "docs/benchmarks", help="where to write")
    options = options.parse_args()
    if not PREFORK.exists():
        sys.exit(f"{PREFORK} is not built: cargo build --release --example prefork")

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        folder = pathlib.Path(folder)
        (folder / "count.lua").write_text(COUNT)
        (folder / "files").mkdir()
        for size in SIZES.values():
            (folder / "files" / str(size)).write_bytes(os.urandom(size))
        ports = {name: start(running, folder) for name, start in SERVERS.items()}
        for name, port in ports.items():
            check(name, port, folder / "files")
        runs = []
        for round in range(options.rounds):
            for size, length in SIZES.items():
                for name, port in ports.items():
                    run = {"round": round, "server": name, "size": size, **wrk(folder, port, length, options)}
                    print(f"{run['requests'] / run['seconds']:10.0f}/s  {size:>6}  {name}", flush=True)
                    runs.append(run)

    options.output.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "connections": options.connections, "seconds": options.seconds, "runs": runs}
    (options.output / "http.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.output / "http.md").write_text(table(result))


def start_prefork(running, folder):
    """Says where it listens."""
    process = start(running, [PREFORK, "--root", folder / "files", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE)
    line = process.stdout.readline().decode()
    return int(line.split("http://127.0.0.1:")[1].split("/")[0])


def start_nginx(running, folder):
    port, user = free_port(), "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(user=user, cores=os.cpu_count(), folder=folder, port=port))
    start(running, ["/usr/sbin/nginx", "-e", folder / "nginx.log", "-c", config])
    return port


def start_python(running, folder):
    port = free_port()
    command = [PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder / "files", str(port)]
    start(running, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return port


SERVERS = {"prefork (this example)": start_prefork, "nginx": start_nginx, "python3 -m http.server": start_python}


def start(running, command, **options):
    process = subprocess.Popen(command, **options)
    running.callback(process.wait, 10)
    running.callback(process.terminate)
    return process


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def check(name, port, files):
    """Waits until the server serves, and looks whether it serves the files."""
    deadline = time.monotonic() + 10
    for file in files.iterdir():
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", f"/{file.name}")
                if connection.getresponse().read() != file.read_bytes():
                    sys.exit(f"{name} serves something else")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            finally:
                connection.close()


def wrk(folder, port, length, options):
    command = ["wrk", "--threads", "1", "--connections", str(options.connections), "--latency"]
    command += ["--duration", f"{options.seconds}s", "--script", folder / "count.lua", f"http://127.0.0.1:{port}/{length}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=options.seconds + 30).stdout
    return json.loads(output.split("\nRESULT ")[1])


def machine():
    def said(command):
        output = subprocess.run(command, capture_output=True, text=True)
        return (output.stdout + output.stderr).strip().splitlines()[0]

    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "nginx": said(["/usr/sbin/nginx", "-v"]),
        "python": said([PYTHON, "--version"]),
        "wrk": said(["wrk", "--version"]),
    }


def table(result):
    machine = result["machine"]
    lines = [
        "## A web server, for orientation",
        "",
        "`examples/prefork` beside others that serve the same files. The figures measure sockets and files more than this "
        "crate, which carries the messages between the server's processes.",
        "",
        f"{machine['system']}, {machine['cores']} cores; {machine['nginx'].split(': ')[-1]}; {machine['python']}; "
        f"`wrk` with {result['connections']} connections on the same cores; medians of "
        f"{1 + max(run['round'] for run in result['runs'])} runs of {result['seconds']} s, the servers in turn.",
        "",
        "| file | server | requests/s | MiB/s | median, ms | 99 %, ms | failed |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for size in SIZES:
        for server in SERVERS:
            runs = [run for run in result["runs"] if (run["size"], run["server"]) == (size, server)]

            def median(value):
                return statistics.median(value(run) for run in runs)

            cells = [
                f"{median(lambda run: run['requests'] / run['seconds']):.0f}",
                f"{median(lambda run: run['bytes'] / run['seconds'] / 2**20):.0f}",
                f"{median(lambda run: run['p50_us'] / 1000):.2f}",
                f"{median(lambda run: run['p99_us'] / 1000):.2f}",
                f"{sum(run['errors'] + run['refused'] for run in runs)}",
            ]
            lines.append(f"| {size} | {server} | {' | '.join(cells)} |")
    # As in the document that this becomes a part of, one folder up.
    made = "[`examples/prefork/compare.py`](../examples/prefork/compare.py)"
    lines += ["", f"Made by {made}; every run is in [http.json](benchmarks/http.json).", ""]
    return "\n".join(lines)


main()
