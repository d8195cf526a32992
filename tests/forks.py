"""Many runs of the command line in processes of their own, forked from one that has imported all they need.

python forks.py reads lines of JSON, {"arguments", "folder", "terminal", "stdout", "file_size", "narrow", "environment"},
and answers each with the process's number and then, when it has ended, with how. stdout and stderr go to the terminal
where one is named; else stderr goes to `folder`/stderr and stdout to `folder`/stdout, or to the path given, or, for
"closed", to a pipe that nobody reads. No file may become larger than `file_size` bytes, where that is given. With
`narrow` the network is that of narrow.py.
"""

import gc
import json
import os
import resource
import signal
import sys
import warnings

import narrow


def become(request):
    """This process as the shell would have started it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    if request["file_size"]:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], hard))
    os.environ.pop("HOME", None)
    os.environ.update(request["environment"])
    if request["terminal"]:
        terminal = os.open(request["terminal"], os.O_RDWR)
        outputs = terminal, terminal
    else:
        if request["stdout"] == "closed":
            reader, stdout = os.pipe()
            os.close(reader)
        else:
            stdout = os.open(request["stdout"] or "stdout", os.O_WRONLY | os.O_CREAT)
        outputs = stdout, os.open("stderr", os.O_WRONLY | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)


def main():
    import torchvision  # noqa: F401

    from ssdtrt import bench, cli, evaluate, run, verify  # noqa: F401
    from ssdtrt.commands import bench_text  # noqa: F401

    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            request = json.loads(line)
            become(request)
            if request["narrow"]:
                narrow.narrow()
            cli.main(request["arguments"], prog_name="ssdtrt")
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
