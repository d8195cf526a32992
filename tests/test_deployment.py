"""The files in deploy/ and the page on them: they agree with each other, with the service and with what is installed."""

import re
import shlex

import click
import pytest
import yaml

from conftest import ROOT
from ssdtrt import __version__, config
from ssdtrt.cli import main

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PAGE = (ROOT / "docs" / "deployment.md").read_text()
IMAGE = f"ssdtrt:{__version__}"


def documents(name):
    return list(yaml.safe_load_all((ROOT / "deploy" / name).read_text()))


def instruction(name):
    """What stands behind an instruction of the Dockerfile that it has once."""
    lines = re.sub(r" *\\\n *", " ", DOCKERFILE)
    (found,) = re.findall(rf"^{name} (.*)$", lines, re.MULTILINE)
    return found


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split(";")[0].strip().split("==") for line in lines if "==" in line)


def test_everything_that_is_copied_is_there_and_let_through():
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert sorted(copied) == sorted(let_through) and all((ROOT / name).exists() for name in copied)


def test_it_installs_extras_that_there_are_with_pins_for_what_they_bring():
    (extras,) = re.findall(r"'\.\[([a-z,-]+)\]'", DOCKERFILE)
    setup = (ROOT / "setup.cfg").read_text()
    for extra in extras.split(","):
        assert re.search(rf"^{extra} =$", setup, re.MULTILINE), extra
    oldest, newest = pins("constraints-oldest.txt"), pins("constraints.txt")
    assert oldest["ray"] == newest["ray"] and oldest["fastapi"] and oldest["pyarrow"] and oldest["uvicorn"]


def test_its_user_is_not_root_and_its_command_serves():
    assert instruction("USER") == "10001" and "--uid 10001 " in DOCKERFILE
    entry, command = yaml.safe_load(instruction("ENTRYPOINT")), yaml.safe_load(instruction("CMD"))
    assert entry[:2] == ["ssdtrt", "serve"] and parameters([*entry[1:], *command])["host"] == "0.0.0.0"
    assert instruction("EXPOSE") == str(config.SERVE_PORT) and f":{config.SERVE_PORT}/ready" in DOCKERFILE


def parameters(words):
    """What click makes of the words of a command."""
    name, *arguments = words
    parent = click.Context(main, **main.context_settings)
    with main.commands[name].make_context(name, arguments, parent=parent) as context:
        return context.params


def test_the_deployment_runs_that_image_as_that_user_and_lets_it_finish():
    deployment, service = documents("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE and pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 10001}
    assert container["ports"] == [{"name": "http", "containerPort": config.SERVE_PORT}]
    _, wait = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(wait) + config.SERVE_SECONDS
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")}
    assert probes == {"/ready", "/health"}
    assert [parameters(["serve", *container["args"]])["file"]] == container["args"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == deployment["spec"]["selector"]["matchLabels"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}


def test_the_cluster_has_the_version_of_ray_that_is_installed():
    (cluster,) = documents("raycluster.yaml")
    assert cluster["spec"]["rayVersion"] == pins("constraints.txt")["ray"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    (worker,) = cluster["spec"]["workerGroupSpecs"]
    assert worker["replicas"] == worker["minReplicas"] == worker["maxReplicas"] == 2


@pytest.mark.parametrize("line", re.findall(r"^(?:docker|kubectl|head=).*$", PAGE, re.MULTILINE))
def test_commands_on_the_page_name_what_there_is(line):
    """The command of ssdtrt in them is parsed; files of deploy/ are there; the image is the one that is built."""
    words = shlex.split(
        line.replace("$(kubectl get pods -l ray.io/cluster=ssdtrt,ray.io/node-type=head -o name)", "head")
    )
    for word in words:
        if word.startswith("deploy/"):
            assert (ROOT / word).is_file()
        if word.startswith("ssdtrt:"):
            assert word == IMAGE
    if "compile" in words:
        assert str(parameters(words[words.index("compile") :])["batch_range"]) == "1:8:32"
    elif "--" in words:
        assert parameters(words[words.index("--") + 2 :])["ray"] == "auto"
