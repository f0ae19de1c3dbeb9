"""Mistral with a window, which its own architecture, llama, has no place for."""

from converters.to_gguf.archs._arch import Guest

ARCH = Guest(name="mistral", families=("mistral",), on_request=("granite_swa",))
