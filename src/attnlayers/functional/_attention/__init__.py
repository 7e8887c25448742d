"""Attention: `pair` has the public functions, `plain` is the page to read first.

A call goes from `pair` through `layout` (shapes), `positions` and `visibility` (what is hidden), `problem` (all that is
known, once) and `blocks` (how the work is cut) to `dense` (keeps weights) or `tiled` (makes them again).
"""

from .pair import KEEP_BYTES, attention, attention_backward
from .weights import attention_weights, attention_weights_backward

__all__ = ["KEEP_BYTES", "attention", "attention_backward", "attention_weights", "attention_weights_backward"]
