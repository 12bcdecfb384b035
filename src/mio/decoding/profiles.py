"""How answers of each kind are decoded, by name: as MIO's paper says (Table 10), and as its published script does.

Both keep temperature and length penalty at 1 and use no guidance. They disagree on images and on speech other than TTS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mio.config import suggest
from mio.decoding.sampling import BeamSearch, Sampling
from mio.types import MioError

PROFILES: Mapping[str, Mapping[str, Sampling]] = {
    "paper": {
        "text": BeamSearch(),
        "image": Sampling(top_p=0.7),
        "speech": Sampling(top_p=0.7, repetition_penalty=1.15),
        "video": Sampling(top_p=0.7, repetition_penalty=1.15),
        "interleaved": Sampling(top_p=0.7, repetition_penalty=1.15),  # the script's: the table has none
    },
    "release": {
        "text": BeamSearch(),
        "image": BeamSearch(repetition_penalty=1.15),
        "tts": Sampling(top_p=0.7, repetition_penalty=1.15),
        "speech": BeamSearch(repetition_penalty=2.0),  # an answer to text
        "speech to speech": BeamSearch(repetition_penalty=1.15),
        "video": Sampling(top_p=0.7, repetition_penalty=1.15),
        "interleaved": Sampling(top_p=0.7, repetition_penalty=1.15),
    },
}


def setting(name: str, kinds: Sequence[str]) -> Sampling:
    """A profile's setting for an answer of these kinds; "release/tts" chooses the task by hand.

    Raises:
        MioError: no such profile, or it has no such task.
    """
    profile, _, task = name.partition("/")
    if profile not in PROFILES:
        raise MioError(f"No decoding profile {profile!r}.", fix=suggest(profile, PROFILES))
    task = task or (kinds[0] if len(kinds) == 1 else "interleaved")
    if task not in PROFILES[profile]:
        raise MioError(f"The profile {profile!r} has no task {task!r}.", fix=suggest(task, PROFILES[profile]))
    return PROFILES[profile][task]
