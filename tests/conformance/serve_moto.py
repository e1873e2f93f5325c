"""Serves moto on a free loopback port until SIGTERM, and prints its address in one line of JSON, as vpc-sim does."""

import json
import signal

from moto.server import ThreadedMotoServer

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(json.dumps({"ec2": "http://{}:{}".format(*server.get_host_and_port()), "instances": []}), flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
server.stop()
