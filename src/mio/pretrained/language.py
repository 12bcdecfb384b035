"""The released MIO-7B's language side: ids from its own strings, and where its answers end.

The published script finds ids by strings, too; the order of its 12,288 codes is in no public text, so none is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mio.checkpoint import CONFIG, read_json
from mio.pretrained.fill import need
from mio.tokenizers.sentencepiece import CONTROLS, SentencePieceTokenizer
from mio.types import DataError, Modality
from mio.vocab import Vocabulary

TEXT, NAMES, GENERATION = "tokenizer.model", "tokenizer_config.json", "generation_config.json"
FILES = {CONFIG: "2 kB", TEXT: "1 MB", NAMES: "2 MB"}
IMAGE_CODES, SPEECH_CODES, LEVELS, QUERIES = 8192, 4096, 4, 32  # of MIO
END_OF_TEXT, END_OF_TURN = 2, 7  # of Yi: <|endoftext|>, <|im_end|>


def read_vocabulary(folder: Path) -> Vocabulary:
    """The folder's ids: pieces of its tokenizer.model, then its added tokens, in whatever order these are.

    Raises:
        MissingError: a file is absent. DataError: a code or begin token is missing, there twice, or has an id that
        belongs to another token; it is named.
    """
    return read_language(folder)[1]


def read_language(folder: Path) -> tuple[SentencePieceTokenizer, Vocabulary]:
    """The text tokenizer, to which names of added tokens are text, and the vocabulary. Errors as `read_vocabulary`."""
    need(folder, FILES, "the language model")
    config, added = _config(folder / CONFIG), _added(folder / NAMES)
    text = SentencePieceTokenizer.load(folder / TEXT, {*CONTROLS, *added.values()})
    tokens = _tokens([piece.text for piece in text.pieces], added, config, folder)
    vocab = Vocabulary(tokens, text.size, rows(config))
    _ = vocab.control_ids, [vocab.bounds(row.name) for row in vocab.rows]  # complain now where one is missing
    return text, vocab


def _config(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path.name} is not a JSON object.", at=str(path))
    return found


def rows(config: Mapping[str, Any]) -> tuple[Modality, ...]:
    """MIO's modalities; the numbers of codes are those of config.json, where it has them."""
    images, sounds = (
        _whole(config, f"{kind}_vocab_size", usual)
        for kind, usual in (("visual", IMAGE_CODES), ("speech", SPEECH_CODES))
    )
    if sounds % LEVELS:
        raise DataError(f"{sounds} speech codes are not {LEVELS} codebooks.", at=CONFIG)
    return (
        Modality("image", 1, images, QUERIES, "<image>", "</image>", "<img{}>"),
        Modality("speech", LEVELS, sounds // LEVELS, 0, "<spch>", "</spch>", "<spch{}>", "content", rate=50.0),
        Modality("video", spans_of="image", rate=1.0),
    )


def _whole(config: Mapping[str, Any], key: str, usual: int) -> int:
    value = config.get(key, usual)
    if type(value) is not int or value < 1:
        raise DataError(f"{key} must be a whole number above zero, got {value!r}.", at=CONFIG)
    return value


def _added(path: Path) -> dict[int, str]:
    """Added tokens by id."""
    names = read_json(path)
    try:
        pairs = [(int(id), str(token["content"])) for id, token in names["added_tokens_decoder"].items()]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path.name} has no added_tokens_decoder from ids to tokens.", at=str(path)) from error
    found = dict(pairs)
    for id, token in pairs:
        if found[id] != token:
            raise DataError(f"Id {id} is both {token!r} and {found[id]!r}.", at=str(path))
    return found


def _tokens(pieces: list[str], added: Mapping[int, str], config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Every id's token; ids that nothing was said of have names of their own."""
    size = _whole(config, "vocab_size", 0)
    if _whole(config, "text_vocab_size", len(pieces)) != len(pieces):
        what = f"{TEXT} has {len(pieces)} pieces, not {config['text_vocab_size']}"
        raise DataError(f"{what}: it is another model's.", at=str(folder))
    tokens = [*pieces, *(f"<unused {id}>" for id in range(len(pieces), size))]
    for id, token in added.items():
        if not 0 <= id < size:
            raise DataError(f"Token {token!r} has id {id}, and the model {size} ids.", at=str(folder))
        if id < len(pieces) and token != pieces[id]:
            raise DataError(f"Token {token!r} has id {id}, which is the text piece {pieces[id]!r}.", at=str(folder))
        tokens[id] = token
    return tuple(tokens)


def stop_token(source: Path | str) -> int:
    """Id at which answers end: 7 (<|im_end|>) for Instruct, 2 (<|endoftext|>) for Base. `source`: a folder, or an id.

    A generation_config.json or config.json that names 7 decides. That they name 2 says nothing, since that is Yi's own
    end. Then the path decides, as in the published script: of its parts, the last one with "instruct", "chat" or "base"
    in it; without any, it is Base.
    """
    folder = Path(source)
    if any(END_OF_TURN in _ends(folder / name) for name in (GENERATION, CONFIG)):
        return END_OF_TURN
    words = (found for part in reversed(folder.parts) for found in re.findall("instruct|chat|base", part.lower()))
    return END_OF_TEXT if next(words, "base") == "base" else END_OF_TURN


def _ends(path: Path) -> list[Any]:
    found = _config(path).get("eos_token_id") if path.is_file() else None
    return found if isinstance(found, list) else [found]
