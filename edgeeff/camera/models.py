"""The bundle's model, compiled for each size of frames that comes."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from ..bundle import Bundle, WatchScored
from ..data.frames import View
from ..measurement.picture_statistics import Glance
from ..progress import Progress
from .options import CameraOptions

MAX_MODELS = 4  # kept compiled; one for each source at least


class ModelCache:
    """Compiles the model for frames of a shape when the first one comes: sources may differ in size, and a stream may change it.

    Each is run once on a black frame (warm-up), because the first inference takes longer than those after it. The model that has
    not been used for longest makes way where there are too many. `progress` is told of each size but the first.
    """

    def __init__(self, bundle: Bundle, options: CameraOptions, sources: int, progress: Progress) -> None:
        self.bundle, self.options, self.progress = bundle, options, progress
        self.limit = max(MAX_MODELS, sources)
        self._models: OrderedDict[tuple[int, ...], WatchScored] = OrderedDict()
        self._glances: dict[tuple[int, ...], Glance] = {}

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the frames that it is compiled for."""
        return list(self._models)

    def __contains__(self, shape: tuple[int, ...]) -> bool:
        return shape in self._models

    def get(self, shape: tuple[int, ...]) -> WatchScored:
        """The model for frames `(H, W, 3)`, or `(H · 3/2, W)` in NV12. Raises BadInput for a size outside Frames' limits."""
        if shape not in self._models:
            frames = self.options.frames(shape)
            if self._models:
                self.progress.say(f"New frame size: {frames.width}×{frames.height} pixels.")
            model = self.bundle.watch_scored(frames)
            model(np.zeros(shape, np.uint8))
            self._models[shape] = model
            while len(self._models) > self.limit:
                self._glances.pop(self._models.popitem(last=False)[0], None)
        self._models.move_to_end(shape)
        return self._models[shape]

    def glance(self, shape: tuple[int, ...]) -> Glance:
        """What drift is told by, of frames of a shape that the model is compiled for."""
        if shape not in self._glances:
            self._glances[shape] = Glance(View.of(self.bundle.preprocess, self.options.frames(shape)))
        return self._glances[shape]
