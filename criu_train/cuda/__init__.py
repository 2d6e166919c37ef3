"""GPU memory of CUDA processes: moved to main memory before a dump, and back after it or after a restore."""
