/* The part of the C interface that trains and predicts whole networks; fastbp_cuda.h has the rest.
 *
 * A network belongs to one device. Calls for one network must not overlap; its functions select its
 * device for the calling thread. Every function returns one of fastbp_cuda.h's codes. */
#ifndef FASTBP_CUDA_NETWORK_H
#define FASTBP_CUDA_NETWORK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fbp_network fbp_network;

enum {
  FBP_LAYER_DENSE = 0,
  FBP_LAYER_ACTIVATION = 1,
  FBP_LAYER_DROPOUT = 2,
  FBP_LAYER_LAYER_NORM = 3,
  FBP_LAYER_BATCH_NORM = 4,
  FBP_LAYER_NORMALIZE = 5,
  FBP_LAYER_EMBEDDING = 6,
  FBP_LAYER_ADD = 7,
  FBP_LAYER_SCAN = 8,
  FBP_LAYER_CUSTOM = 9,
  FBP_LAYER_SOFTMAX = 10
};

/* As LayerSpec of engine/network_spec.h. */
typedef struct fbp_layer {
  int32_t kind;
  int32_t use_bias;       /* dense, norms */
  int32_t use_scale;      /* norms */
  int64_t units;          /* dense; embedding: of an entry */
  int64_t span;           /* embedding: entries; add: layers */
  const char* activation; /* activation: its name */
  double param;           /* the activation's, dropout's rate, the epsilon of norms */
  double momentum;        /* batch_norm */
  int32_t per_sequence;   /* dropout */
  const char* cell;       /* scan: its name; units are its own */
  int32_t sequence;       /* scan: an output at every step */
  int32_t reverse;        /* scan */
  int32_t ways;           /* scan: as ScanWays */
  int64_t truncate;       /* scan */
  double state_rate;      /* scan: dropout of h on its way into the product */
  int32_t function;       /* custom: which of the caller's */
} fbp_layer;

typedef struct fbp_network_spec {
  int32_t
      dtype; /* FBP_FLOAT32, FBP_FLOAT64; or float32 with products of rounded operands, on tensor
                   * cores: FBP_BFLOAT16 (compute capability 8.0), FBP_FLOAT16 (7.5), whose loss is
                   * scaled in training, and FBP_TF32 (8.0) */
  int32_t device; /* number */
  int64_t inputs;
  int64_t layer_count;
  const fbp_layer* layers;
  uint64_t seed;     /* of what a step draws */
  int32_t sequences; /* rows are sequences of steps, of `inputs` values each */
} fbp_network_spec;

/* Hyper-parameters; each optimizer reads those it has. */
typedef struct fbp_hyper {
  double learning_rate, momentum, rho, beta_1, beta_2, epsilon, weight_decay;
} fbp_hyper;

/* A piece of a learning-rate schedule: RatePiece of ops/schedules.h, form as RateForm. */
typedef struct fbp_rate_piece {
  int64_t start;
  int32_t form;
  double first, last, length, ratio, ahead;
} fbp_rate_piece;

/* Parameters begin <= i < end of the flat block: their rate, times the learning rate; l1 |w| + l2 w^2
 * is added to the loss. */
typedef struct fbp_range {
  int64_t begin, end;
  double rate, l1, l2;
} fbp_range;

/* Weights (rows, cols) from a parameter on, whose columns are no longer than `limit` after each update;
 * those of one layer. */
typedef struct fbp_column_limit {
  int64_t begin, rows, cols;
  double limit;
} fbp_column_limit;

/* What happens to a gradient before the update: UpdateRules of engine/update_rules.h. */
typedef struct fbp_rules {
  double clip_norm, clip_value; /* 0: no limit */
  int64_t accumulation;         /* batches to an update, at least 1 */
  int32_t average;              /* whether a moving average of the parameters is kept */
  double average_momentum;
  int64_t range_count;
  const fbp_range* ranges; /* in order, apart from each other */
  /* The learning rate of each update, in the place of set_hyper's: pieces in order, the first from
   * update 0, and the values of the form `table`. No pieces: set_hyper's. */
  int64_t rate_count;
  const fbp_rate_piece* rates;
  int64_t rate_value_count;
  const double* rate_values;
  int64_t limit_count;
  const fbp_column_limit* limits;
} fbp_rules;

