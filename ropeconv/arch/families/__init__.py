"""Model families, one a module, each declaring ARCH."""
