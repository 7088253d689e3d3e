/* Slices, summaries and histograms, for sizes.py. */
#include "layertap.h"

uint8_t reduce(const layertap_rule *rule, layertap_tensor *tensor, uint32_t *room, uint32_t words) {
  return layertap_reduce(rule, tensor, room, words);
}
