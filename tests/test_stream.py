"""Streams of ids become parts as soon as they can be had, and the parts add up to the answer; speech without a seam."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate import fabricate_model
from numpy.testing import assert_allclose

from mio.decoding.engine import generate
from mio.decoding.sampling import Sampling
from mio.pipeline import Job, Model, load, user
from mio.pretrained.lazy import LazyTokenizer
from mio.processor import Stream
from mio.sequence import span_ids
from mio.tokenizers.speech import FIRST, SpeechConfig, SpeechNetwork, SpeechTokenizer
from mio.types import Audio, AudioChunk, Codes, Encoded, Image, Media, Modality, Text, Turns

HOT = {name: Sampling(temperature=2.0, top_p=1.0) for name in ("text", "image", "speech")}
SMALL = SpeechConfig(16000, 2, (8, 5, 4, 2), 16, 12, 32, 4, 1)
ROW = Modality("speech", 4, 32, 0, "<spch>", "</spch>", "<spch{}>", rate=50.0)


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    torch.manual_seed(2)
    network = SpeechNetwork(SMALL)
    for name, parameter in network.decoder.named_parameters():
        parameter.data *= 2 if name.endswith("weight_g") else 1  # loud enough for differences to show
    return SpeechTokenizer(network, ROW)


def codes(steps: int, seed: int = 0) -> Codes:
    return np.random.default_rng(seed).integers(0, 32, (1, 4, steps))


def chunks(tokenizer: SpeechTokenizer, whole: Codes) -> list[AudioChunk]:
    stream, steps = tokenizer.stream(), whole.shape[2]
    pieces = [stream.grow(whole[..., :t], steps, False) for t in range(steps + 1)]
    return [p for p in [*pieces, stream.grow(whole, steps, True)] if p is not None]


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 10, 11, 37, 120])
def test_chunks_joined_are_the_clip_decoded_whole(tokenizer: SpeechTokenizer, steps: int) -> None:
    whole = tokenizer.decode([codes(steps)])[0].samples
    pieces = chunks(tokenizer, codes(steps))
    joined = np.concatenate([p.samples for p in pieces])
    assert np.abs(whole).max() > 0.01
    assert_allclose(joined, whole, atol=1e-4, rtol=0)
    starts = np.cumsum([0, *(len(p.samples) for p in pieces)])
    assert [p.start for p in pieces] == starts[:-1].tolist()
    assert {p.whole for p in pieces} == {len(whole)}


def test_a_join_is_no_rougher_than_the_rest(tokenizer: SpeechTokenizer) -> None:
    """Second differences at the joins against those of the clip decoded whole, at the same samples."""
    whole = tokenizer.decode([codes(120)])[0].samples
    pieces = chunks(tokenizer, codes(120))
    joined = np.concatenate([p.samples for p in pieces])
    at = np.array([p.start for p in pieces[1:]])
    assert len(at) >= 4
    assert_allclose(np.diff(joined, 2)[at - 1], np.diff(whole, 2)[at - 1], atol=1e-4)


def test_the_lookahead_is_what_samples_hear_and_no_more(tokenizer: SpeechTokenizer) -> None:
    at, base = 20, codes(40)
    heard = []
    for later in range(at + 1, at + 10):
        other = base.copy()
        other[..., later] = (other[..., later] + 7) % 32
        step = slice(at * SMALL.hop, (at + 1) * SMALL.hop)
        a, b = (tokenizer.decode([c])[0].samples[step] for c in (base, other))
        heard.append(bool(np.abs(a - b).max() > 0))
    assert SMALL.lookahead == 4
    assert heard == [True] * 4 + [False] * 5


def test_the_first_chunk_comes_early_and_the_work_stays_twice_that_of_one_decoding(
    tokenizer: SpeechTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, decode = [], tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda c: decoded.append(c[0].shape[2]) or decode(c))
    pieces = chunks(tokenizer, codes(200))
    assert decoded[0] == FIRST + SMALL.lookahead
    assert sum(decoded) <= 3 * 200
    assert len(pieces) == len(decoded)


# ------------------------------------------------------------------------------------------------ of a whole model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its random weights are made so large that what is asked changes what is answered."""
    model = load(fabricate_model(tmp_path_factory.mktemp("model")))
    for name, parameter in model.backbone.named_parameters():
        parameter.data *= 1 if "norm" in name else 30
    return model


