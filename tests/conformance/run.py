"""`make sim-conformance`: runs the same calls through the AWS command line against vpc-sim and moto, and compares them.

Owns the Python environment (created once per requirements.txt, outside the checkout), the two servers, and the result.
Uses only the standard library; code that needs packages runs inside the environment. Exit code 0 means that every
difference is in differences.toml and that README.md is up to date.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path

import compare
import report

HERE = Path(__file__).resolve().parent


def environment(where):
    """The Python interpreter of an environment with exactly the packages of requirements.txt."""
    requirements = HERE / "requirements.txt"
    stamp, digest = where / "requirements.sha256", hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = where / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != digest:
        print("== installing the AWS command line and moto", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", where], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", requirements], check=True)
        stamp.write_text(digest)
    return python


def clean_environ(home):
    """Nothing from the caller's environment: no profile, no proxy, no endpoint. No retries, which would hide an answer."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "AWS_ACCESS_KEY_ID": "conformance",
        "AWS_SECRET_ACCESS_KEY": "conformance",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }


@contextmanager
def server(command, environ, log):
    """A server that prints its address in one line of JSON and ends at SIGTERM. Its other output goes to `log`."""
    with open(log, "w") as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environ) as process:
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{command[0]} ended before it listened: see {log}")
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)


def vpc_sim_command(binary, setup):
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--imds-listen", "127.0.0.1:0", "--region", setup["region"]]
    command += ["--vpc-cidr", setup["vpc"], "--vpc-ipv6-cidr", "2600:1f14:aa:bb00::/56"]
    for index, (cidr, zone) in enumerate(setup["subnets"]):
        command += ["--subnet", f"{cidr},{zone}" + (",2600:1f14:aa:bb00::/64" if index == 0 else "")]
    for kind in setup["instances"]:
        command += ["--instance", kind]
    return command


def transcripts(python, binary, setup, logs):
    """Runs both tours at the same time."""
    with ExitStack() as stack:
        environ = clean_environ(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            "vpc-sim": vpc_sim_command(binary, setup),
            "moto": [python, HERE / "serve_moto.py"],
        }
        tours = {}
        for name, command in servers.items():
            where = stack.enter_context(server(command, environ, logs / f"{name}.log"))
            tour = [python, HERE / "tour.py", name, where["ec2"], HERE / "tour.toml", *where["instances"]]
            tours[name] = stack.enter_context(subprocess.Popen(tour, stdout=subprocess.PIPE, env=environ))
        answers = {name: tour.communicate()[0] for name, tour in tours.items()}
    failed = [name for name, tour in tours.items() if tour.returncode != 0]
    if failed:
        raise RuntimeError(f"the tour failed: {', '.join(failed)}; the servers' logs are in {logs}")
    return (json.loads(answers[name]) for name in ("vpc-sim", "moto"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--vpc-sim", required=True, type=Path, help="the binary")
    arguments.add_argument("--environment", required=True, type=Path, help="the directory of the Python environment")
    arguments.add_argument("--dump", type=Path, help="also write both transcripts to this file")
    arguments.add_argument("--write", action="store_true", help="update README.md")
    args = arguments.parse_args()

    began = time.monotonic()
    with open(HERE / "tour.toml", "rb") as file:
        setup = tomllib.load(file)["setup"]
    with open(HERE / "differences.toml", "rb") as file:
        rows = [compare.Row(fields) for fields in tomllib.load(file)["difference"]]
    ours, moto = transcripts(environment(args.environment), args.vpc_sim, setup, args.environment)
    if args.dump:
        args.dump.write_text(json.dumps({"vpc-sim": ours, "moto": moto}, indent=1))
    found = list(compare.steps(ours, moto))
    wrong = compare.judge(found, rows) + report.check(HERE / "README.md", rows, args.write)
    for line in wrong:
        print(line)
    agree = len(ours) - len({d.step for d in found})
    print(f"{len(ours)} steps, {agree} equal; {len(found)} differences, {len(rows)} known; {len(wrong)} complaints")
    print(f"{time.monotonic() - began:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
