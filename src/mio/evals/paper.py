"""The tables of MIO's paper (arXiv 2409.17692): what it reports, and the tasks that measure the same of any model.

Numbers of Tables 3 to 6 are those of the pictures in the authors' repository (MIO-Team/MIO, assets/); further ones were
read in the paper's text, whose tables 7, 8 and 12 to 15 we could not see: they stand under "text". None is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mio.evals.benchmarks.choices import mmlu, omni_bench, seed_bench
from mio.evals.benchmarks.clips import globe, libri_speech, msrvtt_qa, msvd_qa, spoken, spoken_questions, vctk
from mio.evals.benchmarks.images import Karpathy, Vqa, vizwiz
from mio.evals.planning import Task
from mio.sequence import BASE_PROMPTS, INSTRUCT_PROMPTS

COCO, FLICKR = Karpathy("dataset_coco.json"), Karpathy("dataset_flickr30k.json", "flickr30k-images")
VQA2 = Vqa("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json")
OKVQA = Vqa("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")

# Table 11 of the paper, where we know its words; of others, the prompts of the released script.
CAPTION = "Provide a one-sentence caption for the provided image. {0}"
DRAW = "Please generate an image according to the given description. {0}"
TRANSCRIBE = "Please transcribe this speech.{0}"
SPEAK = "Please generate a speech according to the given transcription. Start with <spch>. {0}"
OMNI = (
    "{0}{1}Please answer the following question based on the given image and audio:\n{2}.\n"
    "Please choose only one answer from the following options:\n{3}."
)  # of OmniBench itself

_caption = partial(Task, prompt=CAPTION, base=BASE_PROMPTS["caption"], metrics=("CIDEr",))
_vqa = partial(Task, prompt=INSTRUCT_PROMPTS["vqa"], base="", metrics=("VQA accuracy",), tokens=20)
_clip = partial(Task, prompt=INSTRUCT_PROMPTS["video qa"], base="", metrics=("accuracy",), tokens=20)
_draw = partial(Task, prompt=DRAW, base=BASE_PROMPTS["image"], metrics=("CLIP-I", "CLIP-T", "aesthetic"), out="image")
_hear = partial(Task, prompt=TRANSCRIBE, base=BASE_PROMPTS["asr"], metrics=("WER",), tokens=400)
_speak = partial(
    Task, prompt=SPEAK, base=BASE_PROMPTS["tts"], metrics=("heard WER", "speaker similarity"), out="speech",
    tokens=2560, mode="voice",
)  # fmt: skip

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        _caption("coco-caption", "coco", "captions of COCO, Karpathy's test split", COCO.captions),
        _caption("flickr-caption", "flickr30k", "captions of Flickr30k, Karpathy's test split", FLICKR.captions),
        _vqa("vqav2", "vqav2", "VQAv2, validation", VQA2),
        _vqa("okvqa", "okvqa", "OK-VQA, validation", OKVQA),
        _vqa("vizwiz", "vizwiz", "VizWiz, validation", vizwiz),
        Task(
            "seed-bench", "seedbench", "picture questions of SEED-Bench", seed_bench,
            "{0}{1}\n{2}\nAnswer with the letter of the right option.", "", ("choice accuracy",), likelihood=True,
        ),
        _draw("coco-image", "coco", "pictures from captions of COCO, Karpathy's test split", COCO.drawings),
        _draw("flickr-image", "flickr30k", "pictures from captions of Flickr30k", FLICKR.drawings),
        _hear("librispeech-asr", "librispeech", "LibriSpeech test-clean, written down", libri_speech),
        _speak("vctk-tts", "vctk", "sentences of VCTK, spoken", spoken(vctk)),
        _speak("librispeech-tts", "librispeech", "sentences of LibriSpeech test-clean, spoken", spoken(libri_speech)),
        _speak("globe-tts", "globe", "sentences of GLOBE's test split, spoken", spoken(globe)),
        Task(
            "speech-to-speech", "speech2speech", "spoken questions, answered in speech", spoken_questions, "{0}", "",
            ("heard content",), out="speech", tokens=2560, mode="voice",
        ),
        _clip("msvd-qa", "msvd_qa", "MSVD-QA, test", msvd_qa),
        _clip("msrvtt-qa", "msrvtt_qa", "MSRVTT-QA, test", msrvtt_qa),
        Task(
            "mmlu", "mmlu", "MMLU, five examples before each question", mmlu, "", "{0}{1}", ("choice accuracy",),
            likelihood=True,
        ),
        Task("omnibench", "omnibench", "OmniBench, picture and sound", omni_bench, OMNI, "", ("choice accuracy",)),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """One column of one table. `values`: by model; `task` and `metric`: what of ours measures the same, "" for none."""

    table: str
    what: str
    task: str
    metric: str
    values: Mapping[str, float]
    note: str = ""


_EMU, _LLAMA = "Emu-I (14B)", "SEED-LLaMA-I (8B)"
PUBLISHED: tuple[Published, ...] = (
    Published("3", "COCO captions, CIDEr", "coco-caption", "CIDEr", {
        "Emu-Base (14B)": 112.4, _EMU: 120.4, _LLAMA: 124.5, "AnyGPT (8B)": 107.5, "Flamingo (9B)": 79.4,
        "Flamingo (80B)": 84.3, "Kosmos-1 (1.6B)": 84.7, "MetaLM (1.7B)": 82.2, "IDEFICS-I (80B)": 117.2,
        "CM3Leon (7B)": 61.6, "MIO-Instruct": 120.4}),
    Published("3", "VQAv2", "vqav2", "VQA accuracy", {
        "Emu-Base (14B)": 52.0, _EMU: 57.2, _LLAMA: 66.2, "Flamingo (9B)": 51.8, "Flamingo (80B)": 56.3,
        "Kosmos-1 (1.6B)": 51.0, "MetaLM (1.7B)": 41.1, "IDEFICS-I (80B)": 37.4, "CM3Leon (7B)": 47.6,
        "MIO-Instruct": 65.5}),
    Published("3", "OK-VQA", "okvqa", "VQA accuracy", {
        "Emu-Base (14B)": 38.2, _EMU: 43.4, _LLAMA: 45.9, "Flamingo (9B)": 44.7, "Flamingo (80B)": 31.6,
        "MetaLM (1.7B)": 11.4, "IDEFICS-I (80B)": 36.9, "CM3Leon (7B)": 23.8, "MIO-Instruct": 39.9}),
    Published("3", "VizWiz", "vizwiz", "VQA accuracy", {
        "Emu-Base (14B)": 34.2, _EMU: 32.2, _LLAMA: 55.1, "Flamingo (9B)": 28.8, "Kosmos-1 (1.6B)": 29.2,
        "IDEFICS-I (80B)": 26.2, "CM3Leon (7B)": 37.6, "InstructBLIP (8.1B)": 34.5, "MIO-Instruct": 53.5}),
    Published("3", "SEED-Bench", "seed-bench", "choice accuracy", {
        "Emu-Base (14B)": 47.3, _EMU: 58.0, _LLAMA: 51.5, "Flamingo (9B)": 42.7, "IDEFICS-I (80B)": 53.2,
        "InstructBLIP (8.1B)": 58.8, "MIO-Instruct": 54.4}),
    Published("4", "COCO pictures, CLIP-I", "coco-image", "CLIP-I", {
        "Emu-Base": 66.46, "SEED-LLaMA-Base": 69.07, "SEED-LLaMA-I": 70.68, "GILL": 67.45, "AnyGPT": 65.00,
        "MIO-Base": 64.15, "MIO-Instruct": 67.76}),
    Published("4", "Flickr30k pictures, CLIP-I", "flickr-image", "CLIP-I", {
        "Emu-Base": 64.82, "SEED-LLaMA-Base": 65.54, "SEED-LLaMA-I": 66.55, "GILL": 65.16, "MIO-Base": 62.71,
        "MIO-Instruct": 68.97}),
    Published("5", "speech to text, WER", "librispeech-asr", "WER", {
        "Wav2vec": 2.7, "Whisper": 2.7, "AnyGPT": 8.5, "MIO-Base": 6.3, "MIO-Instruct": 10.3}),
    Published("5", "text to speech, WER", "vctk-tts", "heard WER", {
        "VALL-E": 7.9, "USLM": 6.5, "AnyGPT": 8.5, "MIO-Base": 12.0, "MIO-Instruct": 4.2}, "heard by Whisper-medium"),
    Published("6", "MSVD-QA", "msvd-qa", "accuracy", {
        "Flamingo (9B)": 30.2, "BLIP-2 (4.1B)": 33.7, "InstructBLIP (8.1B)": 41.8, "Emu-Instruct (14B)": 32.4,
        _LLAMA: 40.9, "MIO-Instruct": 42.6}),
    Published("6", "MSRVTT-QA", "msrvtt-qa", "accuracy", {
        "Flamingo (9B)": 13.7, "BLIP-2 (4.1B)": 16.2, "InstructBLIP (8.1B)": 22.1, "Emu-Instruct (14B)": 14.0,
        _LLAMA: 30.8, "MIO-Instruct": 35.5}),
    Published("text", "MMLU", "mmlu", "choice accuracy", {"MIO": 45.7}),
    Published("text", "OmniBench", "omnibench", "choice accuracy", {"MIO-Instruct": 36.96},
              "OmniBench's board has this number for its speech items, and 33.80 for all"),
    Published("text", "LibriSpeech text to speech, WER", "librispeech-tts", "heard WER", {"MIO": 10.3}),
    Published("text", "LibriSpeech text to speech, speaker", "librispeech-tts", "speaker similarity", {
        "MIO": 75.1}),
    Published("text", "GLOBE text to speech, WER", "globe-tts", "heard WER", {"MIO": 9.8}),
    Published("text", "GLOBE text to speech, speaker", "globe-tts", "speaker similarity", {"MIO": 67.8}),
    Published("text", "speech to speech, content as a judge marks it", "speech-to-speech", "heard content", {
        "AnyGPT cascade": 1.8, "MIO-Instruct": 1.4}, "theirs by GPT-4o on a scale that we do not know; ours of 100"),
    Published("text", "text to speech, preferred to AnyGPT's by people (%)", "", "", {
        "MIO-Instruct wins": 54, "tie": 25, "MIO-Instruct loses": 21}),
)  # fmt: skip
