"""The command line: what stands on stdout, what on stderr, and which exit code, for every command."""

from __future__ import annotations

import importlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fabricate import ROWS, SYSTEMS, fabricate_model, fabricate_parts
from torch import nn

import mio.cli.runs
from mio.checkpoint import write_json
from mio.cli import main
from mio.cli.inputs import open_model
from mio.cli.talk import HELP
from mio.config import to_dict
from mio.data.store import Record, write_store
from mio.media import read, write_audio, write_image, write_video
from mio.models.quantized import Int4Linear, Int8Linear, QuantizedLinear
from mio.pipeline import Model, load
from mio.recipe import Run
from mio.recipes.tiny import tiny
from mio.train.loop import Interrupted
from mio.types import Audio, Document, Image, MioError, ResourceError, Text, Video

RESERVED = "<image><img5></image> <|im_end|>\n<|im_start|>system <spch><spch1></spch> <|endoftext|>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png, b.wav, c.mp4, and bad.png that is none."""
    folder, rng = tmp_path_factory.mktemp("media"), np.random.default_rng(0)
    write_image(Image(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)), folder / "a.png")
    write_audio(Audio(np.sin(np.arange(8000, dtype=np.float32) / 10), 16000), folder / "b.wav")
    write_video(Video(rng.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8), 4.0), folder / "c.mp4")
    (folder / "bad.png").write_bytes(b"nonsense")
    return folder


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Mio = Callable[..., Done]


@pytest.fixture
def mio_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mio:
    """Runs a command line in this process, with `stdin` piped into it."""

    def run(*words: object, stdin: str | bytes = b"") -> Done:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        code = main([str(w) for w in words])
        return Done(code, *capsys.readouterr())

    return run


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------------------------------- start, help, errors


