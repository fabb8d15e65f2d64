"""Programs that are kept up, given up, and stopped, with small real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dream.errors import SettingsError, StackError
from dream.stack.supervisor import Process, Program, Stopped, Supervisor, stop_all

LASTING = "import time; open('lives', 'a').write('.'); open('ready', 'w'); time.sleep(600)"
HANGING_ONCE = """
import os, time
with open('lives', 'a') as file: file.write('.')
while True:
    with open('ready', 'w') as file: file.write('.')
    time.sleep(600 if os.path.getsize('lives') == 1 else 0.05)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w'); time.sleep(600)"


@pytest.fixture
def make(tmp_path):
    """A program that runs some Python in a folder of the test's."""

    def program(code: str, name: str = "program", **fields) -> Program:
        given = {"ready_file": tmp_path / "ready", "is_ready": (tmp_path / "ready").exists} | fields
        argv = [sys.executable, "-c", code]
        return Program(name=name, argv=argv, env=os.environ, cwd=tmp_path, log=tmp_path / f"{name}.log", **given)

    return program


@pytest.fixture
def supervisor():
    supervisor = Supervisor()
    yield supervisor
    supervisor.kill()


def test_a_program_that_is_killed_is_started_again(make, supervisor, tmp_path) -> None:
    supervisor.start(make(LASTING))
    supervisor.wait_ready(timeout_s=10)
    deadline = time.monotonic() + 10

    os.kill(supervisor.pid_of("program"), signal.SIGKILL)
    while (tmp_path / "lives").read_text() != "..":
        assert time.monotonic() < deadline
        supervisor.step(0.02)


def test_a_program_that_lives_and_does_no_rounds_is_replaced(make, supervisor, tmp_path) -> None:
    """It showed life, then hangs; a program that goes on showing life is left alone."""
    supervisor.start(make(HANGING_ONCE, life_timeout_s=0.5))
    supervisor.wait_ready(timeout_s=10)
    first = supervisor.pid_of("program")
    deadline = time.monotonic() + 10
    while not (tmp_path / "lives").exists() or (tmp_path / "lives").read_text() != "..":
        assert time.monotonic() < deadline
        supervisor.step(0.02)
    second = supervisor.pid_of("program")
    assert second != first
    watched = time.monotonic() + 1
    while time.monotonic() < watched:
        supervisor.step(0.02)
    assert supervisor.pid_of("program") == second


def test_a_program_that_answers_is_not_hung(make, supervisor, tmp_path) -> None:
    """A busy program that has no time to show life is asked before it is killed; a slow answer holds up nobody."""
    asked: list[bool] = []
    may_answer = threading.Event()

    def answers() -> bool:
        may_answer.wait(10)
        asked.append(len(asked) < 2)
        return asked[-1]

    supervisor.start(make(LASTING, life_timeout_s=0.2, answers=answers))
    supervisor.wait_ready(timeout_s=10)
    first, deadline = supervisor.pid_of("program"), time.monotonic() + 20
    watched = time.monotonic() + 0.6
    while time.monotonic() < watched:
        supervisor.step(0.02)
    may_answer.set()
    while len(asked) < 2:
        assert time.monotonic() < deadline
        supervisor.step(0.02)
        assert supervisor.pid_of("program") == first
    while (tmp_path / "lives").read_text() != "..":
        assert time.monotonic() < deadline
        supervisor.step(0.02)
    assert asked[:3] == [True, True, False]


def test_the_log_of_a_running_program_stays_bounded(make, supervisor, tmp_path) -> None:
    """A program that writes 20 MB a second goes on writing, and its newest lines are there."""
    code = """
import itertools, time
open('ready', 'w')
for number in itertools.count():
    print(f'{number:01000}')
    if number % 100 == 0:
        time.sleep(0.005)
"""
    supervisor.start(make(code))
    log, aside = tmp_path / "program.log", tmp_path / "program.log.1"
    deadline = time.monotonic() + 30
    while not aside.exists() or log.stat().st_size < 2_000_000:
        assert time.monotonic() < deadline
        supervisor.step(0.01)
    supervisor.kill()  # a log that grows faster than it is read fills the memory
    before, after = (int(path.read_bytes().split()[-2]) for path in (aside, log))
    assert after > before
    assert int(log.read_bytes().split()[0]) > 0
    assert not log.read_bytes().startswith(b"\0")
    assert aside.stat().st_size < 200 * 2**20


def test_a_program_that_keeps_dying_at_the_start_is_given_up_with_its_last_words(make, supervisor) -> None:
    supervisor.start(make("print('no such disk', flush=True); raise SystemExit(7)"))

    with pytest.raises(StackError, match=r"program did not start \(exit code 7\): no such disk; see .*program\.log"):
        supervisor.wait_ready(timeout_s=20)


def test_a_program_of_ours_with_a_wrong_setting_is_given_up_at_once_with_its_line(make, supervisor) -> None:
    code = "print('dream: DREAM_X is wrong', flush=True); raise SystemExit(2)"
    supervisor.start(make(code, is_ours=True))

    with pytest.raises(SettingsError, match=r"^DREAM_X is wrong$"):
        supervisor.wait_ready(timeout_s=10)


