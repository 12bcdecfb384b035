"""The model that ships: every part small enough to train on two cores in under two hours."""

from __future__ import annotations

from mio.decoding.sampling import GREEDY, Sampling
from mio.models.backbone import BackboneConfig
from mio.models.decoders import PixelDecoderConfig
from mio.recipe import DataConfig, ImageConfig, Recipe, SpeechStageConfig, Stage, TextConfig
from mio.tokenizers.seed import SeedConfig
from mio.tokenizers.speech import SpeechConfig
from mio.train.loop import Fit
from mio.train.optim import Optim
from mio.types import Modality

SEED = SeedConfig(
    image_size=64,
    patch=8,
    vit_width=160,
    vit_depth=4,
    vit_heads=4,
    vit_hidden=480,
    width=160,
    layers=3,
    heads=4,
    hidden=480,
    codebook_size=1024,
    code_dim=16,
    reverse_depth=1,
    image_down=(64, 16),
    embedding=128,
    interpolation="bicubic",
)
SPEECH = SpeechConfig(
    filters=12,
    dimension=64,
    semantic_dimension=128,
    codebook_size=512,
    levels=4,
    lstm_layers=1,
    decay=0.97,
    dead_below=0.15,
)


ROWS = (
    Modality("image", 1, 1024, 32, "<image>", "</image>", "<img{}>"),
    Modality("speech", 4, 512, 0, "<spch>", "</spch>", "<spch{}>", "content", "sequential", rate=50.0),
    Modality("video", spans_of="image", rate=4.0),
)
BACKBONE = BackboneConfig(
    vocabulary=0,  # set when the vocabulary is known
    layers=6,
    width=256,
    heads=4,
    kv_heads=2,
    head_dim=64,
    hidden=640,
    rope_theta=10_000.0,
    positions=1024,
    tied=True,
)
# Shares of tokens by "task" or "task/source". Pictograms come often: naming or drawing one of 4,284 is a matter of
# meeting it (six times in these steps, which is too few), and a pair costs a third less here than as a conversation.
ALIGN = {
    "image to text/emoji": 3.4,
    "image to text/mulberry": 0.2,
    "image to text/digits": 0.4,
    "image to text/doodles": 0.4,
    "image to text/scenes": 0.5,
    "text to image/emoji": 3.0,
    "text to image/mulberry": 0.2,
    "text to image/digits": 0.2,
    "text to image/doodles": 0.2,
    "text to image/scenes": 0.5,
    "speech to text/fsdd": 0.5,
    "speech to text/names": 0.3,
    "speech to text/keywords": 0.1,
    "text": 0.6,
}
INTERLEAVE = ALIGN | {"interleaved": 1.2, "video to text": 0.6, "text to video": 0.6}
SPEAK = ALIGN | {
    "text": 0.3,
    "interleaved": 0.3,
    "speech to text 3/fsdd": 1.2,
    "speech to text 3/names": 0.5,
    "speech to text 3/keywords": 0.2,
    "text to speech/fsdd": 2.5,
    "text to speech/names": 0.7,
}
INSTRUCTIONS = {
    "name picture/emoji": 2.0,
    "name picture/digits": 0.6,
    "name picture/doodles": 0.4,
    "draw picture/emoji": 1.7,
    "draw picture/digits": 0.25,
    "draw picture/doodles": 0.1,
    "restyle": 0.15,
    "describe scene": 0.3,
    "question scene": 0.4,
    "questions scene": 1.5,
    "draw scene": 0.35,
    "edit scene": 0.2,
    "transcribe/fsdd": 0.7,
    "transcribe/names": 0.2,
    "transcribe/keywords": 0.1,
    "order": 0.05,
    "say/fsdd": 1.2,
    "say/names": 0.1,
    "repeat": 0.25,
    "speak picture/digits": 0.25,
    "draw speech": 0.2,
    "describe clip": 0.2,
    "motion": 0.3,
    "film": 0.25,
    "story": 0.15,
    "in context": 0.15,
    "define": 0.05,
}
# Once every task is known: what is asked of the model most, in smaller steps. A name has five targets where a picture
# has 34, so text weighs more.
PRACTICE = {
    "name pictures/emoji": 1.8,
    "name picture/emoji": 0.25,
    "name pictures/digits": 0.45,
    "name pictures/doodles": 0.12,
    "draw pictures/emoji": 2.4,
    "draw picture/emoji": 0.2,
    "draw picture/digits": 0.05,
    "draw pictures/doodles": 0.04,
    "restyle": 0.06,
    "describe scene": 0.2,
    "question scene": 0.2,
    "questions scene": 2.6,
    "draw scene": 0.15,
    "edit scene": 0.1,
    "transcribe/fsdd": 0.3,
    "transcribe/names": 0.08,
    "transcribe/keywords": 0.06,
    "order": 0.02,
    "say/fsdd": 1.0,
    "say/names": 0.06,
    "repeat": 0.15,
    "speak picture/digits": 0.15,
    "draw speech": 0.1,
    "describe clip": 0.1,
    "motion": 0.45,
    "film": 0.1,
    "story": 0.06,
    "in context": 0.1,
    "define": 0.03,
}


