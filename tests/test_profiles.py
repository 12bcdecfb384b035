"""decoding/profiles.py and the prompts by name: the numbers and words of the paper and of the published script."""

from __future__ import annotations

import pytest

from mio.decoding.profiles import PROFILES, setting
from mio.decoding.sampling import BeamSearch, Sampling
from mio.sequence import BASE_PREFILL, BASE_PROMPTS, INSTRUCT_PROMPTS, MIO_SYSTEMS, PRETRAIN, fill
from mio.types import Encoded, MioError, Part, Text

SCRIPT = {  # task: beams, sampling, repetition penalty; comments of infer.py
    "text": (5, False, 1.0),
    "image": (5, False, 1.15),
    "tts": (1, True, 1.15),
    "speech": (5, False, 2.0),
    "speech to speech": (5, False, 1.15),
    "video": (1, True, 1.15),
    "interleaved": (1, True, 1.15),
}
TABLE_10 = {"text": (5, False, 1.0), "image": (1, True, 1.0), "speech": (1, True, 1.15), "video": (1, True, 1.15)}
ROWS = [("paper", task, row) for task, row in TABLE_10.items()] + [("release", *item) for item in SCRIPT.items()]


@pytest.mark.parametrize(("profile", "task", "numbers"), ROWS)
def test_a_profile_has_the_numbers_of_its_source(profile: str, task: str, numbers: tuple[int, bool, float]) -> None:
    found = PROFILES[profile][task]
    beams = found.beams if isinstance(found, BeamSearch) else 1
    assert (beams, found.temperature > 0, found.repetition_penalty) == numbers
    assert (found.temperature, found.top_p, found.top_k) == ((1.0, 0.7, 0) if found.temperature else (0.0, 1.0, 0))
    assert not isinstance(found, BeamSearch) or found.length_penalty == 1.0


def test_paper_and_script_disagree_on_images_and_on_speech_that_is_no_tts() -> None:
    both = PROFILES["paper"].keys() & PROFILES["release"].keys()
    assert {t for t in both if PROFILES["paper"][t] != PROFILES["release"][t]} == {"image", "speech"}
    assert PROFILES["release"]["tts"] == PROFILES["paper"]["speech"]


def test_the_kind_of_answer_chooses_the_task_and_a_name_may() -> None:
    assert setting("paper", ["image"]) == Sampling(1.0, 0.7)
    assert setting("release", ["text", "image"]) == PROFILES["release"]["interleaved"]
    assert setting("release/tts", ["speech"]) == PROFILES["release"]["tts"]


@pytest.mark.parametrize(
    ("name", "kinds", "word"),
    [("papr", ["text"], "papr"), ("paper", ["smell"], "smell"), ("paper/tts", ["speech"], "tts")],
)
def test_unknown_profiles_and_tasks_are_refused_with_the_known_ones(name: str, kinds: list[str], word: str) -> None:
    with pytest.raises(MioError, match=f"'{word}'") as caught:
        setting(name, kinds)
    assert caught.value.fix.startswith(("Known:", "Did you mean"))


# ------------------------------------------------------------------------------------------------ prompts

MEDIUM = {m: Encoded(m, None) for m in ("image", "speech", "video")}  # type: ignore[arg-type]


def spelled(template: str, *slots: Part) -> str:
    """A filled template with its media as [image]."""
    return "".join(p.text if isinstance(p, Text) else f"[{p.modality}]" for p in fill(template, *slots))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("task", "slots", "expected"),
    [
        ("caption", (MEDIUM["image"],), "[image] The caption of this image is"),
        ("image", (Text("a fox"),), "Please generate an image of ``a fox''"),
        ("asr", (MEDIUM["speech"],), "[speech] The transcription of this speech is"),
        ("tts", (Text("Hello"),), "Please generate a speech of ``Hello'': "),
        ("video caption", (MEDIUM["video"],), "Please describe the following video: [video]"),
        ("video", (Text("rain"),), "Please generate a video for ``rain'': "),
        (
            "video story",
            (Text("Tea"), Text("Boil water.")),
            "Please generate a how-to video frame by frame, and provide a description for each frame. "
            'The video is titled "Tea" Description: "Boil water."',
        ),
        ("text", (Text("Why?"),), "Question: Why? Answer:"),
    ],
)
def test_prompts_of_the_base_model(task: str, slots: tuple[Part, ...], expected: str) -> None:
    assert spelled(BASE_PROMPTS[task], *slots) == expected


def test_speech_and_video_of_the_base_model_are_begun_for_it() -> None:
    assert BASE_PREFILL == {"tts": "speech", "video": "image"}


@pytest.mark.parametrize(
    ("task", "slots", "expected"),
    [
        (
            "caption",
            (MEDIUM["image"],),
            "Please provide an accurate and detailed description of this image.\n[image]",
        ),
        ("vqa", (MEDIUM["image"], Text("How many?")), "How many?\n[image]"),
        ("image", (Text("a fox"),), "Please generate an image according to the caption.\na fox"),
        ("asr", (MEDIUM["speech"],), "Please transcribe this speech.\n[speech]"),
        ("speech understanding", (MEDIUM["speech"],), "[speech]\nPlease continue the story."),
        (
            "tts",
            (Text("Hello"),),
            "The transcription is ``Hello''. Please generate a speech according to the given transcription. "
            "Start with <spch>.",
        ),
        ("video qa", (MEDIUM["video"], Text("Who?")), "[video]\nWho?"),
        ("video", (Text("rain"),), "Please generate a video for ``rain''"),
        ("story", (Text("a fox"),), "Generate a visual story about a fox"),
        (
            "guide",
            (Text("make tea"),),
            "How to make tea? Please provide a step-by-step guide in the form of a visual story.",
        ),
    ],
)
def test_prompts_of_the_instruct_model(task: str, slots: tuple[Part, ...], expected: str) -> None:
    assert spelled(INSTRUCT_PROMPTS[task], *slots) == expected


def test_systems_are_the_releases_word_for_word() -> None:
    able = "You are MIO, an AI assistant capable of understanding "
    assert {
        "std": f"{able}and generating images, text, videos, and speech, selecting the appropriate modality according "
        "to the context.",
        "voice": f"{able}images, text, videos, and speech, and generating speech. Please respond to the user with "
        "speech only, starting with <spch> and ending with </spch>.",
    } == MIO_SYSTEMS


def test_templates_of_pretraining_have_the_papers_colons_and_the_prompts_the_scripts_quotes() -> None:
    assert all(":" in template for template in PRETRAIN.values())
    assert not any('"' in BASE_PROMPTS[task] for task in ("image", "tts", "video"))
    assert not BASE_PROMPTS["caption"].endswith(":")
