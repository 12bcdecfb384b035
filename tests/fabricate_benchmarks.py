"""Public benchmarks at two or three items each, in the very files that their makers publish."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pyarrow import Table, parquet

from mio.media import encode_audio, encode_image, write_audio, write_image, write_video
from mio.types import Audio, Image, Video

CAPTIONS = ["A red apple on a table.", "The cat sat on the mat.", "Two men play chess in the park."]
WORDS = ["SAY SEVEN", "THE CAT SAT ON THE MAT"]


def fabricate_benchmarks(folder: Path) -> Path:
    """All folders that `mio eval paper` looks for."""
    _karpathy(folder / "coco", "dataset_coco.json", "val2014")
    _karpathy(folder / "flickr30k", "dataset_flickr30k.json", "")
    _vqa(folder / "vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json")
    _vqa(folder / "okvqa", "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")
    _vizwiz(folder / "vizwiz")
    _seed_bench(folder / "seedbench")
    _msvd(folder / "msvd_qa")
    _msrvtt(folder / "msrvtt_qa")
    _libri(folder / "librispeech")
    _vctk(folder / "vctk")
    _mmlu(folder / "mmlu")
    _omni(folder / "omnibench")
    _globe(folder / "globe")
    _spoken_questions(folder / "speech2speech")
    return folder


def fabricate_surveys(folder: Path) -> Path:
    """All folders of the surveys' benchmarks."""
    for name in ("pope/val2014/a", "textvqa/train_images/a", "gqa/images/a"):
        _picture(folder / f"{name}.jpg", 0)
    for kind, label in (("random", "yes"), ("popular", "no"), ("adversarial", "no")):
        record = {"question_id": 1, "image": "a.jpg", "text": "Is there a cat in the image?", "label": label}
        _put(folder / f"pope/coco_pope_{kind}.json", json.dumps(record) + "\n")
    asked = {"question": "what is written?", "image_id": "a", "question_id": 7, "answers": ["stop"] * 10}
    _put(folder / "textvqa/TextVQA_0.5.1_val.json", {"data": [asked]})
    _put(folder / "gqa/testdev_balanced_questions.json", {"20": {"imageId": "a", "question": "Red?", "answer": "no"}})
    _tables(folder / "vlmeval")
    rows = [["audiocap_id", "youtube_id", "start_time", "caption"]]
    rows += [[str(n), "ab_c", "10", text] for n, text in enumerate(("A dog barks", "A dog, barking"))]
    _table(folder / "audiocaps/test.csv", rows)
    _sound(folder / "audiocaps/audio/ab_c.wav", 0)
    return folder


def _tables(folder: Path) -> None:
    """The columns of VLMEvalKit's tables. The second row's picture is that of the first."""
    first, second = (base64.b64encode(encode_image(_drawn(n))).decode() for n in range(2))
    options = {"A": "cat", "B": "dog", "C": "fox", "D": ""}
    asked: dict[str, list[dict[str, str]]] = {
        "MME.tsv": [
            {"index": str(n), "image": image, "category": "count", "image_path": "a.jpg", "question": q, "answer": a}
            for n, (image, q, a) in enumerate(((first, "Are there 2?", "Yes"), ("0", "Are there 3?", "No")))
        ],
        "HallusionBench.tsv": [
            {"index": f"VD_x_0_{n}", "image": image, "l2-category": "figure", "question": "Is it so?", "answer": a}
            for n, image, a in (("1_0_0", "", "No"), ("1_1_0", first, "Yes"), ("1_1_1", first, "No"))
        ],
        "MMBench_DEV_EN.tsv": [
            {"index": "7", "image": first, "hint": "Look.", "question": "What?", "answer": "B", "category": "x"}
            | options
        ],
        "ScienceQA_TEST.tsv": [
            {"index": "1", "image": first, "question": "What?", "answer": "C", "hint": ""} | options
        ],
        "MMMU_DEV_VAL.tsv": [
            {"index": "1", "image": str([first, second]), "question": "<image 1>, <image 2>?", "answer": "A"} | options,
            {"index": "2", "image": str([first]), "question": "How many?", "answer": "12", "A": "", "B": "", "C": ""},
        ],
        "MathVista_MINI.tsv": [
            {"index": "1", "image": first, "question": "Choices: (A) 3 (B) 4", "answer": "4", "answer_option": "B"}
            | {"choices": "['3', '4']"},
            {
                "index": "2",
                "image": first,
                "question": "How high?",
                "answer": "1.2",
                "answer_option": "",
                "choices": "",
            },
        ],
        "MMVet.tsv": [{"index": "v1_0", "image": first, "question": "x?", "answer": "1<AND>2", "category": "math"}],
    }
    for name, rows in asked.items():
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
            writer.writeheader()
            writer.writerows(rows)


def _globe(folder: Path) -> None:
    rows = []
    for n, words in enumerate(WORDS):
        sound = encode_audio(Audio(np.random.default_rng(n).normal(0, 0.1, 2400).astype(np.float32), 16000))
        rows.append({"audio": {"bytes": sound, "path": f"{n}.wav"}, "transcript": words, "speaker_id": f"S_{n:06d}"})
    path = folder / "data" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(Table.from_pylist(rows), path)


def _spoken_questions(folder: Path) -> None:
    asked = [{"id": str(n), "audio": f"audio/{n}.wav", "question": "What is it?", "answer": "A cat."} for n in range(2)]
    _put(folder / "questions.jsonl", "".join(json.dumps(record) + "\n" for record in asked))
    for n in range(2):
        _sound(folder / f"audio/{n}.wav", n)


