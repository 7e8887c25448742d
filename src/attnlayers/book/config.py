"""The book's switch: whether new arrays live on a CUDA device.

Read once, when `np` of this package is first imported; a script may set it before that.
"""

from attnbackends import backend

GPU: bool = backend.name == "cupy"
