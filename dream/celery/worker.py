"""`python dream/celery/worker.py [Celery's arguments]`: runs tasks, as `dream worker` does."""

import sys
from pathlib import Path

# Not in the processes that a pool spawns: they run this file again, under another name.
if __name__ == "__main__":
    _here = Path(__file__).resolve().parent
    # The project's root comes first, not this folder, whose modules are not top-level modules.
    sys.path[:] = [str(_here.parents[1]), *(path for path in sys.path if Path(path).resolve() != _here)]

    from dream.compat.commandline import worker

    sys.exit(worker(sys.argv[1:]))
