"""A plug-in whose import fails."""

raise OSError("libfast.so.3: cannot open shared object file")
