"""Seeded random numbers of torch, alone and beside another thread."""

from __future__ import annotations

import threading

import torch

from napari_em_da.seeding import seeded


def draws(seed: int, count: int) -> list[float]:
    with seeded(seed):
        return [float(torch.rand(())) for _ in range(count)]


def test_the_seed_decides_and_the_callers_stream_stays() -> None:
    generator = torch.Generator().manual_seed(5)
    expected = [float(torch.rand((), generator=generator)) for _ in range(3)]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert draws(5, 3) == expected
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_threads_draw_what_each_draws_alone() -> None:
    alone = {seed: draws(seed, 2000) for seed in (1, 2)}
    found: dict[int, list[float]] = {}
    start = threading.Barrier(2)

    def job(seed: int) -> None:
        start.wait()
        found[seed] = draws(seed, 2000)

    threads = [threading.Thread(target=job, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_it_can_be_nested() -> None:
    with seeded(3):
        first = torch.rand(())
        draws(4, 1)
        second = torch.rand(())
    with seeded(3):
        assert torch.equal(torch.rand(()), first) and torch.equal(torch.rand(()), second)
