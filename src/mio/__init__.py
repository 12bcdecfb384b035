"""Any-to-any foundation models on multimodal tokens. Lazy: `import mio` loads neither torch nor numpy."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mio.pipeline import Model, Regex, Reply, Schema, assistant, attachment, audio, image, load, user, video

    __version__: str
else:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("mio")
        if name in __all__:
            import mio.pipeline as pipeline

            return vars(pipeline)[name]
        raise AttributeError(f"module 'mio' has no attribute {name!r}")


__all__ = [
    "Model",
    "Regex",
    "Reply",
    "Schema",
    "__version__",
    "assistant",
    "attachment",
    "audio",
    "image",
    "load",
    "user",
    "video",
]


def __dir__() -> list[str]:
    return __all__
