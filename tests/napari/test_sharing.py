"""Jobs give way to the window, and leave the interpreter as they found it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from napari_em_da._napari.sharing import NICE, TURN_S, give_way, short_turns


def test_turns_are_short_while_any_job_runs() -> None:
    before = sys.getswitchinterval()
    first, second = short_turns(), short_turns()
    first.__enter__()
    second.__enter__()
    assert sys.getswitchinterval() == pytest.approx(TURN_S)
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(TURN_S)
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(before)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_a_job_and_the_threads_that_it_starts_give_way_and_no_others() -> None:
    found: dict[str, int] = {}

    def own() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def job() -> None:
        give_way()
        found["job"] = own()
        helper = threading.Thread(target=lambda: found.update(helper=own()))
        helper.start()
        helper.join()

    before = own()
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert found == {"job": max(before, NICE), "helper": max(before, NICE)} and own() == before


def test_large_libraries_load_without_holding_the_interpreter_and_are_imported_after_it() -> None:
    code = (
        "import sys, threading, time\n"
        "from napari_em_da._napari.warm import load_libraries\n"
        "loading, turns = threading.Thread(target=load_libraries), 0\n"
        "loading.start()\n"
        "while loading.is_alive(): time.sleep(0.001); turns += 1\n"
        "assert turns > 10 and not {'torch', 'cv2'} & set(sys.modules), turns\n"
        "import cv2, torch; assert torch.ones(3).sum() == 3; print(torch.get_num_threads())\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_what_a_first_training_loads_is_there_before_a_round_of_corrections() -> None:
    code = (
        "import sys, threading\n"
        "from napari_em_da._napari.warm import warm_training\n"
        "warm_training(), warm_training()\n"
        "threads = [t for t in threading.enumerate() if t.name == 'em-da-warm']\n"
        "assert len(threads) == 1\n"
        "threads[0].join()\n"
        "loaded = set(sys.modules)\n"
        "import torch, napari_em_da.workflows.corrections\n"
        "layer = torch.nn.Linear(3, 3)\n"
        "optimiser = torch.optim.AdamW(layer.parameters())\n"
        "layer(torch.ones(1, 3)).sum().backward(); optimiser.step(); optimiser.zero_grad()\n"
        "print(len(set(sys.modules) - loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20  # it was 800 modules
