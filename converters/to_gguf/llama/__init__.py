"""llama.cpp in a process of its own: the library, what serves it, and who asks."""
