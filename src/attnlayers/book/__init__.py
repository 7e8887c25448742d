"""Drop-in for the `common` package of "Deep Learning from Scratch 2", and for its `ch08.attention_layer`.

``python -m attnlayers.book ch08/train.py`` runs a script of the book as it is. In a notebook ``%load_ext
attnlayers.book`` does the same for cells, and in plain Python ``attnlayers.book.use()``. ``from attnlayers.book.layers
import *`` and its like serve those who edit. Modules and names are the book's; the maths is the library's.
"""

from ._session import Session, load_ipython_extension, stop, unload_ipython_extension, use

__all__ = ["Session", "load_ipython_extension", "stop", "unload_ipython_extension", "use"]
