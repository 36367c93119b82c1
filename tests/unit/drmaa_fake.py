"""A `drmaa` that knows no Grid Engine, and the commands beside it."""

# A command is what libdrmaa does; a job's id is its command with a number.
FAKE = """
import os, sys, time
from collections import namedtuple

JobInfo = namedtuple("JobInfo", "hasExited hasSignal terminatedSignal wasAborted exitStatus resourceUsage")

class JobTemplate:
    def delete(self): pass

class Session:
    contact = ""
    reaped = set()

    def initialize(self, contact):
        if contact == "bad":
            raise Exception("code 4: The input value for an argument is invalid.")
        Session.contact = contact or "session=here.1"

    def exit(self):
        with open(os.environ["FAKE_LOG"], "a") as log:
            log.write("exit\\n")

    def createJobTemplate(self):
        return JobTemplate()

    def runJob(self, template):
        command = template.remoteCommand
        if command == "denied":
            raise Exception('code 17: unknown resource "nosuch"\\nerror: no suitable queues\\n')
        if command == "unreachable":
            raise Exception("code 2: unable to contact qmaster")
        if command == "hang":
            time.sleep(600)
        if command == "die":
            os.write(2, b"terrible things\\n")
            os._exit(3)
        if command == "environment":
            return os.environ.get("GLIBC_TUNABLES", "none")
        if command == "echo":
            return repr(sorted(vars(template).items()))
        print("libdrmaa likes to print")
        os.write(1, b'{"id": 2, "result": "wrong"}\\n')
        return command

    def runBulkJobs(self, template, first, last, step):
        self.runJob(template)
        return [f"7.{task}" for task in range(first, last + 1, step)]

    def jobStatus(self, job):
        if job.startswith("unknown") or job in ("12", "13", "14"):
            raise Exception("code 18: The job specified by the 'jobid' does not exist.")
        if job == "slow":
            time.sleep(0.5)
        return "user_on_hold"

    def control(self, job, action):
        raise Exception(f"code 22: {action} is impossible")

    def wait(self, job, timeout):
        assert timeout == 0
        if job == "endless" and not os.path.exists(os.environ["FAKE_LOG"] + ".end"):
            raise Exception("code 23: time-out condition")
        if job == "deleted":
            raise Exception("code 24: no usage information was returned for the completed job")
        if job in self.reaped or job == "unknown" or job in ("12", "13", "14"):
            raise Exception("code 18: The job specified by the 'jobid' does not exist.")
        self.reaped.add(job)
        if job == "killed":
            return JobInfo(False, True, "SIGKILL", False, 0, {"ru_wallclock": "2.0000"})
        return JobInfo(True, False, "", False, 7, {"wallclock": "1.5", "ru_wallclock": "1.0000"})
"""


# Job 12 runs, job 13 is over.
QSTAT = """#!/bin/sh
cat <<END
<job_info><queue_info><job_list><JB_job_number>12</JB_job_number><state>r</state></job_list></queue_info></job_info>
END
"""
QACCT = """#!/bin/sh
test "$4" = 13 || { echo "error: job id $4 not found" >&2; exit 1; }
cat <<END
=====
jobnumber    13
taskid       undefined
failed       0
exit_status  5
ru_wallclock 3s
END
"""
