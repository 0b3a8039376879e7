// Marks a function that host and device code share; plain C++ compilers see nothing.
#pragma once

#ifdef __CUDACC__
#define EAGLE_HOST_DEVICE __host__ __device__
#else
#define EAGLE_HOST_DEVICE
#endif
