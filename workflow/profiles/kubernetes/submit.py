"""Submit a script to Kubernetes: rule, threads, memory (MB), minutes, DEVICE=COUNT, image, CLAIM:PATH, script.

Prints job/NAME alone.
"""

import json
import os
import subprocess
import sys

# What the container runs first gets SIGTERM when the pod is stopped, and hands it on: stages save their state.
COMMAND = "trap 'kill -TERM -1' TERM; sh \"$0\" & wait $!; wait $!"
GRACE = 120  # seconds to save it


def job(rule, threads, memory, minutes, device, image, volume, script) -> dict:
    device, _, count = device.partition("=")
    claim, _, path = volume.partition(":")
    resources = {"cpu": threads, "memory": f"{memory}M"} | ({} if count == "0" else {device: count})
    container = {
        "name": "colpipe",
        "image": image,
        "command": ["sh", "-c", COMMAND, os.path.abspath(script)],
        "workingDir": os.getcwd(),
        "resources": {"requests": resources, "limits": resources},  # a device cannot be shared: both must be equal
        "volumeMounts": [{"name": "work", "mountPath": path}, {"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    pod = {
        "restartPolicy": "Never",  # Snakemake submits it again
        "terminationGracePeriodSeconds": GRACE,
        "containers": [container],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": claim}},
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory"},
            },  # several processes of a training need more than 64 MB
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"colpipe-{rule.replace('_', '-')}-", "labels": {"app": "colpipe", "rule": rule}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 60 * int(minutes) + GRACE,
            "ttlSecondsAfterFinished": 86400,
            "template": {"spec": pod},
        },
    }


if __name__ == "__main__":
    command = ["kubectl", "create", "--filename", "-", "--output", "name"]
    result = subprocess.run(command, input=json.dumps(job(*sys.argv[1:])), text=True, stdout=subprocess.PIPE)
    if result.returncode:
        sys.exit(result.returncode)
    print(result.stdout.strip().replace("job.batch/", "job/"))
