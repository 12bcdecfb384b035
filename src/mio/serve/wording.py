"""How a model has learned to be asked, for endpoints that say what is wanted without words."""

from __future__ import annotations

from dataclasses import dataclass

from mio.pipeline import Model
from mio.sequence import INSTRUCT_PROMPTS


@dataclass(frozen=True)
class Wording:
    """Each takes what stands at {}; `voiced` follows a sentence."""

    draw: str
    film: str
    say: str
    hear: str
    voiced: str = ""
    voices: tuple[str, ...] = ()

    def ask(self, template: str, words: str) -> str:
        """A whole sentence is asked as it is; anything else is put into the template."""
        return words if words.rstrip().endswith((".", "?", "!")) else template.replace("{}", words.strip())

    def say_as(self, words: str, voice: str) -> str:
        return self.in_voice(self.say.replace("{}", words.strip().rstrip(".")), voice)

    def in_voice(self, sentence: str, voice: str) -> str:
        """The sentence with a voice named, unless it names one already."""
        named = self.voiced.replace("{}", voice)
        plain = voice not in self.voices or self.voiced.replace("{}", "") in sentence
        return sentence if plain else f"{sentence.rstrip().rstrip('.')}{named}."


SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")  # of the free spoken digits (FSDD)
OWN = Wording("Draw {}.", "Film {}.", "Say {}.", "What is said?", " in the voice of {}", SPEAKERS)
RELEASED = Wording(
    INSTRUCT_PROMPTS["image"].replace("{0}", "{}"),
    INSTRUCT_PROMPTS["video"].replace("{0}", "{}"),
    INSTRUCT_PROMPTS["tts"].replace("{0}", "{}"),
    INSTRUCT_PROMPTS["asr"].replace("{0}", "").strip(),
)


def wording_of(model: Model) -> Wording:
    """Models with a decoding profile are released ones."""
    return RELEASED if model.config.profile else OWN