def _put(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(_drawn(seed), path)


def _drawn(seed: int) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8))


def _sound(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(Audio(np.random.default_rng(seed).normal(0, 0.1, 2400).astype(np.float32), 16000), path)


def _clip(path: Path, seed: int) -> None:
    """Clips are told by their content: MP4 stands in for AVI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".mp4")
    write_video(Video(np.random.default_rng(seed).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8), 4.0), made)
    made.rename(path)


def _karpathy(folder: Path, file: str, images: str) -> None:
    records = []
    for n, caption in enumerate(CAPTIONS):
        split, name = ("train" if n == 2 else "test"), f"COCO_val2014_{n:012d}.jpg"
        where = {"filepath": images} if images else {}
        said = [{"raw": text, "imgid": n, "sentid": 5 * n + k} for k, text in enumerate((caption, caption.lower()))]
        records.append({**where, "filename": name, "imgid": n, "split": split, "sentences": said})
        if split == "test":
            _picture(folder / (images or "flickr30k-images") / name, n)
    _put(folder / file, {"images": records, "dataset": "made"})


def people(*answers: str) -> list[dict[str, object]]:
    return [{"answer": a, "answer_confidence": "yes", "answer_id": n + 1} for n, a in enumerate(answers)]


def _vqa(folder: Path, questions: str, annotations: str) -> None:
    asked = [{"image_id": n, "question": f"What is number {n}?", "question_id": 10 * n} for n in range(2)]
    told = [{"question_id": 10 * n, "image_id": n, "answers": people(*["cat"] * 10)} for n in (1, 0)]
    _put(folder / questions, {"questions": asked, "data_type": "mscoco"})
    _put(folder / annotations, {"annotations": told})
    for n in range(2):
        _picture(folder / f"val2014/COCO_val2014_{n:012d}.jpg", n)


def _vizwiz(folder: Path) -> None:
    names = [f"VizWiz_val_{n:08d}.jpg" for n in range(2)]
    record = {"question": "What is this?", "answers": people(*["soup"] * 10), "answerable": 1, "answer_type": "other"}
    _put(folder / "val.json", [{"image": name} | record for name in names])
    for n, name in enumerate(names):
        _picture(folder / "val" / name, n)


def _seed_bench(folder: Path) -> None:
    choices = {f"choice_{c}": f"thing {c}" for c in "abcd"}
    asked = [
        {"question_id": str(n), "question": "What?", "answer": "AB"[n % 2], "data_type": kind, "data_id": f"{n}_5"}
        | choices
        for n, kind in enumerate(("image", "image", "video"))
    ]
    _put(folder / "SEED-Bench.json", {"questions": asked, "question_type": {"Scene Understanding": 1}})
    for n in range(2):
        _picture(folder / f"SEED-Bench-image/{n}_5.png", n)
        (folder / f"SEED-Bench-image/{n}_5.png").rename(folder / f"SEED-Bench-image/{n}_5")


def _qa(count: int) -> list[dict[str, object]]:
    return [{"id": n, "video_id": n + 1, "question": "who sings?", "answer": "man"} for n in range(count)]


def _msvd(folder: Path) -> None:
    _put(folder / "youtube_mapping.txt", "abc_1_5 vid1\ndef_0_9 vid2\n")
    _put(folder / "test_qa.json", _qa(2))
    for n, name in enumerate(("abc_1_5", "def_0_9")):
        _clip(folder / f"YouTubeClips/{name}.avi", n)


def _msrvtt(folder: Path) -> None:
    _put(folder / "test_qa.json", [q | {"category_id": 1} for q in _qa(2)])
    for n in range(2):
        _clip(folder / f"TestVideo/video{n + 1}.mp4", n)


def _libri(folder: Path) -> None:
    chapter = folder / "test-clean" / "61" / "70968"
    ids = [f"61-70968-{n:04d}" for n in range(len(WORDS))]
    _put(chapter / "61-70968.trans.txt", "".join(f"{id} {words}\n" for id, words in zip(ids, WORDS, strict=True)))
    for n, id in enumerate(ids):
        _sound(chapter / f"{id}.flac", n)


def _vctk(folder: Path) -> None:
    for n, words in enumerate(WORDS):
        _put(folder / f"txt/p225/p225_{n:03d}.txt", words.capitalize() + ".\n")
        _sound(folder / f"wav48_silence_trimmed/p225/p225_{n:03d}_mic1.flac", n)


def _mmlu(folder: Path) -> None:
    rows = [["What is 1 + 1?", "1", "2", "3", "4", "B"], ['Who said "no, never"?', "you", "me", "a cat", "all", "C"]]
    _table(folder / "dev/logic_dev.csv", rows[:1])
    _table(folder / "test/logic_test.csv", rows)


def _table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _omni(folder: Path) -> None:
    options = ["A man sings.", "A dog barks.", "It rains.", "Nothing."]
    record = {"question": "What happens?", "options": options, "answer": "It rains.", "audio type": "speech"}
    lines = [record | {"index": n, "image_path": f"{n}.png", "audio_path": f"{n}.flac"} for n in range(2)]
    _put(folder / "dataset/batch-5_1142_20240817.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for n in range(2):
        _picture(folder / f"mm_data/image/{n}.png", n)
        _sound(folder / f"mm_data/audio/{n}.flac", n)