/* n rows, contiguous: x (n, inputs) of the network's dtype; one of target (n, outputs) and labels (n),
 * or neither for a prediction. Of sequences x (n, steps, inputs), and where there is an output at every
 * step target (n, steps, outputs), labels and weight (n, steps). */
typedef struct fbp_samples {
  int64_t n;
  int32_t on_device; /* pointers are memory of the network's device */
  const void* x;
  const void* target;
  const int64_t* labels;
  const void* weight;          /* (n) of the network's dtype: of each row's loss; or null */
  int64_t steps;               /* of each sequence; 1 where rows are none */
  const int64_t* lengths;      /* (n), from 1 to steps: the steps that count; null: all */
  const int64_t* host_lengths; /* the same (host), wherever the samples are */
  /* Of sequences (host), (n, carried_width) of the dtype, for training (rows of a batch, ..): the
   * states before the first step, then behind the last; null: 0, and not wanted. */
  void* states;
} fbp_samples;

/* Functions of the caller's own, which a network calls in the middle of its passes, in the thread that
 * called it. Pointers are memory of the host, values of the network's dtype, rows contiguous. A function
 * returns 0; otherwise the call of the network ends as if it were interrupted. */

/* out = f(z) or, where dy is not null, out = dy f'(z): (rows, cols), or of sequences (steps, rows,
 * cols). As HostActivation of engine/host_functions.h. */
typedef struct fbp_host_activation {
  int32_t function;          /* the layer's */
  int64_t rows, cols, steps; /* steps 0: rows are none of sequences */
  const void* z;
  const void* dy;
  void* out;
} fbp_host_activation;

/* The loss of outputs y (rows, cols), and its gradient dy: as HostLoss of engine/host_functions.h. */
typedef struct fbp_host_loss {
  int64_t rows, cols, counted;
  const void* y;
  const void* target;
  const void* weight; /* of each element; null: none */
  void* dy;
  double* block_loss; /* of each 16 rows */
} fbp_host_loss;

typedef struct fbp_host_functions {
  int32_t (*activation)(void* context, const fbp_host_activation* call);
  int32_t (*loss)(void* context, const fbp_host_loss* call);
  void* context;
} fbp_host_functions;

enum { FBP_ACCURACY_ARGMAX = 0, FBP_ACCURACY_THRESHOLD = 1, FBP_MSE = 2, FBP_MAE = 3 };

typedef struct fbp_metric {
  int32_t kind;
  int32_t of_softmax; /* mse, mae: of softmax(output) */
  double threshold;
} fbp_metric;

/* Asked now and then by the calling thread; where it returns other than 0 the call ends with
 * FBP_INTERRUPTED. May be null. */
typedef struct fbp_interrupt {
  int32_t (*pending)(void* context);
  void* context;
} fbp_interrupt;

typedef struct fbp_train_args {
  fbp_samples samples;
  int64_t batch_size, epochs;
  int64_t first_epoch; /* in the shuffle's random stream */
  int32_t shuffle;
  uint64_t seed;
  int32_t metric_count;
  const fbp_metric* metrics;
  int32_t means;  /* the sums of a completed epoch become means */
  int32_t resets; /* each epoch begins with states of 0 */
  /* Where the run stands, also when it is interrupted: completed epochs, rows done of the next one,
   * and a row for each epoch of 1 + metric_count values, losses first (host); of the next one, the
   * sums over its rows done. */
  int64_t epoch, at;
  double* record;
  int64_t steps; /* that may be taken; negative: all */
  void* outputs; /* (n, outputs) of the epoch in its order (host); or null */
  fbp_interrupt interrupt;
} fbp_train_args;

typedef struct fbp_evaluate_args {
  fbp_samples samples;
  int64_t batch_size;
  int32_t metric_count;
  const fbp_metric* metrics;
  double* values; /* (1 + metric_count): the loss and the metrics (host) */
  void* outputs;  /* as of fbp_train_args */
  fbp_interrupt interrupt;
} fbp_evaluate_args;

/* Flat arrays of one layout. Two are there once rules have wanted them: the sum of the gradients of
 * some batches, the average of the parameters. What steps change besides has a layout of its own. */
enum {
  FBP_PARAMETERS = 0,
  FBP_GRADIENTS = 1,
  FBP_SLOT_0 = 2,
  FBP_SLOT_1 = 3,
  FBP_ACCUMULATED = 4,
  FBP_AVERAGE = 5,
  FBP_STATE = 6,
  FBP_LOSS_SCALE =
      7 /* of float16, 3 float32 values: scale, updates since it changed, those left out */
};

