// All kernels, compiled as one.
#include "attention.cu"
#include "conv.cu"
#include "heads.cu"
#include "image.cu"
#include "rows.cu"
