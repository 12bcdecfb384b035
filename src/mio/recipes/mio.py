"""The four trainings of MIO: alignment, interleaving, speech, instructions, at the paper's size and at a laptop's.

Where the paper is silent (docs of its appendix A): weight decay, the floor of the learning rate, both directions of a
pair or clip as often as each other, and the length and mixture of the last stage are ours.
"""

from __future__ import annotations

from dataclasses import replace

from mio.data.plan import Slot
from mio.models.backbone import BackboneConfig
from mio.models.decoders import PixelDecoderConfig
from mio.pretrained.language import rows
from mio.recipe import ImageConfig, Recipe, SpeechStageConfig, Stage, TextConfig
from mio.recipes.tiny import INSTRUCTIONS, muon, tiny
from mio.sequence import MIO_SYSTEMS
from mio.tokenizers.seed import SeedConfig
from mio.tokenizers.speech import SpeechConfig
from mio.train.loop import Fit
from mio.train.optim import Optim

STEPS = (24_800, 12_800, 32_200)  # of the three stages of pre-training
DEVICES = (128, 128, 8)  # each with 16 packs a step: one turn of the slots
WINDOW = 2800  # tokens of a pack

PAIRS = {"image to text": 1.0, "text to image": 1.0}
TEXTS = {"text": 1.0}
DOCUMENTS = {"interleaved": 1.0, "video to text": 0.4, "text to video": 0.6}
# A second costs 50 tokens as input, 200 as output: so as many clips are written down as are spoken.
SPEECH = {"speech to text": 1.0, "text to speech": 3.8}
SPEECH_LAST = {"speech to text 3": 1.0, "text to speech": 3.8}  # the last stage words it differently


def slots(pairs: int, texts: int, documents: int, speech: int, spoken: dict[str, float]) -> dict[str, Slot]:
    """Packs of a device's batch of 16 (MIO, table 1). Long documents are split; speech that is too long is left out."""
    return {
        "pairs": Slot(pairs, PAIRS),
        "texts": Slot(texts, TEXTS, "split"),
        "documents": Slot(documents, DOCUMENTS, "split"),
        "speech": Slot(speech, spoken),
    }


TURNS = (
    ("stage1-align", slots(12, 2, 0, 2, SPEECH)),
    ("stage2-interleave", slots(2, 2, 6, 6, SPEECH)),
    ("stage3-speech", slots(2, 1, 1, 12, SPEECH_LAST)),
)


def stages(fits: tuple[Fit, Fit, Fit, Fit], tokens: int) -> tuple[Stage, ...]:
    pretraining = (
        Stage(name, "pretrain", {}, fit, tokens, slots=turn) for (name, turn), fit in zip(TURNS, fits[:3], strict=True)
    )
    return (*pretraining, Stage("sft", "instruct", INSTRUCTIONS, fits[3], tokens))


def mio() -> Recipe:
    """MIO as published, for a cluster: it starts from Yi-6B, with the release's vocabulary and tokenizers.

    With neither (`released` and `start` empty) it trains tokenizers of the same shapes and begins at random weights.
    """
    optim = Optim(3e-5, floor=0.0)
    fits = [Fit(steps, optim, parts=16 * devices) for steps, devices in zip(STEPS, DEVICES, strict=True)]
    seed, small = SeedConfig(), tiny()
    decoder = PixelDecoderConfig(
        seed.image_size, seed.patch, 768, 12, 12, latents=seed.width, embedding=seed.embedding, smooth=64
    )
    return replace(
        small,
        name="mio",
        text=TextConfig(64_000),
        image=ImageConfig(seed, decoder, Fit(100_000, Optim(1e-4)), Fit(100_000, Optim(1e-4)), batch=256),
        speech=SpeechStageConfig(SpeechConfig(), Fit(100_000, Optim(1e-4)), Fit(400_000, Optim(1e-4)), batch=64),
        rows=rows({}),
        systems=dict(MIO_SYSTEMS),
        backbone=BackboneConfig(),
        stages=stages((fits[0], fits[1], fits[2], Fit(5000, optim, parts=128)), WINDOW),
        frames=8,
        released="m-a-p/MIO-7B-Base",
        init="01-ai/Yi-6B",
    )


def laptop() -> Recipe:
    """The same stages and ratios with the small model's parts, a hundredth of the steps and one device's batch."""
    rates = (3e-3, 2.2e-3, 2.2e-3)
    fits = [Fit(steps // 100, muon(lr, 0.7), parts=16) for steps, lr in zip(STEPS, rates, strict=True)]
    last = Fit(400, muon(2.2e-3, 0.005), parts=16)
    return replace(tiny(), name="mio-laptop", stages=stages((fits[0], fits[1], fits[2], last), 1024))
