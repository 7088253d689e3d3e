/* What a firmware may put in place of layertap.h's own: a lock, a CRC unit. And what happens to a
 * tensor that changes while it is sent. The frames go to stdout. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int depth, locked, checked;

static void lock(void) {
  if (depth++) abort(); /* never inside itself */
  ++locked;
}

static void unlock(void) { --depth; }

static uint32_t slow_crc(uint32_t crc, const void *bytes, size_t count) {
  const uint8_t *at = (const uint8_t *)bytes;
  ++checked;
  crc = ~crc;
  while (count--) {
    int bit;
    crc ^= *at++;
    for (bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
  }
  return ~crc;
}

#define LAYERTAP_LOCK() \
  const int before = depth; \
  lock()
#define LAYERTAP_UNLOCK() \
  unlock(); \
  if (before != depth) abort()
#define LAYERTAP_CRC32(crc, bytes, count) slow_crc(crc, bytes, count)
#include "layertap.h"

static uint8_t values[20000];
static int writes_until_change;

/* Another task, or DMA, writes the tensor while its frames are on their way. */
static void put(void *sink, const uint8_t *bytes, size_t count) {
  (void)sink;
  if (depth != 1) abort();
  if (writes_until_change && --writes_until_change == 0) memset(values, 0, sizeof values);
  fwrite(bytes, 1, count, stdout);
}

static void send(layertap_encoder *encoder, uint32_t inference) {
  static const int dims[1] = {(int)sizeof values};
  layertap_tensor tensor;
  uint32_t frames;
  memset(&tensor, 0, sizeof tensor);
  tensor.inference = inference;
  tensor.dtype = LAYERTAP_UINT8;
  tensor.rank = 1;
  tensor.dims = dims;
  tensor.data = values;
  tensor.bytes = sizeof values;
  frames = layertap_send_tensor(encoder, &tensor);
  layertap_send_done(encoder, inference, 0, 1, frames);
}

int main(void) {
  layertap_encoder encoder;
  memset(&encoder, 0, sizeof encoder);
  encoder.write = put;
  memset(values, 7, sizeof values);
  send(&encoder, 0);
  writes_until_change = 30;
  send(&encoder, 1);
  send(&encoder, 2);
  /* Five pieces and one DONE, three times. */
  return locked == 18 && checked >= 18 && depth == 0 ? 0 : 1;
}
