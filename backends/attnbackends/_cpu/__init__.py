"""NumPy: threads over BLAS, products in parts, keys laid out for them, the LSTM, the allocator."""
