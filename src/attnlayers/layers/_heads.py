"""Between features side by side and features of heads."""

from attnbackends import Array, backend_of


def check_heads(Wq: Array, Wk: Array, Wv: Array, Wo: Array, heads: int, key_heads: int) -> None:
    """Hold the widths of four projections against the numbers of heads."""
    if heads % key_heads:
        raise ValueError(f"`heads` must be a multiple of `key_heads`, both 1 or more, got {heads} and {key_heads}")
    for name, W, count in (("Wq", Wq, heads), ("Wk", Wk, key_heads), ("Wv", Wv, key_heads)):
        if W.shape[1] % count:
            raise ValueError(f"the columns of `{name}` must be a multiple of its {count} heads, got {W.shape[1]}")
    sizes = Wq.shape[1] // heads, Wk.shape[1] // key_heads, Wv.shape[1] // key_heads
    if sizes[0] != sizes[1]:
        raise ValueError(f"heads of queries and keys must have one size, got {sizes[0]} in Wq and {sizes[1]} in Wk")
    if Wo.shape[0] != heads * sizes[2]:
        raise ValueError(f"`Wo` must have heads * D_value = {heads * sizes[2]} rows, got {Wo.shape[0]}")


def split(x: Array, heads: int) -> Array:
    """(N, T, heads * D) -> (N, heads, T, D)."""
    N, T, width = x.shape
    xp = backend_of(x).xp
    return xp.permute_dims(xp.reshape(x, (N, T, heads, width // heads)), (0, 2, 1, 3))


def merge(x: Array) -> Array:
    """(N, heads, T, D) -> (N, T, heads * D)."""
    N, heads, T, D = x.shape
    xp = backend_of(x).xp
    return xp.reshape(xp.permute_dims(x, (0, 2, 1, 3)), (N, T, heads * D))
