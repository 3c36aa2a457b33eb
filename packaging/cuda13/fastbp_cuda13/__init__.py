"""The folder of libfastbp_cuda.so; fastbp finds it here without importing this module."""