def test_a_program_of_ours_that_says_what_is_wrong_is_given_up_with_its_line(make, supervisor) -> None:
    code = "print('dream: DREAM_X=y: nothing listens', flush=True); raise SystemExit(1)"

    with pytest.raises(StackError, match=r"^DREAM_X=y: nothing listens; see .*program\.log$"):
        supervisor.run_once(make(code, is_ours=True), timeout_s=10)


def test_a_program_that_never_answers_is_named(make, supervisor) -> None:
    supervisor.start(make(LASTING, is_ready=lambda: False))

    with pytest.raises(StackError, match=r"program did not answer within 0\.2 s"):
        supervisor.wait_ready(timeout_s=0.2)


def test_a_program_that_is_not_there_is_told(make, supervisor, tmp_path) -> None:
    program = Program(
        name="absent",
        argv=["/no/such/program"],
        env=os.environ,
        cwd=tmp_path,
        log=tmp_path / "absent.log",
        is_ready=lambda: False,
    )
    supervisor.start(program)

    with pytest.raises(StackError, match=r"absent did not start .*No such file"):
        supervisor.wait_ready(timeout_s=10)


def test_a_program_that_ends_by_itself_is_waited_for_and_its_failure_is_told(make, supervisor) -> None:
    supervisor.run_once(make("pass"), timeout_s=10)

    with pytest.raises(StackError, match=r"program did not start \(exit code 1\)"):
        supervisor.run_once(make("raise SystemExit(1)"), timeout_s=10)


def test_a_program_that_ignores_sigterm_is_killed_after_its_time(make, supervisor) -> None:
    supervisor.start(make(STUBBORN, stop_timeout_s=0.3))
    supervisor.wait_ready(timeout_s=10)
    begun = time.monotonic()

    supervisor.stop(["program"])

    assert 0.3 <= time.monotonic() - begun < 3


def test_a_signal_asks_to_stop_and_handlers_are_put_back(make, supervisor) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with supervisor.signals():
        supervisor.start(make(LASTING))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            supervisor.wait_ready(timeout_s=10)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_parts_of_a_group_are_signalled_in_order(make, supervisor, tmp_path) -> None:
    code = (
        "import signal, time, sys\n"
        "def leave(*_):\n"
        "    open('order', 'a').write('{name} '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave); open('{name}', 'w'); time.sleep(600)"
    )
    for name in ("first", "second"):
        ready = tmp_path / name
        supervisor.start(make(code.format(name=name), name, ready_file=ready, is_ready=ready.exists))
    supervisor.wait_ready(timeout_s=10)

    supervisor.stop(["second"], ["first"])

    assert (tmp_path / "order").read_text() == "second first "


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path, wait_until, is_running) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from dream.stack.supervisor import Process, Program\n"
        "here = Path(sys.argv[1])\n"
        "argv = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "program = Program(name='p', argv=argv, env={}, cwd=here, log=here / 'p.log')\n"
        "print(Process(program).pid, flush=True)\n"
        "time.sleep(600)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()

    wait_until(lambda: not is_running(child))


def test_a_process_whose_parent_is_gone_already_ends_when_it_is_tied() -> None:
    code = "import os; from dream.work.tether import die_with; die_with(os.getpid()); print('alive')"
    orphan = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (orphan.returncode, orphan.stdout) == (-signal.SIGKILL, "")


def test_a_kept_child_of_a_program_dies_with_it(make, supervisor, tmp_path, wait_until, is_running) -> None:
    """`dream up` → `dream worker` → the process that does the work."""
    code = (
        "import os, time\n"
        "from dream.work.respawn import keep_running\n"
        "def work():\n"
        "    open('child.new', 'w').write(str(os.getpid())); os.rename('child.new', 'child')\n"
        "    while True: time.sleep(0.02)\n"
        "keep_running(work, stop_timeout_s=5)"
    )
    process = Process(make(code))
    wait_until((tmp_path / "child").exists)
    child = int((tmp_path / "child").read_text())

    process.kill()
    process.reap()

    wait_until(lambda: not is_running(child))


def test_a_program_is_not_started_from_a_thread_it_would_die_with(make) -> None:
    raised: list[StackError] = []

    def start() -> None:
        try:
            Process(make(LASTING))
        except StackError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert "main thread" in str(raised[0])


def test_stopping_what_has_ended_already_is_no_error(make) -> None:
    process = Process(make("pass"))
    assert process.reap() == 0

    stop_all([process])


def test_importing_the_stack_imports_no_heavy_library() -> None:
    """`dream worker` forks before it imports anything heavy, so the fork's own imports are light."""
    code = (
        "import sys, dream.stack, dream.work.respawn, dream.stack.up\n"
        "heavy = {'boto3', 'sqlalchemy', 'dramatiq', 'pydantic', 'PIL', 'redis', 'starlette', 'alembic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