def muon(lr: float, floor: float) -> Optim:
    """Muon learns pairs of picture and name about twice as fast as AdamW does (docs/results.md)."""
    return Optim(lr, floor=floor, muon=True)


def tiny() -> Recipe:
    return Recipe(
        name="tiny",
        data=DataConfig(
            scenes=9000,
            held_out={
                "emoji": 0.06,
                "digits": 0.1,
                "doodles": 0.1,
                "scenes": 0.15,
                "fsdd": 0.1,
                "names": 0.06,
                "keywords": 0.1,
                "motion": 0.15,
                "storybook": 0.08,
                "narration": 0.08,
                "recipes": 0.08,
                "stories": 0.08,
            },
        ),
        text=TextConfig(size=2048),
        image=ImageConfig(
            network=SEED,
            decoder=PixelDecoderConfig(image_size=64, width=160, depth=3, latents=160, embedding=128),
            align=Fit(500, Optim(1e-3, weight_decay=0.1)),
            quantize=Fit(2600, Optim(1e-3, weight_decay=0.05)),
            batch=48,
            share={
                "emoji": 7.0,
                "mulberry": 2.0,
                "digits": 2.0,
                "doodles": 1.2,
                "scenes": 3.5,
                "motion": 1.5,
                "storybook": 0.8,
                "narration": 0.1,
                "recipes": 0.1,
            },
        ),
        speech=SpeechStageConfig(
            network=SPEECH,
            teacher=Fit(2000, Optim(1e-3, weight_decay=0.05)),
            codec=Fit(2400, Optim(8e-4, betas=(0.8, 0.95), weight_decay=0.0), bf16=False),
            batch=16,
            share={
                "fsdd": 6.0,
                "names": 3.0,
                "keywords": 1.0,
                "orders": 0.5,
                "libri_speakers": 1.5,
                "kerstin_de": 0.7,
                "ljspeech": 0.3,
                "narration": 0.5,
            },
        ),
        rows=ROWS,
        systems={"std": "You are MIO.", "voice": "You are MIO. Answer with speech."},
        backbone=BACKBONE,
        stages=(
            Stage("stage1-align", "pretrain", ALIGN, Fit(350, muon(3e-3, 0.7), parts=4), tokens=1536),
            Stage("stage2-interleave", "pretrain", INTERLEAVE, Fit(80, muon(2.2e-3, 0.9), parts=4), tokens=1536),
            Stage("stage3-speech", "pretrain", SPEAK, Fit(120, muon(2.2e-3, 0.9), parts=4), tokens=1536),
            Stage("sft", "instruct", INSTRUCTIONS, Fit(800, muon(2.2e-3, 0.005), parts=4), tokens=1536),
            Stage(
                "practice",
                "instruct",
                PRACTICE,
                Fit(3300, muon(2.2e-3, 0.005), parts=2),
                1536,
                {"text": 4.0, "speech": 1.5},
            ),
        ),
        judges={"picture": 2000, "digit": 400, "word": 600, "speaker": 600, "motion": 500},
        decoding={
            "text": GREEDY,
            "image": Sampling(temperature=0.8, top_p=0.7),
            "speech": Sampling(temperature=0.7, top_p=0.7),
        },
    )
