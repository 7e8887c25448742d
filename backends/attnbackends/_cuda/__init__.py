"""CuPy: products, launches, attention, the LSTM, cuDNN, and the kernels."""
