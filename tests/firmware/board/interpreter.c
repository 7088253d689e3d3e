#include "interpreter.h"

#include <string.h>

#include "elements.h"

static const image_header *image;
static observer told;
static uint32_t iterations[SUBGRAPHS];
static int failing;
static _Alignas(16) uint8_t heap[HEAP];

static const void *in_image(uint32_t place) { return (const uint8_t *)image + place; }

void model_load(const image_header *header, observer observe) {
  image = header;
  told = observe;
  memset(heap, 0, sizeof heap);
}

const image_subgraph *model_subgraph(uint32_t subgraph) {
  return (const image_subgraph *)in_image(image->subgraph_place) + subgraph;
}

const image_tensor *model_tensor(uint32_t subgraph, int32_t tensor) {
  const image_tensor *all = (const image_tensor *)in_image(image->tensor_place);
  return all + model_subgraph(subgraph)->first_tensor + tensor;
}

void *model_data(uint32_t subgraph, int32_t tensor) {
  const image_tensor *meant = model_tensor(subgraph, tensor);
  return meant->constant ? (void *)(uintptr_t)in_image(meant->place) : heap + meant->place;
}

uint32_t model_iteration(uint32_t subgraph) { return iterations[subgraph]; }

void model_reset_state(void) {
  for (uint32_t s = 0; s < image->subgraphs; ++s)
    for (int32_t t = 0; t < (int32_t)model_subgraph(s)->tensors; ++t)
      if (model_tensor(s, t)->variable) memset(model_data(s, t), 0, model_tensor(s, t)->bytes);
}

/* One operator at work: its tensors by position. */
typedef struct {
  uint32_t subgraph;
  const image_operator *op;
} node;

static const image_tensor *in_tensor(const node *n, int i) {
  return model_tensor(n->subgraph, n->op->input[i]);
}
static void *in_data(const node *n, int i) { return model_data(n->subgraph, n->op->input[i]); }
static const image_tensor *out_tensor(const node *n) {
  return model_tensor(n->subgraph, n->op->output[0]);
}
static void *out_data(const node *n) { return model_data(n->subgraph, n->op->output[0]); }

static uint32_t elements(const image_tensor *tensor) {
  uint32_t count = 1;
  for (uint32_t i = 0; i < tensor->rank; ++i) count *= (uint32_t)tensor->dims[i];
  return count;
}

/* Element i of input number `which`; inputs of fewer elements are repeated. */
static double operand(const node *n, int which, uint32_t i) {
  const image_tensor *tensor = in_tensor(n, which);
  return load_element(tensor->dtype, in_data(n, which), i % elements(tensor));
}

static double combine(uint32_t code, double a, double b) {
  switch (code) {
    case ADD:
      return a + b;
    case SUB:
      return a - b;
    case MAXIMUM:
      return a > b ? a : b;
    case MINIMUM:
      return a < b ? a : b;
    default: /* LESS */
      return a < b;
  }
}

static double rounded(double value) {
  return value < 0 ? (double)(int32_t)(value - 0.5) : (double)(int32_t)(value + 0.5);
}

static double element(const node *n, uint32_t i) {
  const image_operator *op = n->op;
  const double value = operand(n, 0, i);
  switch (op->code) {
    case CAST:
    case RESHAPE:
    case BROADCAST_TO:
      return value;
    case RELU:
      return value > 0 ? value : 0;
    case QUANTIZE:
      return rounded(value / (double)op->scale) + op->zero;
    case DEQUANTIZE:
      return (value - op->zero) * (double)op->scale;
    default:
      return combine(op->code, value, operand(n, 1, i));
  }
}

static void elementwise(const node *n) {
  const image_tensor *result = out_tensor(n);
  const uint32_t count = elements(result);
  for (uint32_t i = 0; i < count; ++i) store_element(result->dtype, out_data(n), i, element(n, i));
}

static void fully_connected(const node *n) {
  const image_tensor *weights = in_tensor(n, 1);
  const uint32_t units = (uint32_t)weights->dims[0], depth = (uint32_t)weights->dims[1];
  const uint32_t rows = elements(in_tensor(n, 0)) / depth;
  for (uint32_t i = 0; i < rows * units; ++i) {
    double sum = 0;
    for (uint32_t k = 0; k < depth; ++k)
      sum += operand(n, 0, i / units * depth + k) * operand(n, 1, i % units * depth + k);
    store_element(out_tensor(n)->dtype, out_data(n), i, sum);
  }
}

