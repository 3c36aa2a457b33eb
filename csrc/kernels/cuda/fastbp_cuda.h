/* libfastbp_cuda.so's plain C interface: three exported functions, found with dlsym.
 * libfastbp_cuda_emulated.so has the same. */
#ifndef FASTBP_CUDA_H
#define FASTBP_CUDA_H

#include <stddef.h>
#include <stdint.h>

#include "fastbp_cuda_network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Changes with everything below. A caller built for another version must not call fbp_get_api. */
#define FBP_ABI_VERSION 19

/* What every function returns but the few that cannot fail. No function throws. */
enum {
  FBP_OK = 0,
  FBP_INVALID_ARGUMENT = 1, /* nothing was done */
  FBP_OUT_OF_MEMORY = 2,
  FBP_DEVICE_ERROR = 3, /* of the driver, or of work that was enqueued earlier */
  FBP_INTERRUPTED = 4,  /* as fbp_interrupt asked */
};

/* The last three are of networks alone. */
enum { FBP_FLOAT32 = 0, FBP_FLOAT64 = 1, FBP_BFLOAT16 = 2, FBP_FLOAT16 = 3, FBP_TF32 = 4 };

#define FBP_NO_ACTIVATION (-1)

/* Strides count elements; pointers are device memory, aligned to their elements. */

/* c = a b + bias; with an activation also out = f(c), and c may then be null. a (m, k) and b (k, n)
 * may have any strides; c and out are row-major, may be the same, and overlap nothing else. bias (n)
 * may be null. */
typedef struct fbp_matmul_args {
  int32_t dtype, activation;
  double param; /* the activation's */
  int64_t m, n, k;
  const void* a;
  int64_t a_row, a_col;
  const void* b;
  int64_t b_row, b_col;
  const void* bias;
  void* c;
  int64_t c_row;
  void* out;
  int64_t out_row;
} fbp_matmul_args;

/* forward: out = f(x). backward: out = x f'(saved), where x is dy, and saved is what
 * fbp_activation_info names. All are row-major (rows, cols); out may be x or saved, with the same
 * row stride. */
typedef struct fbp_activation_args {
  int32_t dtype, activation;
  double param;
  int64_t rows, cols;
  const void* x;
  int64_t x_row;
  const void* saved; /* null where the activation saves nothing, and in forward */
  int64_t saved_row;
  void* out;
  int64_t out_row;
} fbp_activation_args;

enum { FBP_SAVES_NOTHING = 0, FBP_SAVES_INPUT = 1, FBP_SAVES_OUTPUT = 2 };

typedef struct fbp_activation_info {
  const char* name;
  int32_t saves;
  double default_param;
} fbp_activation_info;

/* Kinds of numbers that arrays of callers hold. */
enum {
  FBP_NUMBER_BOOL = 0,
  FBP_NUMBER_UINT8 = 1,
  FBP_NUMBER_UINT16 = 2,
  FBP_NUMBER_UINT32 = 3,
  FBP_NUMBER_UINT64 = 4,
  FBP_NUMBER_INT8 = 5,
  FBP_NUMBER_INT16 = 6,
  FBP_NUMBER_INT32 = 7,
  FBP_NUMBER_INT64 = 8,
  FBP_NUMBER_FLOAT16 = 9,
  FBP_NUMBER_FLOAT32 = 10,
  FBP_NUMBER_FLOAT64 = 11
};

#define FBP_INTAKE_AXES 8

/* out[i, j, ...] = x[rows[i], j, ...] / divisor, contiguous, converted; and whether all that was read
 * is accepted: from low to high, and without a fraction where `whole` is set. */
typedef struct fbp_intake_args {
  int32_t from, to; /* numbers; to: float32, float64 or int64 */
  int32_t axes;     /* 1 to FBP_INTAKE_AXES */
  int64_t shape[FBP_INTAKE_AXES];
  int64_t strides[FBP_INTAKE_AXES]; /* of x */
  const void* x;
  const int64_t* rows; /* (shape[0]), or null: all in order */
  /* Of row i of x, how many of axis 1 count; what lies behind becomes 0 and is not looked at. Null:
   * all. */
  const int64_t* lengths;
  double divisor;
  void* out;      /* null: nothing is written */
  int32_t checks; /* whether anything is not accepted */
  int32_t whole;
  double low, high; /* of numbers as they come out; of integers, as they came */
} fbp_intake_args;

/* A stream is a cudaStream_t; null is the default stream. Work on a stream is done in order. */
typedef struct fbp_api {
  size_t size; /* set by the caller: sizeof(fbp_api) */

  /* Why the calling thread's last failure happened. Valid until its next call. */
  const char* (*last_error)(void);
  int32_t (*device_count)(int32_t* count);
  /* Writes at most `capacity` bytes with the closing zero. "emulated" says that no GPU is behind
   * it. */
  int32_t (*device_name)(int32_t device, char* name, size_t capacity);

  int32_t (*allocate)(void** pointer, size_t bytes);
  int32_t (*release)(void* pointer);
  /* Copies, and waits for the stream. */
  int32_t (*copy_to_device)(void* target, const void* source, size_t bytes, void* stream);
  int32_t (*copy_to_host)(void* target, const void* source, size_t bytes, void* stream);
  int32_t (*synchronize)(void* stream);
  /* allocate, intake and sum of the calling thread are on this device from now on. */
  int32_t (*select_device)(int32_t device);
  /* The number of the device that memory lies on; -1: on none. */
  int32_t (*device_of)(const void* pointer, int32_t* device);

  int32_t activation_count;
  const fbp_activation_info* activations;
  /* These enqueue and return. */
  int32_t (*matmul)(const fbp_matmul_args* args, void* stream);
  int32_t (*activation_forward)(const fbp_activation_args* args, void* stream);
  int32_t (*activation_backward)(const fbp_activation_args* args, void* stream);

  /* Enqueues where nothing is checked; otherwise it waits, and *accepted is 1 or 0. */
  int32_t (*intake)(const fbp_intake_args* args, void* stream, int32_t* accepted);
  /* The sum of x (n, device), of numbers from 0 on, as if it were rounded once; it waits. */
  int32_t (*sum)(const double* x, int64_t n, void* stream, double* total);

  /* cuBLASLt of this file makes products of rounded operands from now on where it is faster; "": none
   * does, as at first. *version: 130100 for 13.1.0. FBP_INVALID_ARGUMENT, and no change, where the file
   * is no cuBLASLt of this library's CUDA version. */
  int32_t (*load_blas)(const char* path, int64_t* version);
  /* What has been measured, a line for each product. Writes at most `capacity` bytes with the closing
   * zero; *length: of the whole text. */
  int32_t (*blas_choices)(char* text, size_t capacity, size_t* length);

  const fbp_network_api* network;
} fbp_api;

int32_t fbp_abi_version(void);
/* Words with blanks between: version=0.1.0 device=gpu cuda=13000 architectures=750,900 (as
 * __CUDA_ARCH_LIST__), or device=emulated and no more. Of the same form in every version. */
const char* fbp_build_info(void);
/* Fills the table. FBP_INVALID_ARGUMENT where its size is not this version's. */
int32_t fbp_get_api(fbp_api* api);

#ifdef __cplusplus
}
#endif

#endif
