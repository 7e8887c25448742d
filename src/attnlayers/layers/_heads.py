"""Between features side by side and features of heads."""

from attnbackends import Array, backend_of


def check_heads(Wq: Array, Wk: Array, Wv: Array, Wo: Array, heads: int, key_heads: int) -> None:
    """Hold the widths of four projections against the numbers of heads."""
    if heads < 1 or key_heads < 1 or heads % key_heads:
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


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes that `shape` was broadcast along."""
    xp = backend_of(x).xp
    padded = (1,) * (x.ndim - len(shape)) + shape
    axes = tuple(i for i, (n, own) in enumerate(zip(x.shape, padded, strict=True)) if own == 1 and n > 1)
    return xp.reshape(xp.sum(x, axis=axes, keepdims=True) if axes else x, shape)


def one_mask(mask: Array | None, bias: Array | None, k: Array, v: Array) -> tuple[Array | None, Array, Array]:
    """A mask (N, T_k) and a bias as one mask of `attention`, and keys and values (N, heads, T_k, ·) to go with it."""
    if mask is None:
        return bias, k, v
    backend = backend_of(mask)
    xp = backend.xp
    keys = mask[:, None, None, :]  # (N, T_k) -> (N, 1, 1, T_k)
    if bias is None:
        return keys, k, v
    if backend.is_dtype(bias.dtype, "bool"):
        return keys & bias, k, v
    # Only a boolean mask keeps what it leaves out from being read.
    k, v = (xp.where(mask[:, None, :, None], x, backend.zero(like=x)) for x in (k, v))
    return xp.where(keys, bias, xp.full_like(bias[..., :1, :1], -xp.inf)), k, v
