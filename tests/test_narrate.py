"""Videos -> interleaved documents: every shot has its frames and words in order, whoever finds the words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
from fabricate import fabricate_model
from numpy.testing import assert_array_equal
from serving import running

from mio.cli import main
from mio.data.endpoint import SEE, Endpoint
from mio.data.faults import Reading
from mio.data.formats import FORMATS
from mio.data.narrate import Narrator, Noted, Shot, narrate, opened, pieces, plain_words, shots
from mio.media import encode_image, encode_video, has_sound, read_image, write_video
from mio.pipeline import Model, load
from mio.types import Audio, Image, MediaBytes, MioError, MissingError, Text, Video

COLOURS = ((250, 40, 40), (10, 10, 30), (240, 240, 240))
FPS, RATE, LONG = 8.0, 8000, 20  # LONG: frames of a shot


def film(shots: int, frames: int = LONG) -> Video:
    """Shots of one colour each."""
    pixels = [np.full((frames, 16, 16, 3), COLOURS[n], np.uint8) for n in range(shots)]
    return Video(np.concatenate(pixels), FPS)


def tone(seconds: float) -> Audio:
    return Audio((np.sin(np.arange(round(seconds * RATE)) / 5) / 2).astype(np.float32), RATE)


def colours(pictures: Sequence[Image]) -> list[str]:
    """A captioner that is always right."""
    return [f"colour {COLOURS.index(tuple(int(c) for c in p.pixels[0, 0]))}" for p in pictures]


def seconds(sounds: Sequence[Audio]) -> list[str]:
    return [f"{sound.seconds:.1f}" for sound in sounds]


def test_a_shot_has_its_first_and_its_middle_frame_and_its_own_sound() -> None:
    video, sound = film(3), Audio(np.repeat([0.5, 0.0, 0.25], RATE * LONG / FPS).astype(np.float32), RATE)
    found = shots(video, sound)
    assert len(found) == 3
    for number, shot in enumerate(found):
        assert_array_equal(shot.key.pixels, video.frames[number * LONG])
        assert_array_equal(shot.centre.pixels, video.frames[number * LONG + LONG // 2])
    loud, quiet, soft = (shot.sound for shot in found)
    assert loud is not None and quiet is None and soft is not None
    assert set(loud.samples) == {0.5} and set(soft.samples) == {0.25}
    assert len(loud.samples) == len(soft.samples) == RATE * LONG / FPS


def test_a_video_without_cuts_is_one_shot_and_a_still_has_one_frame() -> None:
    assert len(shots(film(1))) == 1
    (still,) = shots(film(1, frames=1))
    assert still.middle is None and still.centre is still.key


def test_speech_is_cut_into_equal_pieces_that_keep_every_sample() -> None:
    sound = tone(31.0)
    cut = pieces(sound)
    assert [round(p.seconds, 1) for p in cut] == [10.3, 10.3, 10.3]
    assert_array_equal(np.concatenate([p.samples for p in cut]), sound.samples)


def test_plain_words_say_what_is_new() -> None:
    notes = [Noted("a  fox", "seven\n"), Noted("a fox", "eight!"), Noted("a cat."), Noted("", "")]
    assert plain_words(notes) == ["A fox. “Seven.”", "“Eight!”", "A cat.", ""]


def test_a_document_has_frames_and_words_of_all_shots_in_order() -> None:
    found = [*shots(film(2), tone(2 * LONG / FPS)), Shot(Image(film(3).frames[-1]), None, None)]
    document = Narrator("right", colours, seconds).document(found)
    kinds = ["image", "image", "text", "image", "image", "text", "image", "text"]
    assert [type(part).__name__.lower() for part in document.parts] == kinds
    assert [p.text for p in document.parts if isinstance(p, Text)] == [
        "Colour 0. “2.5.”",
        "Colour 1. “2.5.”",
        "Colour 2.",
    ]


def spoken_film(path: Path, video: Video, sound: Audio) -> None:
    """MP4 with a track of sound."""
    with av.open(str(path), "w") as container:
        pictures, voice = container.add_stream("mpeg4", rate=int(video.fps)), container.add_stream("aac", rate=RATE)
        pictures.width, pictures.height, pictures.pix_fmt = 16, 16, "yuv420p"
        for frame in video.frames:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode())
        block = av.AudioFrame.from_ndarray(sound.samples[None], format="fltp", layout="mono")
        block.sample_rate = RATE
        container.mux([*voice.encode(block), *voice.encode()])


def test_the_sound_of_a_video_comes_with_it(tmp_path: Path) -> None:
    spoken_film(tmp_path / "a.mp4", film(2), tone(5.0))
    video, sound = opened(MediaBytes((tmp_path / "a.mp4").read_bytes(), "video"))
    assert sound is not None and abs(sound.seconds - 5.0) < 0.3 and len(video.frames) == 2 * LONG
    silent = encode_video(film(1))
    assert not has_sound(silent) and opened(MediaBytes(silent, "video"))[1] is None
    assert has_sound(tmp_path / "a.mp4") and not has_sound(encode_image(Image(film(1).frames[0])))


def test_what_is_narrated_stays_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    calls = list[int]()

    def counting(pictures: Sequence[Image]) -> list[str]:
        calls.append(len(pictures))
        return ["a"] * len(pictures)

    (tmp_path / "bad.mp4").write_bytes(b"no video")
    for n in range(2):
        write_video(film(n + 1), tmp_path / f"{n}.mp4")
    names = ("0.mp4", "bad.mp4", "1.mp4")
    (tmp_path / "v.jsonl").write_text("".join(json.dumps({"video": n, "caption": ""}) + "\n" for n in names))
    for _ in range(2):
        reading = Reading(tmp_path / "v.jsonl", FORMATS["videos"])
        places = narrate(reading, Narrator("counting", counting), tmp_path / "frames")
        assert [f.line for f in reading.faults] == [2] and len(places) == 2
    assert calls == [1, 2]
    narrate(Reading(tmp_path / "v.jsonl", FORMATS["videos"]), Narrator("other", counting), tmp_path / "frames")
    assert calls == [1, 2, 1, 2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("narrator") / "model")


def test_the_command_makes_documents_that_tokenize(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken_film(tmp_path / "a.mp4", film(2), tone(5.0))
    write_video(film(1), tmp_path / "b.mp4")
    words = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), "-o", str(tmp_path / "films"), "--model", str(model)]
    assert main(["data", "narrate", *words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    documents = Path(facts["documents"])
    assert facts["videos"] == len(documents.read_text().splitlines()) == 2
    (first, *_) = Reading(documents, FORMATS["segments"]).samples()
    pictures = [p for p in first.content.parts if not isinstance(p, Text)]  # type: ignore[union-attr]
    assert len(pictures) == 4
    difference = read_image(pictures[2].path).pixels.astype(int) - COLOURS[1]  # type: ignore[union-attr]
    assert abs(difference).mean() < 8  # of what MPEG-4 leaves
    store = ["data", "tokenize", str(documents), "--format", "segments", "-o", str(tmp_path / "s")]
    assert main([*store, "--model", str(model), "--task", "interleaved", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 2


# --------------------------------------------------------------------------------------------------- helpers elsewhere


def test_an_endpoint_says_what_the_model_behind_it_says(model: Path) -> None:
    """Our own server is one."""
    speaker: Model = load(model)
    picture = Image(film(1).frames[0])
    with running(speaker) as live:
        server = Endpoint(f"{live.base}/v1", speaker.config.name, tokens=6)
        direct = speaker.chat(picture, SEE, tokens=6).text
        assert server.caption([picture]) == [direct]
        assert len(server.hear([tone(0.1)])) == len(server.refine([Noted("a", "b")])) == 1
        with pytest.raises(MioError, match="refuses: 404"):
            Endpoint(f"{live.base}/v1", "other").ask("hello")


class Moody(BaseHTTPRequestHandler):
    """Answers with what is left of `moods`, then says "fine"."""

    moods: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.moods.pop(0) if self.moods else 200
        body = json.dumps({"choices": [{"message": {"content": "fine"}}]} if status == 200 else {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[Endpoint]:
    with HTTPServer(("127.0.0.1", 0), Moody) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "m", tries=3, pause=0.001)
        server.shutdown()
        thread.join()


def test_an_endpoint_is_asked_again_a_few_times_and_not_for_ever(moody: Endpoint) -> None:
    Moody.moods = [503, 429]
    assert moody.ask("hello") == "fine"
    Moody.moods = [500] * 3
    with pytest.raises(MissingError, match="No answer in 3 tries: 500"):
        moody.ask("hello")
    Moody.moods = [401, 200]
    with pytest.raises(MioError, match="refuses: 401"):
        moody.ask("hello")
    assert Moody.moods == [200]  # what it refuses is not asked twice


@pytest.mark.parametrize("name", ["film", "file:///etc/passwd#m", "http://host/v1"])
def test_only_addresses_with_a_model_are_endpoints(name: str) -> None:
    with pytest.raises(MioError, match="names no endpoint"):
        Endpoint.named(name)
