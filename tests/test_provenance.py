"""Every file that a server makes says that a model made it; changed files and those of others do not pass as such."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fabricate import fabricate_model
from openai import OpenAI
from serving import named, running

from mio.media import encode_image, encode_video, read, read_audio
from mio.pipeline import load
from mio.serve.app import Options
from mio.serve.credentials import CHAIN, KEY, Credentials, created, look
from mio.serve.provenance import MARKERS, SIGNED, Provenance, findings, marked, mime_of
from mio.serve.sound import ENCODERS, pcm
from mio.types import Audio, Image, MioError, Video

DOTS = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
SOUND = pcm(Audio((np.sin(np.arange(2000) / 9) / 2).astype(np.float32), 24_000))
FILES = {
    "image/png": encode_image(Image(DOTS), "png"),
    "image/jpeg": encode_image(Image(DOTS), "jpeg"),
    "image/webp": encode_image(Image(DOTS), "webp"),
    "video/mp4": encode_video(Video(np.stack([DOTS] * 3), 4.0)),
    **{ENCODERS[format][0]: ENCODERS[format][1](SOUND) for format in ("wav", "flac", "mp3")},
}


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return created()


def pixels(data: bytes) -> bytes:
    media = read(data)
    return (
        media.samples if isinstance(media, Audio) else media.pixels if isinstance(media, Image) else media.frames
    ).tobytes()


def test_the_table_of_signed_formats_and_our_files_agree() -> None:
    assert set(FILES) == set(SIGNED)
    assert all(mime_of(data) == mime for mime, data in FILES.items())


@pytest.mark.parametrize("mime", sorted(MARKERS))
def test_the_plain_mark_changes_no_pixel_and_no_sample(mime: str) -> None:
    sealed = Provenance("tiny").seal(FILES[mime], mime)
    assert marked(sealed) and not marked(FILES[mime])
    assert pixels(sealed) == pixels(FILES[mime])


@pytest.mark.parametrize("mime", SIGNED)
def test_a_signed_file_is_valid_and_one_changed_byte_makes_it_invalid(mime: str, credentials: Credentials) -> None:
    sealed = Provenance("tiny", True, credentials).seal(FILES[mime], mime)
    signed, plain = findings(sealed)
    assert (signed["validation_state"], signed["outcome"], signed["issuer"]) == ("valid", "detected", "mio")
    assert signed["model"] == "mio tiny" and plain["outcome"] == ("detected" if mime in MARKERS else "not_detected")
    assert pixels(sealed) == pixels(FILES[mime]) and len(sealed) - len(FILES[mime]) < 16 * 1024
    changed = bytearray(sealed)
    changed[-5] ^= 1
    assert look(bytes(changed), mime).state == "invalid"


@pytest.mark.parametrize("mime", SIGNED)
def test_a_file_of_someone_else_is_not_taken_for_ours(mime: str) -> None:
    assert [found["outcome"] for found in findings(FILES[mime])] == ["not_detected"] * 2


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WAVE", b"\xff\xd8\xff" * 9])
def test_what_is_no_file_carries_no_mark(data: bytes) -> None:
    assert all(found["outcome"] == "not_detected" for found in findings(data))


def test_off_means_off_and_formats_without_a_place_stay_as_they_are(credentials: Credentials) -> None:
    assert Provenance("tiny", False, credentials).seal(FILES["image/png"], "image/png") == FILES["image/png"]
    ogg = ENCODERS["opus"][1](SOUND)
    assert Provenance("tiny", True, credentials).seal(ogg, "audio/ogg") == ogg


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    place = tmp_path / "mio" / "c2pa"
    first = Credentials.at(place)
    assert Credentials.at(place) == first
    assert {stat.S_IMODE((place / name).stat().st_mode) for name in (KEY, CHAIN)} == {0o600}
    (tmp_path / "file").write_text("")
    with pytest.raises(MioError, match="key"):
        Credentials.at(tmp_path / "file" / "c2pa")


@pytest.fixture(scope="module")
def client(credentials: Credentials, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    model = load(fabricate_model(tmp_path_factory.mktemp("model")))
    with running(model, Options(credentials=credentials)) as live:
        yield live.client()


def test_files_of_a_server_are_signed_and_its_endpoint_finds_that(client: OpenAI) -> None:
    spoken = client.audio.speech.create(model="", voice="alloy", input="x", response_format="wav").content
    results = client.content_provenance_checks.create(file=named(spoken, "x.wav")).results
    assert [result.outcome for result in results] == ["detected", "detected"]
    assert results[0].type == "c2pa" and results[0].validation_state == "valid"
    assert read_audio(spoken).rate == 24_000
