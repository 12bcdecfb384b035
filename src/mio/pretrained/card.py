"""The card of an exported folder: how to use it without our code, and where it differs from use with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mio.pretrained.inventory import front_matter
from mio.pretrained.proof import Proof
from mio.pretrained.stock import Outgoing

CARD = """\
# {name}, for stock transformers

Exported from a `mio` model. It loads without any code of ours:

```python
from transformers import AutoModelForCausalLM, {kind}

tokenizer = {kind}.from_pretrained("DIR")
model = AutoModelForCausalLM.from_pretrained("DIR")
messages = [{{"role": "user", "content": "Hello"}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))
```

Media are tokens here. Their tokenizers lie beside the model ({tokenizers}) in their own formats; `mio tokenize` and
`mio detokenize` turn files into codes and back.

| modality | begin, end | codes | ids |
| --- | --- | --- | --- |
{rows}

## Other than with mio

- **Strings can reach reserved ids.** A stock tokenizer turns `{im_end}` or `{code}` in a user's text into that token;
  mio's has text ids only. `split_special_tokens=True` spares special tokens, but not codes. For text you do not trust,
  take a `tokenizers.Tokenizer` made from tokenizer.json with `added_tokens` emptied: it has text ids only.
- **Nothing constrains the output.** mio's grammar lets through only spans that decode; here any id may follow any.
- **Sampling** in generation_config.json is the one for text; pictures and speech want their own.
- **An assistant turn that begins with white space** may be cut into other tokens: mio encodes the header of the turn
  and the answer apart, as they come when generating.
- **The character U+2581** (a low block) in a text is a space to a stock tokenizer made from SentencePiece.

## Checked when it was written

{checks}
"""


def card(outgoing: Outgoing, proof: Proof) -> str:
    """README.md: what the model's own card says of licence and contents follows ours."""
    own = outgoing.folder / "README.md"
    about = front_matter(own) | {"library_name": "transformers", "pipeline_tag": "text-generation"}
    vocab = outgoing.vocab
    words = {
        "name": outgoing.name,
        "tokenizers": ", ".join(f"`{path.name}/`" for path in outgoing.tokenizers) or "none",
        "rows": "\n".join(_rows(outgoing)),
        "im_end": vocab.specials.im_end,
        "code": vocab.tokens[min(outgoing.code_ids, default=0)],
        "kind": proof.tokenizer,
        "checks": checks(proof),
    }
    head = f"---\n{yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}---\n\n"
    return head + CARD.format(**words) + _contents(own)


def _rows(outgoing: Outgoing) -> list[str]:
    vocab, out = outgoing.vocab, []
    for row in vocab.rows:
        if row.size:
            ids, text = vocab.level_ids(row.name), row.code.format("N")
            how = f"{row.codebooks} x {row.codebook_size}, in {row.output_layout} order"
            out.append(f"| {row.name} | `{row.begin}` `{row.end}` | `{text}`, {how} | {ids.min()} - {ids.max()} |")
    return out


def checks(proof: Proof) -> str:
    """The proof in words."""
    exact = "bit for bit the model's own" if proof.lossless else f"the model's own, rounded to {proof.dtype}"
    weights = f"{proof.tensors} tensors in {proof.dtype}, {exact}."
    if proof.difference is None:
        return f"{weights} transformers was not installed or not asked, so it has not loaded the folder."
    logits = f"logits differ by at most {proof.difference:.2g} (the largest is {proof.scale:.3g})"
    return f"{weights} Loaded with transformers, {logits}, and {proof.texts} texts and conversations gave equal ids."


def _contents(own: Path) -> str:
    """The model's own card without its front matter, under a line."""
    text = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else ""
    return re.sub(r"\A(---\n.*?\n---\n+)?", "\n---\n\n", text, flags=re.DOTALL) if text else ""


def describe(proof: Proof) -> dict[str, Any]:
    """The proof as --json gives it."""
    return {
        "dtype": proof.dtype,
        "tensors": proof.tensors,
        "lossless": proof.lossless,
        "largest difference of logits": proof.difference,
        "largest logit": proof.scale or None,
        "equal texts": proof.texts,
        "tokenizer": proof.tokenizer,
    }
