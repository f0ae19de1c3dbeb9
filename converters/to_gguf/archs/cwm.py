"""Code World Model: has no architecture; its windows have a place in Granite's with windows."""

from converters.to_gguf.archs._arch import Guest

ARCH = Guest(name="cwm", families=("cwm",), on_request=("granite_swa",))
