/* Runs the model of an image, operator by operator. */
#ifndef INTERPRETER_H_
#define INTERPRETER_H_

#include "image.h"

enum { HEAP = 1 << 20, SUBGRAPHS = 8 };

/* Told of every tensor that has just been written. */
typedef void (*observer)(uint32_t subgraph, uint32_t tensor);

void model_load(const image_header *image, observer observe);
const image_subgraph *model_subgraph(uint32_t subgraph);
const image_tensor *model_tensor(uint32_t subgraph, int32_t tensor);
void *model_data(uint32_t subgraph, int32_t tensor);
uint32_t model_iteration(uint32_t subgraph);
void model_reset_state(void);
/* Element i of the tensor of subgraph 0 becomes (i + shift) % 7 - 3. */
void model_fill(int32_t tensor, uint32_t shift);
/* Returns 0, or 1 when `fail` made it stop half way. */
int model_run(int fail);

#endif
