"""Masks and biases as kernels read them: by entry, with nothing copied for each of those that share one."""

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attnbackends import get_backend
from attnlayers.functional._attention.masks import Mask


@given(st.data())
def test_every_entry_has_its_own(data: st.DataObject) -> None:
    lead = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    own = tuple(data.draw(st.sampled_from([1, length])) for length in lead)
    groups, T_q, T_k = (data.draw(st.integers(1, 3)) for _ in range(3))
    shape = tuple(data.draw(st.sampled_from([1, length])) for length in (T_q, T_k))
    own_heads = own[-1] * groups if own[-1] == lead[-1] and data.draw(st.booleans()) else 1
    given_bias = np.arange(1.0, 1 + prod(own[:-1]) * own_heads * prod(shape)).reshape(*own[:-1], own_heads, *shape)
    mask = Mask.from_shape(get_backend("numpy"), given_bias, lead, groups, T_q, boolean=False)
    full = np.broadcast_to(given_bias, (*lead[:-1], lead[-1] * groups, T_q, T_k)).reshape(-1, groups * T_q, T_k)
    array, each = mask.by_entry()
    rows = array.shape[1]
    for b in range(prod(lead)):
        for row in range(groups * T_q):
            np.testing.assert_array_equal(
                np.broadcast_to(array[b // each % len(array), row % rows], (T_k,)), full[b, row]
            )
    apart = [i for i, length in enumerate(mask.own) if length > 1]
    between = range(apart[0], apart[-1]) if apart else ()
    if all(mask.own[i] == lead[i] for i in between):
        assert len(array) == len(mask.array), "copied for entries that share it"