/* One unit of rank 1: the state moves on by one, its last element is input x weights. */
static void svdf(const node *n) {
  float *state = (float *)in_data(n, 4);
  const uint32_t memory = elements(in_tensor(n, 4));
  double last = 0, sum = 0;
  for (uint32_t k = 0; k < elements(in_tensor(n, 1)); ++k) last += operand(n, 0, k) * operand(n, 1, k);
  memmove(state, state + 1, (memory - 1) * sizeof *state);
  state[memory - 1] = (float)last;
  for (uint32_t k = 0; k < memory; ++k) sum += (double)state[k] * operand(n, 2, k);
  store_element(out_tensor(n)->dtype, out_data(n), 0, sum);
}

static int run_subgraph(uint32_t subgraph);

static void copy_tensor(uint32_t to_graph, int32_t to, uint32_t from_graph, int32_t from) {
  memcpy(model_data(to_graph, to), model_data(from_graph, from), model_tensor(to_graph, to)->bytes);
}

static int call(const node *n, uint32_t callee, const int32_t *arguments) {
  const image_subgraph *called = model_subgraph(callee);
  for (uint32_t i = 0; i < called->inputs; ++i)
    copy_tensor(callee, called->input[i], n->subgraph, arguments[i]);
  return run_subgraph(callee);
}

static void take_results(const node *n, uint32_t callee) {
  const image_subgraph *called = model_subgraph(callee);
  for (uint32_t i = 0; i < n->op->outputs; ++i)
    copy_tensor(n->subgraph, n->op->output[i], callee, called->output[i]);
}

static int branch(const node *n) {
  const uint32_t callee = n->op->calls[*(uint8_t *)in_data(n, 0) ? 0 : 1];
  const int status = call(n, callee, n->op->input + 1);
  take_results(n, callee);
  return status;
}

static int loop(const node *n) {
  const uint32_t condition = n->op->calls[0], body = n->op->calls[1];
  for (uint32_t i = 0; i < n->op->inputs; ++i)
    copy_tensor(n->subgraph, n->op->output[i], n->subgraph, n->op->input[i]);
  for (;;) {
    if (call(n, condition, n->op->output)) return 1;
    if (!*(uint8_t *)model_data(condition, model_subgraph(condition)->output[0])) return 0;
    if (call(n, body, n->op->output)) return 1;
    take_results(n, body);
  }
}

static int invoke(const node *n) {
  switch (n->op->code) {
    case FULLY_CONNECTED:
      fully_connected(n);
      return 0;
    case SVDF:
      svdf(n);
      return 0;
    case IF:
      return branch(n);
    case WHILE:
      return loop(n);
    default:
      elementwise(n);
      return 0;
  }
}

/* As the resolver of layertap_tflm.h does: the outputs, then state among the inputs. */
static void tell(const node *n) {
  for (uint32_t i = 0; i < n->op->outputs; ++i) told(n->subgraph, (uint32_t)n->op->output[i]);
  for (uint32_t i = 0; i < n->op->inputs; ++i)
    if (n->op->input[i] >= 0 && in_tensor(n, (int)i)->variable)
      told(n->subgraph, (uint32_t)n->op->input[i]);
}

static int run_subgraph(uint32_t subgraph) {
  const image_subgraph *graph = model_subgraph(subgraph);
  const image_operator *all = (const image_operator *)in_image(image->operator_place);
  for (uint32_t i = 0; i < graph->inputs; ++i) told(subgraph, (uint32_t)graph->input[i]);
  for (uint32_t i = 0; i < graph->operators; ++i) {
    const node n = {subgraph, all + graph->first_operator + i};
    if (failing && subgraph == 0 && i >= graph->operators / 2) return 1;
    if (invoke(&n)) return 1;
    tell(&n);
  }
  ++iterations[subgraph];
  return 0;
}

void model_fill(int32_t tensor, uint32_t shift) {
  const image_tensor *meant = model_tensor(0, tensor);
  for (uint32_t i = 0; i < elements(meant); ++i)
    store_element(meant->dtype, model_data(0, tensor), i, (double)((i + shift) % 7) - 3);
}

int model_run(int fail) {
  memset(iterations, 0, sizeof iterations);
  failing = fail;
  return run_subgraph(0);
}
