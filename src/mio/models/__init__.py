"""Networks of the language model and the media decoders. Tensors in, tensors out."""