typedef struct fbp_network_api {
  size_t size; /* of this struct */

  int32_t (*create)(const fbp_network_spec* spec, fbp_network** network);
  int32_t (*destroy)(fbp_network* network);
  int64_t (*parameter_count)(const fbp_network* network);
  /* Places of the layers' parameters: up to `capacity` of {offset, rows, cols, bias}; returns their
   * number. */
  int64_t (*parameter_shapes)(const fbp_network* network, int64_t (*shapes)[4], int64_t capacity);

  /* The same of FBP_STATE: its length; places of {offset, rows, cols}. */
  int64_t (*state_count)(const fbp_network* network);
  int64_t (*state_shapes)(const fbp_network* network, int64_t (*shapes)[3], int64_t capacity);

  /* What layers FBP_LAYER_CUSTOM call, and a loss without a name; kept. */
  int32_t (*set_functions)(fbp_network* network, const fbp_host_functions* functions);
  /* Loss and optimizer by name; slots and step count start anew. loss null: the caller's own, with the
   * targets and metrics of "mse". */
  int32_t (*compile)(fbp_network* network, const char* loss, double loss_param,
                     const char* optimizer, const fbp_hyper* hyper);
  int32_t (*set_hyper)(fbp_network* network, const fbp_hyper* hyper);
  /* From now on; none after compile. Arrays that were not wanted before begin with 0. */
  int32_t (*set_rules)(fbp_network* network, const fbp_rules* rules);
  /* Of each layer, whether it is trained; all are at first. */
  int32_t (*set_trainable)(fbp_network* network, const int32_t* layers, int64_t count);
  int64_t (*steps)(const fbp_network* network);
  /* Of these, those that were replayed from a recording (a CUDA graph), since the network was made. */
  int64_t (*replays)(const fbp_network* network);
  /* Of these, those that a kernel took that trains narrow networks whole, many steps to a launch; and
   * whether it may wherever they fit it (at first, where it should be quicker), and whether a
   * recurrent layer may take all steps of its sequences in one launch. */
  int64_t (*persistent_steps)(const fbp_network* network);
  int32_t (*set_persistent)(fbp_network* network, int32_t allowed);
  int32_t (*set_steps)(fbp_network* network, int64_t steps);
  /* Training steps are timed from now on, by events of the device, until stop_clock: seconds, for each part of
   * StepPart (engine/step_clock.h) in its order a row of layers + 1 values, the last of all layers. The
   * host waits for each step meanwhile. */
  int32_t (*start_clock)(fbp_network* network);
  int32_t (*stop_clock)(fbp_network* network, double* seconds);
  /* What is done from now on comes behind what the caller has enqueued on this cudaStream_t, and is
   * complete when a call returns; null: a stream of the network's own. */
  int32_t (*set_stream)(fbp_network* network, void* stream);

  /* A copy of the samples (host) is on the device from now on, and serves every call that names the
   * same pointers and n, until release; of at most two sets. Their memory must not change meanwhile. */
  int32_t (*hold)(fbp_network* network, const fbp_samples* samples);
  int32_t (*release)(fbp_network* network);

  /* Whole flat arrays, between the device and the host. */
  int32_t (*read)(fbp_network* network, int32_t array, void* host);
  int32_t (*write)(fbp_network* network, int32_t array, const void* host);

  /* As methods of csrc/engine/network.h; all have ended when they return. Where a call fails or is
   * interrupted, parameters, slots and steps are those after some complete step. */
  int32_t (*train)(fbp_network* network, fbp_train_args* args);
  int32_t (*step)(fbp_network* network, const fbp_samples* batch, double* loss);
  /* dx (n, inputs), where batch is, or null. */
  int32_t (*gradients)(fbp_network* network, const fbp_samples* batch, double* loss, void* dx);
  int32_t (*evaluate)(fbp_network* network, const fbp_evaluate_args* args);
  /* out (n, outputs), where the samples are; with `training`, as the next step would see the rows as
   * one batch. */
  int32_t (*predict)(fbp_network* network, const fbp_samples* samples, void* out, int32_t training,
                     const fbp_interrupt* interrupt);
} fbp_network_api;

#ifdef __cplusplus
}
#endif

#endif
