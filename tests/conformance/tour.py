"""Runs the tour against one server with the AWS command line's own driver, and prints a transcript as JSON.

Owns the calls. The driver is loaded once, because starting `aws` takes a hundred times longer than a call. Must not know
what either server should answer. Usage: tour.py {vpc-sim|moto} ENDPOINT TOUR.toml INSTANCE...
"""

import gc
import json
import os
import re
import shlex
import sys
import tempfile
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from urllib.request import Request, urlopen

import jmespath
from awscli.clidriver import create_clidriver

from normalise import Names, literals

ERROR = re.compile(r"An error occurred \((?P<code>[^)]+)\) when calling the \w+ operation.*?: (?P<message>.*)", re.S)


class Cli:
    """`aws ec2 … --endpoint-url …`. Each call runs in its own fork of the loaded driver, because the driver keeps state
    between calls: after one call with --no-source-dest-check, every other action fails."""

    def __init__(self, endpoint):
        self.driver, self.endpoint = create_clidriver(), endpoint
        loader = self.driver.session.get_component("data_loader")
        for kind in ("service-2", "paginators-1", "waiters-2", "endpoint-rule-set-1"):
            loader.load_service_model("ec2", kind)
        for name in ("endpoints", "partitions", "sdk-default-configuration"):
            loader.load_data(name)
        gc.disable()  # a collection in the child would copy the memory that it shares with this process

    def run(self, arguments):
        """Exit code, standard output, standard error."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if child == 0:
                os._exit(self._main(arguments, out, err))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            out.seek(0), err.seek(0)
            return code, out.read(), err.read()

    def _main(self, arguments, out, err):
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = self.driver.main(["ec2", *arguments, "--endpoint-url", self.endpoint, "--output", "json"])
            except SystemExit as end:  # the argument parser raises this on errors
                code = end.code
            out.flush(), err.flush()
        return code

    def must(self, command, query):
        """A call of the preparation, which must succeed."""
        code, out, err = self.run(shlex.split(command))
        if code != 0:
            raise RuntimeError(f"preparation: aws ec2 {command}: {err.strip()}")
        return jmespath.search(query, json.loads(out)) if out.strip() else None


def prepare_moto(cli, setup):
    """Creates with API calls what vpc-sim's command line creates. Returns the instances, in the order of `setup`."""
    # Without a seed, moto sometimes picks an address twice, or one that the tour uses.
    urlopen(Request(f"{cli.endpoint}/moto-api/seed?a=7", method="POST")).close()
    create_vpc = f"create-vpc --cidr-block {setup['vpc']} --amazon-provided-ipv6-cidr-block"
    vpc = cli.must(create_vpc, "Vpc.VpcId")
    associations = "Vpcs[0].Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock"
    six = cli.must(f"describe-vpcs --vpc-ids {vpc}", associations).replace("/56", "/64")
    cli.must(f"modify-vpc-attribute --vpc-id {vpc} --enable-dns-hostnames", "@")
    gateway = cli.must("create-internet-gateway", "InternetGateway.InternetGatewayId")
    cli.must(f"attach-internet-gateway --vpc-id {vpc} --internet-gateway-id {gateway}", "@")
    main = f"Name=vpc-id,Values={vpc} Name=association.main,Values=true"
    table = cli.must(f"describe-route-tables --filters {main}", "RouteTables[0].RouteTableId")
    for everything in ("--destination-cidr-block 0.0.0.0/0", "--destination-ipv6-cidr-block ::/0"):
        cli.must(f"create-route --route-table-id {table} --gateway-id {gateway} {everything}", "@")
    linux = "Images[?Architecture=='x86_64' && Platform!='windows'].ImageId | [0]"
    image = cli.must("describe-images --owners amazon", linux)
    for index, (cidr, zone) in enumerate(setup["subnets"]):
        block = f"--ipv6-cidr-block {six}" if index == 0 else ""
        zone = f"--availability-zone {setup['region']}{zone}"
        subnet = cli.must(f"create-subnet --vpc-id {vpc} --cidr-block {cidr} {zone} {block}", "Subnet.SubnetId")
        if index == 0:
            first = subnet
    run = f"run-instances --image-id {image} --subnet-id {first} --instance-type "
    return [cli.must(run + kind, "Instances[0].InstanceId") for kind in setup["instances"]]


def discover(cli, setup, instances):
    """The values that steps of the tour can use, from calls that both servers support."""
    found = {"region": setup["region"]}
    for name, (cidr, _) in zip(setup["subnet_names"], setup["subnets"]):
        filters = f"describe-subnets --filters Name=cidr-block,Values={cidr}"
        found[name] = cli.must(filters, "Subnets[0].SubnetId")
    first = f"describe-subnets --subnet-ids {found[setup['subnet_names'][0]]}"
    found["vpc"] = cli.must(first, "Subnets[0].VpcId")
    found["subnet6"] = cli.must(first, "Subnets[0].Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock")
    found["vpc6"] = found["subnet6"].replace("/64", "/56")
    filters = f"Name=vpc-id,Values={found['vpc']} Name=group-name,Values=default"
    found["group"] = cli.must(f"describe-security-groups --filters {filters}", "SecurityGroups[0].GroupId")
    for name, instance in zip(setup["instance_names"], instances):
        nic = "Reservations[0].Instances[0].NetworkInterfaces[0]"
        describe = f"describe-instances --instance-ids {instance}"
        found[name] = instance
        found[f"{name}_eni"] = cli.must(describe, f"{nic}.NetworkInterfaceId")
        found[f"{name}_attachment"] = cli.must(describe, f"{nic}.Attachment.AttachmentId")
        found[f"{name}_address"] = cli.must(describe, f"{nic}.PrivateIpAddress")
        found[f"{name}_mac"] = cli.must(describe, f"{nic}.MacAddress")
    return found


def walk(cli, tour, found):
    """One entry per step: step, outcome, exit, and answer or code and message."""
    known = {value: f"<{name}>" for name, value in found.items() if name != "region"}
    words = [s["run"] for s in tour["step"]] + [cidr for cidr, _ in tour["setup"]["subnets"]] + [tour["setup"]["vpc"]]
    names = Names(literals(" ".join(words)) | known)
    for step in tour["step"]:
        try:
            arguments = [word.format_map(found) for word in shlex.split(step["run"])]
        except KeyError as missing:
            yield {"step": step["name"], "exit": None, "outcome": f"cannot run: there is no {missing.args[0]}"}
            continue
        code, out, err = cli.run(arguments)
        answer = json.loads(out) if out.strip() else {}
        yield {"step": step["name"], "exit": code} | entry(names, step["name"], answer, err.strip(), code)
        saved = {k: jmespath.search(q, answer) for k, q in step.get("save", {}).items()}
        found |= {k: v for k, v in saved.items() if v is not None}


def entry(names, step, answer, err, code):
    if code == 0:
        return {"outcome": "answered", "answer": names.value(answer, step)}
    refusal = ERROR.search(err)
    if not refusal:
        return {"outcome": "failed", "message": names.value(err, step)}
    return {"outcome": "refused", "code": refusal["code"], "message": names.value(refusal["message"], step)}


def main():
    server, endpoint, path, *instances = sys.argv[1:]
    with open(path, "rb") as file:
        tour = tomllib.load(file)
    cli = Cli(endpoint)
    if server == "moto":
        instances = prepare_moto(cli, tour["setup"])
    found = discover(cli, tour["setup"], instances)
    json.dump(list(walk(cli, tour, found)), sys.stdout)


if __name__ == "__main__":
    main()
