"""Ministral 8B: has no architecture; its windows have a place in Granite's with windows."""

from converters.to_gguf.archs._arch import Guest

ARCH = Guest(name="ministral", families=("ministral",), on_request=("granite_swa",))
