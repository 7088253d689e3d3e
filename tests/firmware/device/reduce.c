/* Applies rules to tensors: requests on stdin, results on stdout; see test_reductions.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layertap.h"

typedef struct {
  uint32_t dtype, bytes, words, form, a, b;
  float low, high;
} request;

typedef struct {
  uint32_t status, form, first, count, bytes;
} result;

int main(void) {
  request asked;
  while (fread(&asked, sizeof asked, 1, stdin) == 1) {
    const layertap_rule rule = {1, 1, (uint8_t)asked.form, asked.a, asked.b, asked.low, asked.high};
    uint8_t *data = (uint8_t *)malloc(asked.bytes ? asked.bytes : 1);
    uint32_t *room = (uint32_t *)malloc(asked.words ? asked.words * 4 : 1);
    layertap_tensor tensor;
    result found;
    if (!data || !room || fread(data, 1, asked.bytes, stdin) != asked.bytes) return 1;
    memset(&tensor, 0, sizeof tensor);
    tensor.dtype = (uint8_t)asked.dtype;
    tensor.data = data;
    tensor.bytes = asked.bytes;
    found.status = layertap_reduce(&rule, &tensor, room, asked.words);
    found.form = tensor.form;
    found.first = tensor.first;
    found.count = tensor.count;
    found.bytes = tensor.bytes;
    fwrite(&found, sizeof found, 1, stdout);
    if (tensor.bytes) fwrite(tensor.data, 1, tensor.bytes, stdout);
    free(data);
    free(room);
  }
  return 0;
}
