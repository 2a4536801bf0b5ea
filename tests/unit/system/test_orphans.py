"""Orphans, in a process of its own that becomes their parent."""

import json
import subprocess
import sys

PROGRAM = """
import json, os, signal, sys, time
from appserver.system.orphans import adopt_orphans, is_child, reap_orphans

def leave_behind(code):
    # A grandchild whose parent ends at once; its pid.
    reading, writing = os.pipe()
    if (between := os.fork()) == 0:
        if (pid := os.fork()) == 0:
            os.close(reading), os.close(writing)
            time.sleep(0.1)
            os._exit(code)
        os.write(writing, str(pid).encode())
        os._exit(0)
    pid = int(os.read(reading, 64))
    os.waitpid(between, 0)
    return pid

def until_ended(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

told = {}
before = leave_behind(0)
told["before"] = is_child(before)
adopt_orphans()
own, stranger = leave_behind(7), leave_behind(0)
told["adopted"] = is_child(own) and is_child(stranger)
until_ended(own), until_ended(stranger)
told["beside own"] = reap_orphans({own})
told["own"] = os.waitstatus_to_exitcode(os.waitpid(own, 0)[1])
told["alone"] = told["beside own"] + reap_orphans(set())
told["none"] = reap_orphans(set())
told["others"] = [is_child(pid) for pid in (own, stranger, os.getpid(), os.getppid(), 1, 0, -1, 2**40)]
json.dump(told, sys.stdout)
"""


def test_orphans_are_adopted_and_those_nobody_waits_for_are_reaped() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20, check=True)
    told = json.loads(ended.stdout)
    assert told.pop("beside own") in (0, 1)  # which of the two the kernel names first
    assert told == {
        "before": False,
        "adopted": True,
        "own": 7,  # the exit code is left to who waits for it
        "alone": 1,
        "none": 0,
        "others": [False] * 8,
    }
