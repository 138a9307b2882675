/* fake_driver.c - a libcuda.so.1 that supports CUDA FAKE_CUDA and finds no GPU: for machines as they may be met. */

int cuDriverGetVersion(int *version);
int cuInit(unsigned flags);

int cuDriverGetVersion(int *version) { return *version = FAKE_CUDA, 0; }
int cuInit(unsigned flags) { return (void)flags, 100; }                /* CUDA_ERROR_NO_DEVICE */
