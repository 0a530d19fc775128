"""Programs for those who work on the package: the mutation tester, the compilation of the CUDA kernels."""
