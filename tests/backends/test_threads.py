"""A loaded model that several threads call at once answers each of them as it answers one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgeeff import Bundle
from edgeeff.data.frames import View

THREADS, CALLS = 8, 40


def answers(call: Callable[[int], np.ndarray], inputs: int) -> list[np.ndarray]:
    """What eight threads get, of 40 calls each; each of them starts with another input."""

    def work(thread: int) -> list[np.ndarray]:
        return [call((thread + i) % inputs) for i in range(CALLS)]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS)))
    return [found[thread][i] for thread in range(THREADS) for i in range(CALLS)]


@pytest.mark.parametrize("throughput", [False, True])
def test_threads_that_share_a_loaded_bundle_get_the_right_answers(bundle: Bundle, throughput: bool) -> None:
    photos, predict = bundle.golden()["images"], bundle.load(throughput=throughput)
    batches = [photos[[i, -1 - i]] for i in range(len(photos))]
    alone = [predict(batch) for batch in batches]
    assert len({row.tobytes() for row in alone}) == len(batches)  # the answers differ, so that a mix-up shows
    for i, logits in enumerate(answers(lambda k: predict(batches[k]), len(batches))):
        np.testing.assert_array_equal(logits, alone[(i // CALLS + i % CALLS) % len(batches)])


def test_threads_that_share_a_watched_bundle_get_the_right_answers(bundle: Bundle) -> None:
    view = View.standard(bundle.preprocess)
    frames = [view.frame(photo) for photo in bundle.golden()["images"]]
    see = bundle.watch(view.frames)
    alone = [see(frame) for frame in frames]
    assert len({row.tobytes() for row in alone}) == len(frames)
    for i, logits in enumerate(answers(lambda k: see(frames[k]), len(frames))):
        np.testing.assert_array_equal(logits, alone[(i // CALLS + i % CALLS) % len(frames)])