def streamed(model: Model, job: Job) -> tuple[list[tuple[int, Text | Media]], list[int]]:
    """Each part with the number of ids after which it came, and the ids."""
    request, stream = model.request(job), Stream(model.processor)
    out: list[tuple[int, Text | Media]] = []
    for _, id in generate(model.backbone, [request]):
        out += [(len(request.out), part) for part in stream.take(id)]
    return [*out, *((len(request.out), part) for part in stream.end())], request.out


@pytest.mark.parametrize("seed", range(2))
def test_parts_add_up_to_the_answer(model: Model, seed: int) -> None:
    job = Job(Turns((user("Tell me."),)), "text image speech text", 150, seed=seed, sampling=HOT)
    whole, parts = model.run([job])[0], [part for _, part in streamed(model, job)[0]]
    assert "".join(p.text for p in parts if isinstance(p, Text)).strip() == whole.text
    (image,), (spoken,) = whole.media(Image), whole.media(Audio)
    assert [p.pixels.tolist() for p in parts if isinstance(p, Image)] == [image.pixels.tolist()]
    joined = np.concatenate([p.samples for p in parts if isinstance(p, AudioChunk)])
    assert_allclose(joined, spoken.samples, atol=1e-5)


def test_sound_begins_before_its_span_is_closed_and_its_length_is_known(model: Model) -> None:
    vocab, stream = model.processor.vocab, Stream(model.processor)
    row, steps = vocab.row("speech"), 60
    spoken = np.random.default_rng(0).integers(0, row.codebook_size, (1, row.codebooks, steps))
    parts = [stream.take(int(id)) for id in span_ids(Encoded("speech", spoken), vocab, as_input=False)]
    came = [n for n, found in enumerate(parts) if found]
    assert came[0] == steps * (row.codebooks - 1) + FIRST + 4
    assert came[-1] == steps * row.codebooks + 1
    assert {p.whole for found in parts for p in found if isinstance(p, AudioChunk)} == {320 * steps}


def test_an_image_comes_with_the_id_that_closes_it(model: Model) -> None:
    parts, ids = streamed(model, Job(Turns((user("Draw."),)), "image", 60, sampling=HOT))
    assert [n for n, p in parts if isinstance(p, Image)] == [ids.index(model.processor.vocab.bounds("image")[1]) + 1]


def test_a_tokenizer_built_on_first_use_streams_if_the_one_behind_it_does(model: Model) -> None:
    held = model.processor.tokenizers
    lazy = {name: LazyTokenizer(held[name].modality, lambda name=name: held[name], [], {}) for name in held}  # type: ignore[misc]
    assert [lazy[name].stream() is None for name in ("image", "speech")] == [True, False]


def test_text_comes_by_whole_characters(model: Model) -> None:
    stream, words = Stream(model.processor), "a é 漢 🎉"
    pieces = [[p.text for p in stream.take(i) if isinstance(p, Text)] for i in model.processor.text.encode(words)]
    assert "".join(p for ps in pieces for p in ps) == words
    assert [] in pieces
    assert stream.end() == []


def test_a_failed_job_costs_itself_only(model: Model, tmp_path: Path) -> None:
    good = Job(Turns((user("Say it."),)), "text", 20)
    bad = [
        replace(good, out="smell"),
        replace(good, out="image{9}"),
        replace(good, sampling={"text": Sampling()}, seed=-1),
    ]
    replies = model.run([bad[0], good, *bad[1:], good])
    assert [r.error is None for r in replies] == [False, True, False, False, True]
    assert replies[1].ids == replies[4].ids == model.run([good])[0].ids
    named = [str(r.error) for r in replies if r.error]
    assert "smell" in named[0] and "20 ids are too few" in named[1] and "Seed -1" in named[2]


def test_guidance_leads_away_from_what_the_question_does_not_say(model: Model) -> None:
    """Guidance 1 is none; at 0 the image is that of the empty question, whatever is asked."""

    def ids(words: str, guidance: float) -> tuple[int, ...]:
        way = replace(HOT["image"], guidance=guidance)
        return model.chat(*([words] if words else []), out="image", tokens=60, sampling={"image": way}).ids

    assert ids("A fox.", 1.0) == model.chat("A fox.", out="image", tokens=60, sampling=HOT).ids
    assert ids("A fox.", 0.0) == ids("A boat on a lake.", 0.0) != ids("A fox.", 1.0)
    assert ids("A fox.", 4.0) != ids("A fox.", 1.0)
