"""Video -> a few frames in time order -> the image tokenizer; and back at the row's frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mio.types import Codes, Image, Modality, Tokenizer, Video

Choice = Literal["uniform", "scenes"]


def uniform_frames(count: int, budget: int) -> NDArray[np.int64]:
    """At most `budget` of `count` frame numbers, evenly spread, first and last included, in time order."""
    return np.unique(np.linspace(0, count - 1, min(count, budget)).round().astype(np.int64))


def scene_frames(frames: NDArray[np.uint8], budget: int, threshold: float = 27.0) -> NDArray[np.int64]:
    """The middle frame of every scene. More scenes than `budget`: evenly chosen ones. No cut: `uniform_frames`."""
    middles = scene_middles(frames, threshold)
    if not len(middles):
        return uniform_frames(len(frames), budget)
    return middles[uniform_frames(len(middles), budget)]


def scene_middles(frames: NDArray[np.uint8], threshold: float = 27.0, shortest: int = 1) -> NDArray[np.int64]:
    """Middle frame numbers of all scenes of at least `shortest` frames; none where there is no cut."""
    edges = scene_edges(frames, threshold, shortest)
    return (edges[:-1] + edges[1:]) // 2 if len(edges) > 2 else np.array([], np.int64)


def scene_edges(frames: NDArray[np.uint8], threshold: float = 27.0, shortest: int = 1) -> NDArray[np.int64]:
    """(scenes + 1,): the first frame of every scene of at least `shortest` frames, and after them the end.

    PySceneDetect's content detector at its default threshold; its own default of `shortest` is 15.
    """
    from scenedetect import ContentDetector, FrameTimecode  # heavy import, needed here only

    detector = ContentDetector(threshold=threshold, min_scene_len=shortest)
    cuts: list[int] = []
    for number, frame in enumerate(frames):
        cuts += [int(c) for c in detector.process_frame(FrameTimecode(number, 1.0), frame[..., ::-1].copy())]
    return np.array([0, *sorted(set(cuts)), len(frames)], np.int64)


@dataclass(frozen=True)
class VideoTokenizer:
    """A clip is `budget` frames at most, each an image span."""

    image: Tokenizer
    modality: Modality
    budget: int = 4
    choice: Choice = "uniform"

    def frames(self, video: Video) -> NDArray[np.int64]:
        """Numbers of the chosen frames, rising."""
        if self.choice == "scenes":
            return scene_frames(video.frames, self.budget)
        return uniform_frames(len(video.frames), self.budget)

    def encode(self, media: Sequence[Video]) -> list[Codes]:
        """Clips -> (F, 1, T) codes each; all frames of all clips are encoded in one go."""
        chosen = [v.frames[self.frames(v)] for v in media]
        codes = self.image.encode([Image(f) for clip in chosen for f in clip])
        ends = np.cumsum([len(c) for c in chosen])
        return [np.concatenate(codes[end - len(c) : end]) for c, end in zip(chosen, ends, strict=True)]

    def decode(self, codes: Sequence[Codes]) -> list[Video]:
        stills = [self.image.decode(list(c[:, None])) for c in codes]
        return [Video(np.stack([s.pixels for s in clip]), self.modality.rate) for clip in stills]

    def fingerprint(self) -> str:
        return f"{self.image.fingerprint()}-{self.choice}{self.budget}"
