"""What bench/gpu_suite.sh measures: kernels and rounds on a GPU, each against its floor and beside torch's own way."""