def loaded_by(*words: str) -> set[str]:
    """Modules that a fresh interpreter loads."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_help_loads_nothing_heavy() -> None:
    modules = loaded_by("-m", "mio", "--help")
    assert "mio.cli.parser" in modules
    assert not modules & {"torch", "numpy", "yaml", "PIL", "mio.types"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    modules = loaded_by("-c", "import mio; mio.__version__")
    assert "mio" in modules
    assert not modules & {"torch", "numpy"}


def test_the_package_gives_what_the_pipeline_has() -> None:
    assert mio.load is load
    assert set(mio.__all__) <= set(dir(mio))
    with pytest.raises(AttributeError, match="nothing"):
        _ = mio.nothing  # type: ignore[attr-defined]


COMMANDS = ["doctor", "tokenize", "detokenize", "data prepare", "data show", "train", "chat", "generate", "demo"]


@pytest.mark.parametrize(
    "command", [*COMMANDS, "inspect", "recipes ls", "recipes cat", "train-tokenizer", "eval tokenizer"]
)
def test_every_help_ends_with_an_example(command: str, mio_: Mio) -> None:
    done = mio_(*command.split(), "--help")
    assert done.code == 0
    assert f"mio {command}" in done.out.rpartition("examples:")[2]


def test_version(mio_: Mio) -> None:
    assert mio_("--version").out == f"mio {mio.__version__}\n"


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["chat", "--tokens", "0"], ["chat", "--seed", "-1"], ["chat", "--temperature", "nan"]]
)
def test_wrong_words_are_a_usage_error_in_our_form(words: list[str], mio_: Mio) -> None:
    done = mio_(*words)
    first, last = done.err.splitlines()
    assert (done.code, done.out) == (2, "")
    assert first.startswith("error: ") and last.startswith("  fix: See mio")


def test_an_error_has_three_lines_and_with_json_a_document(tmp_path: Path, mio_: Mio) -> None:
    words = ["detokenize", tmp_path / "none.jsonl", "-o", tmp_path, "--model", tmp_path / "no-model"]
    done = mio_(*words)
    assert done.code == 4
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["error", "  at", "  fix"]
    [document] = mio_(*words, "--json").documents
    assert document["error"].keys() == {"code", "message", "hint", "exit_code"}
    assert (document["error"]["code"], document["error"]["exit_code"]) == ("missing", 4)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyError("x"), 1),
        (MioError("no"), 2),
        (PermissionError(13, "Permission denied", "there"), 2),
        (FloatingPointError("Loss is nan."), 3),
        (FileNotFoundError(2, "No such file", "there"), 4),
        (MemoryError(), 5),
        (ResourceError("full"), 5),
        (OSError(28, "No space left on device"), 5),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 5),
        (Interrupted("Stopped after step 3."), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(raised: BaseException, code: int, tmp_path: Path, mio_: Mio, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(mio.cli.runs, "run", fail)
    done = mio_("train", "tiny", "--data", tmp_path, "--json", "-q")
    assert done.code == code == done.documents[0]["error"]["exit_code"]
    assert done.err.startswith("error: ") and "Traceback" not in done.err


def test_a_traceback_needs_v(tmp_path: Path, mio_: Mio) -> None:
    words = ["train", "tiny", "--data", tmp_path / "none"]
    assert "Traceback" not in mio_(*words).err
    assert "Traceback" in mio_("-v", *words).err


def test_a_reader_that_goes_away_is_no_error(mio_: Mio, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("mio.cli.console.print", gone, raising=False)
    assert mio_("recipes", "ls") == Done(0, "", "")


# --------------------------------------------------------------------------------------------- tokenize, detokenize


def test_a_table_of_tokens(model: Path, media: Path, mio_: Mio) -> None:
    done = mio_("tokenize", media / "a.png", media / "b.wav", media / "c.mp4", "--model", model)
    rows = [line.split()[1:] for line in done.out.splitlines()]
    assert done.code == 0
    assert rows[1] == ["image", "1x1x8", "10", "48"]
    assert rows[2] == ["speech", "1x4x25", "102", "500", "204.0/s"]
    assert rows[3] == ["video", "2x1x8", "20", "96", "13.3/s"]


def test_a_line_of_tokens_says_all(model: Path, media: Path, tmp_path: Path, mio_: Mio) -> None:
    out = tmp_path / "out.jsonl"
    done = mio_("tokenize", media / "b.wav", "--json", "-o", out, "--model", model)
    [record] = done.documents
    vocab = load(model).processor.vocab
    assert lines_of(out) == [record]
    assert np.array(record["codes"]).shape == (1, 4, 25)
    assert (record["ids"][0], record["ids"][-1]) == vocab.bounds("speech")
    assert record["tokens"] == len(record["ids"]) == 102  # all four codebooks, with begin and end
    assert (record["seconds"], record["bits"], record["fingerprint"]) == (0.5, 500.0, load(model).processor.fingerprint)


def test_there_and_back(model: Path, media: Path, tmp_path: Path, mio_: Mio) -> None:
    files = [media / name for name in ("a.png", "b.wav", "c.mp4")]
    lines = mio_("tokenize", *files, "--json", "--model", model).out
    done = mio_("detokenize", "-", "-o", tmp_path / "out", "--model", model, stdin=lines)
    assert done.code == 0
    assert done.out.splitlines() == [str(tmp_path / "out" / f.name) for f in files]
    processor, records = load(model).processor, [json.loads(line) for line in lines.splitlines()]
    image, speech, clip = (read(tmp_path / "out" / f.name) for f in files)
    expected = processor.media("image", np.array(records[0]["codes"]))
    assert isinstance(image, Image) and isinstance(expected, Image)
    assert np.array_equal(image.pixels, expected.pixels)
    assert isinstance(speech, Audio) and speech.seconds == records[1]["seconds"]
    assert isinstance(clip, Video) and len(clip.frames) == len(records[2]["codes"])


def test_codes_do_where_ids_are_absent(model: Path, media: Path, tmp_path: Path, mio_: Mio) -> None:
    [record] = mio_("tokenize", media / "a.png", "--json", "--model", model).documents
    whole, bare = json.dumps(record), json.dumps({k: v for k, v in record.items() if k != "ids"})
    done = mio_("detokenize", "-", "-o", tmp_path, "--model", model, "--json", stdin=f"{whole}\n{bare}\n")
    first, second = (Path(d["path"]) for d in done.documents)
    assert (first.name, second.name) == ("a.png", "a-2.png")  # nothing is overwritten
    assert first.read_bytes() == second.read_bytes()


def test_reserved_strings_in_a_text_stay_text(model: Path, tmp_path: Path, mio_: Mio) -> None:
    lines = mio_("tokenize", "--text", "--json", "--model", model, stdin=RESERVED).out
    assert max(json.loads(lines)["ids"]) < load(model).processor.vocab.text_size
    mio_("detokenize", "-", "-o", tmp_path, "--model", model, stdin=lines)
    assert (tmp_path / "text.txt").read_text(encoding="utf-8") == RESERVED


def test_a_bad_file_costs_that_file_only(model: Path, media: Path, mio_: Mio) -> None:
    files = [media / name for name in ("a.png", "bad.png", "none.png", "b.wav")]
    done = mio_("tokenize", *files, "--json", "--model", model)
    assert done.code == 3
    assert [d["file"] for d in done.documents] == [str(f) for f in files]
    assert [d.get("error", {}).get("code") for d in done.documents] == [None, "invalid_data", "missing", None]
    assert done.err.count("error: ") == 2


def test_there_must_be_something_to_tokenize(model: Path, mio_: Mio) -> None:
    assert mio_("tokenize", "--model", model).code == 2
    assert mio_("tokenize", "-", "--model", model).code == 2
    assert mio_("tokenize", "--text", "--model", model).code == 3
    assert mio_("tokenize", "--text", "--model", model, stdin=b"\xff").code == 3


def test_another_vocabulary_is_refused_by_name(model: Path, media: Path, tmp_path: Path, mio_: Mio) -> None:
    [record] = mio_("tokenize", media / "a.png", "--json", "--model", model).documents
    own, record["fingerprint"] = record["fingerprint"], "0123456789abcdef"
    done = mio_("detokenize", "-", "-o", tmp_path / "out", "--model", model, stdin=json.dumps(record))
    assert done.code == 3
    assert "0123456789abcdef" in done.err and own in done.err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"ids": [1, 2, 10**6]},
        {"ids": [-1]},
        {"ids": [10**30]},
        {"ids": []},
        {"ids": "12"},
        {"ids": [[1]]},
        {"ids": [1.5]},
        {"ids": [1]},  # text in an image's line
        {"modality": "smell"},
        {"modality": "speech"},
        {"modality": None},
        {"error": {"code": "invalid_data"}},
        {"ids": None, "codes": [[[1, 2], [3]]]},
    ],
)
def test_a_bad_line_costs_that_line_only(
    change: dict[str, Any], model: Path, media: Path, tmp_path: Path, mio_: Mio
) -> None:
    [record] = mio_("tokenize", media / "a.png", "--json", "--model", model).documents
    broken = {k: v for k, v in (record | change).items() if k == "modality" or v is not None}
    lines = "\n".join([json.dumps(broken), "{not json", "[1]", "", json.dumps(record)])
    done = mio_("detokenize", "-", "-o", tmp_path, "--model", model, "--json", stdin=lines)
    assert done.code == 3
    assert ["error" in d for d in done.documents] == [True, True, True, False]
    assert done.documents[0]["at"] == "standard input:1"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("codes", [[[[1] * 7]], [[[64] * 8]], [[[1] * 8, [1] * 8]], [[1]], [[["a"] * 8]], [[[]]], {}])
def test_codes_that_no_tokenizer_made_are_refused(codes: Any, model: Path, tmp_path: Path, mio_: Mio) -> None:
    fingerprint = load(model).processor.fingerprint
    record = {"file": "x", "modality": "image", "fingerprint": fingerprint, "codes": codes}
    assert mio_("detokenize", "-", "-o", tmp_path, "--model", model, stdin=json.dumps(record)).code == 3


def test_a_name_from_a_line_cannot_leave_the_folder(model: Path, media: Path, tmp_path: Path, mio_: Mio) -> None:
    [record] = mio_("tokenize", media / "a.png", "--json", "--model", model).documents
    names = ["../../evil.png", "/etc/evil", "..", "", "a\0b", "x" * 400, "\ud800", 7, None]
    lines = "\n".join(json.dumps(record | {"file": name}) for name in names)
    out = tmp_path / "deep" / "out"
    done = mio_("detokenize", "-", "-o", out, "--model", model, stdin=lines)
    assert len(list(out.iterdir())) == len(done.out.splitlines()) >= len(names) - 1
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.parent != out] == []


# ------------------------------------------------------------------------------------------------- chat, generate


def test_chat_answers_in_text(model: Path, mio_: Mio) -> None:
    done = mio_("chat", "What?", "--tokens", 5, "--model", model)
    assert done.code == 0 and done.out.endswith("\n")
    assert re.fullmatch(r"peak memory: [\d.]+ [MG]B resident\n", done.err)


@pytest.mark.parametrize(("kind", "suffix"), [("image", "png"), ("speech", "wav"), ("video", "mp4")])
def test_chat_answers_in_media(kind: str, suffix: str, model: Path, tmp_path: Path, mio_: Mio) -> None:
    words = ["chat", "Draw.", "--out", kind, "--tokens", 60, "--save", tmp_path, "--model", model]
    assert mio_(*words).out == f"{tmp_path / f'reply-1-0.{suffix}'}\n"
    [document] = mio_(*words, "--json").documents
    assert document["parts"] == [{"type": kind, "file": str(tmp_path / f"reply-2-0.{suffix}")}]
    assert document.keys() == {"parts", "text", "ids", "tokens", "seconds", "faults", "peak_bytes"}
    assert document["tokens"] == len(document["ids"])
    assert document["peak_bytes"]["resident"] > 10**8  # torch alone takes more
    assert read(tmp_path / f"reply-1-0.{suffix}")


def test_chat_takes_attachments_stdin_and_systems(model: Path, media: Path, mio_: Mio) -> None:
    common = ["--tokens", 3, "--json", "--model", model]
    asked = [
        mio_("chat", "What?", "-a", media / "a.png", "-a", media / "b.wav", *common),
        mio_("chat", "-a", media / "c.mp4", *common),
        mio_("chat", "-", *common, stdin="What?\n"),
        mio_("chat", *common, stdin="What?\n"),
        mio_("chat", "What?", "--system", "voice", *common),
        mio_("chat", "What?", "--system", "Be brief.", *common),
    ]
    assert [done.code for done in asked] == [0] * len(asked)
    assert asked[2].documents[0]["ids"] == asked[3].documents[0]["ids"]


def test_seed_and_temperature_decide_the_answer(model: Path, mio_: Mio) -> None:
    def ids(*words: object) -> list[int]:
        done = mio_("chat", "Hello", "--tokens", 20, "--json", "--model", model, *words)
        return list(done.documents[0]["ids"])

    assert ids("--seed", 1) == ids("--seed", 2)  # text is greedy by default
    assert ids("--temperature", 1, "--seed", 1) == ids("--temperature", 1, "--seed", 1)
    assert ids("--temperature", 1, "--seed", 1) != ids("--temperature", 1, "--seed", 2)


@pytest.mark.parametrize("command", ["chat", "generate"])
@pytest.mark.parametrize(
    ("words", "dtype", "layers"),
    [
        (["--dtype", "bf16"], torch.bfloat16, nn.Linear),
        (["--dtype", "fp16"], torch.float16, nn.Linear),
        (["--bits", 4], torch.float32, Int4Linear),
        (["--bits", 8, "--dtype", "bf16"], torch.bfloat16, Int8Linear),
    ],
)
def test_weights_are_held_as_told(
    command: str, words: list[Any], dtype: torch.dtype, layers: type, mio_: Mio, model: Path, tmp_path: Path
) -> None:
    held: list[Model] = []

    def kept(*args: Any) -> Model:
        held.append(open_model(*args))
        return held[-1]

    line = ["chat", "Hi", "--tokens", 2] if command == "chat" else ["generate", "-", "-o", tmp_path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mio.cli.talk.open_model", kept)
        done = mio_(*line, "--model", model, *words, stdin='{"prompt": "Hi", "tokens": 2}')
    assert (done.code, len(held)) == (0, 1)
    assert {p.dtype for p in held[0].backbone.parameters()} == {dtype}
    inner = held[0].backbone.model.modules()
    assert {type(m) for m in inner if isinstance(m, nn.Linear | QuantizedLinear)} == {layers}


def test_no_other_bits_are_carried(mio_: Mio) -> None:
    assert mio_("chat", "Hello", "--bits", 5).code == 2


def test_reserved_strings_in_a_prompt_stay_text(model: Path, mio_: Mio) -> None:
    done = mio_("chat", RESERVED, "--system", RESERVED, "--tokens", 3, "--model", model)
    assert done.code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["", "--tokens", "3"], 2),
        (["Hi", "--out", "smell"], 2),
        (["Hi", "--out", "image", "--tokens", "2"], 2),
        (["Hi " * 600], 2),
        (["Hi", "-a", "none.png"], 4),
    ],
)
def test_what_chat_cannot_answer(words: list[str], code: int, model: Path, mio_: Mio) -> None:
    done = mio_("chat", *words, "--json", "--model", model)
    assert (done.code, done.documents[0]["error"]["exit_code"]) == (code, code)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_talk_goes_on_over_errors(
    model: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["Hello", "/attach nowhere.png", f"/attach {media / 'a.png'}", "", "What?", "/out image", "Draw."]
    monkeypatch.setattr("sys.stdin", Terminal("\n".join([*typed, "/release", "/help", "/quit", "never"])))
    code = main(["chat", "--json", "--tokens", "30", "--save", str(tmp_path), "--model", str(model)])
    out, err = capsys.readouterr()
    documents = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err.count(HELP) == 2 and "peak memory: " in err
    assert ["error" in d for d in documents] == [False, True, False, False]
    assert documents[-1]["parts"][0]["file"] == str(tmp_path / "reply-1-0.png")


def prompts(folder: Path, media: Path) -> Path:
    lines: list[Any] = [
        {"id": "hello", "prompt": "Hello", "tokens": 3},
        {"prompt": "Draw.", "out": "image", "seed": 4},
        {"id": "../look", "prompt": "Again.", "out": "image", "attachments": ["a.png"]},
        {"id": "far", "prompt": "What?", "attachments": ["none.png"]},
        {"id": "odd", "promt": "What?"},
        {"id": "hello", "prompt": "Twice"},
    ]
    path = folder / "in.jsonl"
    path.write_text("\n".join([*map(json.dumps, lines), "{broken", ""]), encoding="utf-8")
    (folder / "a.png").write_bytes((media / "a.png").read_bytes())
    return path


def test_generate_answers_every_line_once(model: Path, media: Path, tmp_path: Path, mio_: Mio) -> None:
    source, out = prompts(tmp_path, media), tmp_path / "out"
    done = mio_("generate", source, "-o", out, "--model", model, "--json")
    results = lines_of(out / "results.jsonl")
    assert done.code == 3
    (summary,) = done.documents
    spent = [summary.pop(out) for out in ("text", "image")]
    assert summary.pop("peak_bytes")["resident"] > 10**8
    assert summary == {"results": str(out / "results.jsonl"), "done": 3, "failed": 4, "skipped": 0}
    ids = [sum(r["tokens"] for r in results[:1]), sum(r["tokens"] for r in results[1:3])]
    assert [line.split(" s, ")[0].rsplit(", ", 1)[0] for line in spent] == [
        f"1 answers, {ids[0]} ids",
        f"2 answers, {ids[1]} ids",
    ]
    assert all(line.endswith(" ids/s") for line in spent)
    assert [r["id"] for r in results] == ["hello", "2", "../look", "far", "odd", "hello", "7"]
    assert ["error" in r for r in results] == [False] * 3 + [True] * 4
    assert "Did you mean 'prompt'?" in done.err and "in.jsonl:7" in done.err
    assert [Path(p["file"]).name for r in results[1:3] for p in r["parts"]] == ["2-0.png", "_look-0.png"]


def test_generate_goes_on_where_it_was(model: Path, media: Path, tmp_path: Path, mio_: Mio) -> None:
    source, out = prompts(tmp_path, media), tmp_path / "out"
    mio_("generate", source, "-o", out, "--model", model)
    first = lines_of(out / "results.jsonl")
    with (out / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "far", "te')  # a kill cut this line short
    (tmp_path / "none.png").write_bytes((media / "a.png").read_bytes())
    done = mio_("generate", source, "-o", out, "--model", model, "--json")
    second = lines_of(out / "results.jsonl")
    assert (done.documents[0]["done"], done.documents[0]["failed"], done.documents[0]["skipped"]) == (1, 2, 4)
    assert second[:3] == first[:3]
    assert [(r["id"], "error" in r) for r in second[3:]] == [("far", False), ("odd", True), ("7", True)]


def test_generate_reads_standard_input(model: Path, tmp_path: Path, mio_: Mio) -> None:
    done = mio_("generate", "-", "-o", tmp_path, "--model", model, stdin='{"prompt": "Hi", "tokens": 2}')
    assert done.code == 0
    assert lines_of(tmp_path / "results.jsonl")[0]["tokens"] <= 2


def test_texts_take_the_shape_that_is_asked_for(model: Path, tmp_path: Path, mio_: Mio) -> None:
    schema, common = tmp_path / "answer.json", ["--tokens", 40, "--json", "--model", model]
    schema.write_text('{"type": "array", "items": {"type": "boolean"}}', encoding="utf-8")
    listed = mio_("chat", "What?", "--schema", schema, *common).documents[0]["text"]
    assert isinstance(json.loads(str(listed)), list)
    assert re.fullmatch(
        "(yes|no){1,3}", str(mio_("chat", "What?", "--regex", "(yes|no){1,3}", *common).documents[0]["text"])
    )
    assert "Leave one of them out" in mio_("chat", "What?", "--schema", schema, "--regex", "a", *common).err
    lines = [
        {"prompt": "Hi", "schema": {"type": "null"}},
        {"prompt": "Hi", "regex": "[0-9]{4}"},
        {"prompt": "Hi", "regex": "("},
    ]
    done = mio_("generate", "-", "-o", tmp_path, "--model", model, stdin="\n".join(map(json.dumps, lines)))
    null, number, odd = lines_of(tmp_path / "results.jsonl")
    assert (done.code, null["text"], len(number["text"])) == (3, "null", 4)
    assert "cannot be given this shape" in odd["error"]["message"]


# ------------------------------------------------------------------------------------------ recipes, train and data


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "text").mkdir(parents=True)
    line = json.dumps({"id": "1", "text": "Once upon a time there was a cat on a mat."})
    (folder / "text" / "stories.jsonl").write_text(line + "\n", encoding="utf-8")
    return folder


def test_recipes_are_listed_and_printed(mio_: Mio, tmp_path: Path) -> None:
    assert mio_("recipes", "ls").out.count("tiny ")
    assert {row["name"] for row in mio_("recipes", "ls", "--json").documents[0]} >= {"tiny", "mio"}
    path = tmp_path / "mine.yaml"
    path.write_text(mio_("recipes", "cat", "tiny").out, encoding="utf-8")
    assert mio.cli.runs.find_recipe(str(path)) == tiny()
    assert mio_("recipes", "cat", path, "--json").documents == mio_("recipes", "cat", "tiny", "--json").documents


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["tny"], "Did you mean 'tiny'?"),
        (["tiny", "--set", "txt.size=3"], "Did you mean 'text'?"),
        (["tiny", "--set", "text.size"], "path.to.field=value"),
        (["tiny", "--only", "texts"], "Did you mean 'text'?"),
    ],
)
def test_a_wrong_recipe_field_or_stage(words: list[str], fix: str, corpus: Path, mio_: Mio) -> None:
    done = mio_("train", *words, "--data", corpus, "--out", corpus.parent / "run")
    assert done.code == 2
    assert fix in done.err.splitlines()[-1]


def test_train_runs_stages_with_changes(corpus: Path, mio_: Mio, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", "tiny", "--data", corpus, "--out", out, "--only", "text", "--set", "text.size=260"]
    assert mio_(*words).out == f"{out}\n"
    [document] = mio_(*words, "--json").documents
    assert (document["run"], document["stages"]) == (str(out), ["text"])
    [seen] = mio_("inspect", out, "--json").documents
    assert (seen["kind"], seen["recipe"], seen["stages"]) == ("run", "tiny", ["text"])


def test_prepare_stops_before_the_model(tmp_path: Path, mio_: Mio, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[tuple[str, ...]] = []

    def note(job: Run, only: tuple[str, ...]) -> None:
        stages.append(only)

    monkeypatch.setattr(mio.cli.runs, "run", note)
    done = mio_("data", "prepare", "tiny", "--data", tmp_path, "--out", tmp_path, "--json")
    assert (done.code, done.documents[0]["stages"]) == (0, [])
    assert stages == [("text", "align", "image", "teacher", "speech", "prepare")]


def test_a_missing_corpus_says_what_to_pass(mio_: Mio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mio_("train", "tiny", "--data", tmp_path / "none").code == 4
    monkeypatch.setattr(mio.cli.runs, "files", lambda _: tmp_path)
    done = mio_("train", "tiny")
    assert done.code == 4
    assert "sample" in done.err and "--data" in done.err


@pytest.fixture
def store(model: Path, tmp_path: Path) -> Path:
    """Four samples of two tasks."""
    processor, pixels = load(model).processor, np.zeros((16, 16, 3), np.uint8)
    sequence = processor.sequence(Document((Text("A picture: "), Image(pixels), Text(" of night."))))
    records = [Record(sequence, f"sample{n}", f"task{n % 2}", "made") for n in range(4)]
    write_store(tmp_path / "store", records, processor.fingerprint)
    return tmp_path / "store"


def test_samples_of_a_store_are_readable(store: Path, model: Path, mio_: Mio) -> None:
    done = mio_("data", "show", store, "-n", 2, "--json", "--model", model)
    assert [d["id"] for d in done.documents] == ["sample0", "sample3"]
    assert done.documents[0]["text"] == "<|startoftext|>A picture: <image…8 codes> of night.<|endoftext|>"
    assert "task1" in mio_("data", "show", store, "-n", 9, "--model", model).out


def test_a_store_in_a_run_is_read_with_that_run(store: Path, mio_: Mio, tmp_path: Path) -> None:
    run = fabricate_parts(tmp_path / "run")
    write_json(run / "recipe.json", to_dict(replace(tiny(), rows=ROWS, systems=SYSTEMS, frames=2)))
    (run / "prepare").mkdir()
    store.rename(run / "prepare" / "pretrain")
    done = mio_("data", "show", run / "prepare" / "pretrain")
    assert done.code == 0
    assert "<image…8 codes> of night." in done.out


def test_a_store_of_another_vocabulary_is_refused(store: Path, mio_: Mio, tmp_path: Path) -> None:
    config = json.loads((store / "config.json").read_text(encoding="utf-8"))
    write_json(store / "config.json", config | {"fingerprint": "0123456789abcdef"})
    done = mio_("data", "show", store, "--model", fabricate_model(tmp_path / "model"))
    assert done.code == 3 and "0123456789abcdef" in done.err


# ----------------------------------------------------------------------------------------- inspect, doctor and demo


def test_inspect_explains_each_kind(model: Path, media: Path, store: Path, mio_: Mio) -> None:
    def facts(path: object) -> dict[str, Any]:
        [document] = mio_("inspect", path, "--json").documents
        assert isinstance(document, dict)
        return document

    processor = load(model).processor
    seen = facts(model)
    assert (seen["kind"], seen["name"], seen["intact"]) == ("model", "fabricated", "yes")
    assert (seen["fingerprint"], seen["ids"]) == (processor.fingerprint, len(processor.vocab))
    assert seen["parameters"] == sum(seen["parts"].values()) and seen["dtypes"]["backbone"] == "BF16"
    assert facts(store)["tasks"] == {"task0": 2, "task1": 2}
    assert facts(media / "a.png") | {"bytes": 0} == {"kind": "image", "width": 24, "height": 20, "bytes": 0}
    assert facts(media / "b.wav")["seconds"] == 0.5
    assert facts(media / "c.mp4")["frames"] == 6
    assert facts("tiny")["kind"] == "recipe"


@pytest.mark.parametrize(("name", "code"), [("none", 4), ("tinny", 4), ("bad.png", 3), (".", 3)])
def test_inspect_refuses_what_is_none_of_ours(name: str, code: int, media: Path, mio_: Mio) -> None:
    assert mio_("inspect", media / name).code == code


def test_inspect_tells_a_damaged_model(tmp_path: Path, mio_: Mio) -> None:
    folder = fabricate_model(tmp_path / "model")
    (folder / "README.md").write_text("changed", encoding="utf-8")
    assert mio_("inspect", folder, "--json").documents[0]["intact"] == "no: README.md is damaged."
    assert mio_("doctor", "--model", folder).code == 4


def test_doctor_is_content_with_a_whole_model(model: Path, mio_: Mio) -> None:
    done = mio_("doctor", "--json", "--model", model)
    [document] = done.documents
    states = {check["name"]: check["state"] for check in document["checks"]}
    assert states["model"] == states["images"] == states["python"] == "ok"
    assert (done.code == 0) == document["ok"]


def test_doctor_names_a_fix_for_what_is_missing(tmp_path: Path, mio_: Mio) -> None:
    done = mio_("doctor", "--model", tmp_path)
    assert done.code == 4
    assert "fail  model" in done.out and "fix: Train it" in done.out


def test_demo_prints_where_its_page_is(tmp_path: Path, mio_: Mio, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = importlib.import_module("mio.demo")
    monkeypatch.setattr(demo, "run", lambda out, model, small: out / f"index-{model}-{small}.html")
    words = ["demo", "--out", tmp_path, "--small"]
    assert mio_(*words).out == f"{tmp_path / 'index-None-True.html'}\n"
    assert mio_(*words, "--json").documents == [{"page": str(tmp_path / "index-None-True.html")}]
